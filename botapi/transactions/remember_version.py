"""Remember a version that a bot was told to run: it stays one of ours after a restart."""

from botapi.cfg import releases
from botapi.store.protocol import Store, Txn


def remember_version(store: Store, version: str, release_id: str, now_ms: int) -> None:
    """Note it once; the newest 2,000 are kept."""

    def work(txn: Txn) -> None:
        (doc,) = txn.get(releases.KIND, releases.VERSIONS_KEY)
        versions = releases.read_versions(doc)
        if version not in versions:
            versions[version] = (release_id, now_ms)
            txn.put(releases.KIND, releases.versions_doc(versions, doc))
            txn.notify(releases.TOPIC)

    store.transact(work, label="remember_version")
