"""Delete the releases that nobody runs any more, with everything that is stored of them."""

from collections.abc import Collection, Mapping, Sequence

from botapi.cfg import releases
from botapi.domain.rollout import Deployed, unwanted, with_references, without
from botapi.store.protocol import Key, Store, Txn
from botapi.transactions.change_deployment import Author, change_deployment


def delete_releases(
    store: Store,
    stored: Mapping[str, Sequence[Key]],
    pinned: Collection[str],
    *,
    now_ms: int,
    change_id: str,
) -> tuple[str, ...]:
    """Delete those of the releases in `stored` that are unwanted, or not noted at all; their ids.

    `stored` maps the ids to all of their documents. References are renewed by the way.
    """
    gone: set[str] = set()

    def change(deployed: Deployed) -> Deployed:
        gone.clear()
        idle = {release.release_id for release in unwanted(deployed, pinned, now_ms)}
        kept = {release.release_id for release in deployed.releases}
        gone.update(stored.keys() & idle, stored.keys() - kept)
        return with_references(without(deployed, gone), pinned, now_ms)

    def drop(txn: Txn, _deployed: Deployed) -> None:
        for release_id in gone:
            for key in stored[release_id]:
                txn.delete(releases.KIND, key)

    author = Author("rollout", "", "", "", now_ms, change_id)
    change_deployment(store, change, author, also=drop)
    return tuple(sorted(gone))
