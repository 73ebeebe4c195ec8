"""Keep a build of the server's own sources, and let the fleet have it as the rules say."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from botapi.cfg import releases
from botapi.cfg.releases import Build
from botapi.domain.fleet_settings import RolloutRule
from botapi.domain.manifest import Label, Manifest, manifest_bytes
from botapi.domain.rollout import Deployed, Origin, Release, with_source
from botapi.store.protocol import Store, Txn
from botapi.transactions.change_deployment import Author, change_deployment


@dataclass(frozen=True, slots=True)
class Signer:
    """The development key: its id, and `manifest.sig` for a manifest, always the same."""

    key_id: str
    sign: Callable[[bytes], bytes]


def register_source(
    store: Store,
    build: Build,
    *,
    signer: Signer,
    server_version: str,
    rule: RolloutRule | None,
    now_ms: int,
    change_id: str,
) -> Deployed:
    """Store a build, once for equal contents, and deploy it (`domain.rollout.with_source`).

    The release number is drawn here, so that every server signs the same bytes.
    """

    (was,) = store.get(releases.KIND, releases.DEPLOYMENT_KEY)

    def release_of(deployed: Deployed) -> Release:
        kept = deployed.get(build.release_id)
        return kept or _release(build, signer, deployed, server_version, now_ms)

    def change(deployed: Deployed) -> Deployed:
        release = release_of(deployed)
        changed = with_source(deployed, release, rule, now_ms)
        return replace(changed, last_number=max(changed.last_number, _own_number(release)))

    def keep(txn: Txn, deployed: Deployed) -> None:
        release = release_of(deployed)
        docs = list(releases.chunk_docs(build.release_id, build.packed))
        if txn.get(releases.KIND, docs[0].key)[0] is None:
            for doc in docs:
                txn.put(releases.KIND, doc)
        if release.label is not Label.DEVELOPMENT or release.origin is not Origin.SOURCE:
            return
        raw = manifest_bytes(Manifest(release.number, release.min_server, build.members))
        doc = releases.manifest_doc(release.release_id, raw, signer.sign(raw))
        if txn.get(releases.KIND, doc.key)[0] is None:
            txn.put(releases.KIND, doc)

    author = Author(
        actor="rollout",
        verb="archive.source" if was is not None else "",  # a new server is nothing to audit
        target=f"release {build.release_id[:12]}",
        reason="the bot's sources on disk changed",
        at_ms=now_ms,
        change_id=change_id,
    )
    return change_deployment(store, change, author, also=keep)


def _release(
    build: Build, signer: Signer, deployed: Deployed, server_version: str, now_ms: int
) -> Release:
    chunks = -(-len(build.packed) // releases.CHUNK_BYTES)
    signed = build.verified
    return Release(
        release_id=build.release_id,
        origin=Origin.SOURCE,
        label=signed.label if signed else Label.DEVELOPMENT,
        key_id=signed.key_id if signed else signer.key_id,
        number=signed.manifest.release if signed else deployed.last_number + 1,
        min_server=signed.manifest.min_server if signed else server_version,
        created_ms=now_ms,
        actor="",
        file_name="",
        files=len(build.members),
        size=build.size,
        chunks=chunks,
        referenced_ms=now_ms,
    )


def _own_number(release: Release) -> int:
    return release.number if release.label is Label.DEVELOPMENT else 0
