"""Put a revision of the configuration in force, or note why the files on disk are kept out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botapi.cfg import provider
from botapi.cfg.bundle import Source
from botapi.cfg.provider import Head, Rejected
from botapi.store import schema
from botapi.store.protocol import Doc, Store, Txn


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


Also = Callable[[Txn, Pushed], None]


def push_config(
    store: Store,
    source: Source,
    *,
    parent: str,
    author: str,
    now_ms: int,
    reason: str = "",
    from_disk: bool = False,
    also: Also | None = None,
) -> Pushed | Outdated:
    """Put a checked source in force when the revision in force still has the digest `parent`.

    Pushing what is in force already is no change. `also` is called inside the transaction
    for a new revision, so that a person's push is audited with it; like the rest of the
    transaction it may run twice. The oldest revision beyond `MAX_REVISIONS` is deleted.

    Files on disk (`from_disk`) that were acted on before are not put in force again:
    whatever a person applied since then stays. Files that are acted on are not kept out
    any more; so are those that were kept out when a person pushes just what they say.
    """
    digest = source.digest()
    new = Head(0, digest, 0, now_ms, author, reason)

    def work(txn: Txn) -> Pushed | Outdated:
        keys = (provider.HEAD_KEY, provider.REJECTED_KEY, provider.FILE_KEY)
        was, rejected, file = txn.get(provider.KIND, *keys)
        head, kept_out = provider.read_head(was), provider.read_rejected(rejected)
        is_known_file = provider.read_file(file) == digest
        if from_disk and is_known_file and head.digest != digest:
            outcome: Pushed | Outdated = Pushed(head, head.digest, is_new=False)
        else:
            outcome = _push(txn, source, new, (head, was), parent, also)
        is_of_file = from_disk or (kept_out is not None and kept_out.digest == digest)
        is_news = not is_known_file or kept_out is not None
        if isinstance(outcome, Pushed) and is_of_file and is_news:
            txn.put(provider.KIND, _doc(provider.FILE_KEY, provider.file_body(digest), file))
            txn.delete(provider.KIND, provider.REJECTED_KEY)
            txn.notify(provider.TOPIC)
        return outcome

    return store.transact(work, label="push_config")


def _push(
    txn: Txn,
    source: Source,
    new: Head,
    known: tuple[Head, Doc | None],
    parent: str,
    also: Also | None,
) -> Pushed | Outdated:
    """Write the revision; `new` has everything but its number and the time it was fetched.

    `known` is the head in force and its document.
    """
    head, was = known
    if head.digest == new.digest:
        # Our own commit, when its outcome was unknown and the transaction runs again.
        ours = (head.applied_at_ms, head.author) == (new.applied_at_ms, new.author)
        return Pushed(head, parent if ours else head.digest, is_new=ours)
    if head.digest != parent:
        return Outdated(head)
    fetched_ms = max(new.applied_at_ms, head.fetched_ms + 1)
    new = replace(new, rev=head.rev + 1, fetched_ms=fetched_ms)
    revision = provider.revision_body(source, new)
    txn.insert(provider.KIND, _doc(provider.revision_key(new.rev), revision))
    txn.put(provider.KIND, _doc(provider.HEAD_KEY, provider.head_body(new), was))
    if new.rev > provider.MAX_REVISIONS:
        txn.delete(provider.KIND, provider.revision_key(new.rev - provider.MAX_REVISIONS))
    txn.notify(provider.TOPIC)
    pushed = Pushed(new, parent, is_new=True)
    if also is not None:
        also(txn, pushed)
    return pushed


def reject_config(store: Store, rejected: Rejected) -> None:
    """Note why the files on disk are kept out; the same note again writes nothing."""

    def work(txn: Txn) -> None:
        (doc,) = txn.get(provider.KIND, provider.REJECTED_KEY)
        was = provider.read_rejected(doc)
        shown = rejected.mistakes[: provider.MAX_STORED_MISTAKES]
        if was == replace(rejected, mistakes=shown, at_ms=was.at_ms if was else 0):
            return
        body = provider.rejected_body(rejected)
        txn.put(provider.KIND, _doc(provider.REJECTED_KEY, body, doc))
        txn.notify(provider.TOPIC)

    store.transact(work, label="reject_config")


def _doc(key: str, body: Mapping[str, Any], was: Doc | None = None) -> Doc:
    return Doc(key, schema.body(body, was))
