"""Keep an archive that a person uploaded, as a release that nobody runs yet."""

from botapi.cfg import releases
from botapi.domain.errors import Code, Refusal
from botapi.domain.rollout import Deployed, Release, with_upload
from botapi.store.protocol import Store, Txn
from botapi.transactions.change_deployment import Author, change_deployment

MAX_CHUNKS = 300


def upload_archive(store: Store, release: Release, packed: bytes, author: Author) -> Release:
    """Store the zip and note the release; the kept one when there is one of equal content.

    The pieces are written first: a release that is noted is whole. Raises Refusal.
    """
    docs = list(releases.chunk_docs(release.release_id, packed))
    if len(docs) > MAX_CHUNKS:
        raise Refusal(Code.INVALID_ARGUMENT, f"the archive has over {MAX_CHUNKS} pieces to store")
    store.write_many((releases.KIND, doc) for doc in docs)

    def change(deployed: Deployed) -> Deployed:
        kept = deployed.get(release.release_id)
        return deployed if kept is not None else with_upload(deployed, release)

    def check(txn: Txn, _deployed: Deployed) -> None:
        if None in txn.get(releases.KIND, *(doc.key for doc in docs)):
            raise Refusal(Code.ABORTED, "an equal archive was deleted meanwhile; upload it again")

    after = change_deployment(store, change, author, also=check)
    kept = after.get(release.release_id)
    return release if kept is None else kept
