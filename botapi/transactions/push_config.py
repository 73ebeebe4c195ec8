"""Put a revision of bots.cfg in force, or note why the file on disk is kept out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botapi.cfg import provider
from botapi.cfg.bundle import Source
from botapi.cfg.provider import Head, Rejected
from botapi.store.protocol import SCHEMA_NUMBER, Doc, Store, Txn


@dataclass(frozen=True, slots=True)
class Pushed:
    """The revision in force. `is_new` is False when it was already; `before` is a digest."""

    head: Head
    before: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Outdated:
    """Somebody else pushed meanwhile: `head` is not the revision that the change is based on."""

    head: Head


def push_config(
    store: Store,
    source: Source,
    *,
    parent: str,
    author: str,
    now_ms: int,
    also: Callable[[Txn, Pushed], None] | None = None,
) -> Pushed | Outdated:
    """Put a checked source in force when the revision in force still has the digest `parent`.

    Pushing what is in force already is no change. `also` is called inside the transaction
    for a new revision, so that a person's push is audited with it; like the rest of the
    transaction it may run twice. A source in force clears the note about a rejected file.
    """
    digest = source.digest()

    def work(txn: Txn) -> Pushed | Outdated:
        was, rejected = txn.get(provider.KIND, provider.HEAD_KEY, provider.REJECTED_KEY)
        head = provider.read_head(was)
        if rejected is not None and head.digest == digest:
            txn.delete(provider.KIND, provider.REJECTED_KEY)
            txn.notify(provider.TOPIC)
        if head.digest == digest:
            # Our own commit, when its outcome was unknown and the transaction runs again.
            ours = head.applied_at_ms == now_ms and head.author == author
            return Pushed(head, parent if ours else digest, is_new=ours)
        if head.digest != parent:
            return Outdated(head)
        new = Head(
            rev=head.rev + 1,
            digest=digest,
            fetched_ms=max(now_ms, head.fetched_ms + 1),
            applied_at_ms=now_ms,
            author=author,
        )
        pushed = Pushed(new, parent, is_new=True)
        revision = provider.revision_body(source, new)
        txn.insert(provider.KIND, _doc(provider.revision_key(new.rev), revision))
        txn.put(provider.KIND, _doc(provider.HEAD_KEY, provider.head_body(new)))
        txn.delete(provider.KIND, provider.REJECTED_KEY)
        txn.notify(provider.TOPIC)
        if also is not None:
            also(txn, pushed)
        return pushed

    return store.transact(work, label="push_config")


def reject_config(store: Store, rejected: Rejected) -> None:
    """Note why the file on disk is kept out; the same note again writes nothing."""

    def work(txn: Txn) -> None:
        (doc,) = txn.get(provider.KIND, provider.REJECTED_KEY)
        was = provider.read_rejected(doc)
        shown = rejected.mistakes[: provider.MAX_STORED_MISTAKES]
        if was == replace(rejected, mistakes=shown, at_ms=was.at_ms if was else 0):
            return
        body = provider.rejected_body(rejected)
        txn.put(provider.KIND, _doc(provider.REJECTED_KEY, body))
        txn.notify(provider.TOPIC)

    store.transact(work, label="reject_config")


def _doc(key: str, body: Mapping[str, Any]) -> Doc:
    return Doc(key, {**body, "v": SCHEMA_NUMBER})
