"""One store copied into another, whatever their engines, and the proof that both hold the same.

The copy is walked in key order, a page at a time; each page is compared with what the target
holds in the same range when a broken copy goes on. Until it is done the target carries a mark,
and no server starts on it (docs/deploy/moving.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from botapi.store.documents import SCHEMA_KEY, SCHEMA_KIND
from botapi.store.protocol import Doc, Key, Store, Txn
from botapi.store.walk import END, key_after, key_pages, pages

PAGE = 100
"""Documents in memory at once: 90 MiB at worst."""
PART_BYTES = 4 * 1024 * 1024
"""Most that is written at once: half of what the smallest engine takes in one commit."""
MARK_KEY = "COPY"
"""In the kind `schema`: the copy into this store is not finished."""
_DIGEST_BITS = 256
_canonical: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="sorted").encode

Say = Callable[[str, int], None]
"""Told now and then: the kind that is being copied, and how many documents of it are done."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many documents, and the sum of their SHA-256: the same in any order."""

    documents: int = 0
    total: int = 0

    def plus(self, kind: str, docs: Sequence[Doc]) -> "Tally":
        """With these documents of a kind."""
        total = sum((int.from_bytes(_sha256(kind, doc)) for doc in docs), self.total)
        return Tally(self.documents + len(docs), total % (1 << _DIGEST_BITS))

    @property
    def digest(self) -> str:
        """The sum as 64 hex digits."""
        return f"{self.total:064x}"


def _sha256(kind: str, doc: Doc) -> bytes:
    return sha256(_encoded(kind, doc)).digest()


def _encoded(kind: str, doc: Doc) -> bytes:
    """Everything of a document: kind, key, body with the types in it, tags, expiry."""
    return _canonical([kind, doc.key, dict(doc.body), sorted(doc.tags), doc.expire_at])


def tally(store: Store, kind: str) -> Tally:
    """Read a whole kind and sum it up; what belongs to the copy itself is left out."""
    found = Tally()
    for docs in pages(store, kind):
        found = found.plus(kind, [doc for doc in docs if not _is_mark(kind, doc.key)])
    return found


def is_unfinished(store: Store) -> bool:
    """Does the store carry the mark of a copy that broke off?"""
    return store.get(SCHEMA_KIND, MARK_KEY) != [None]


def is_empty(store: Store) -> bool:
    """Is there nothing but the schema number?"""
    return all(kind == SCHEMA_KIND or _first(store, kind) is None for kind in store.kinds())


def copy_all(source: Store, target: Store, say: Say = lambda *_: None) -> dict[str, Tally]:
    """Make the target hold what the source holds; what was read, by kind.

    What the target holds already and the source does not is deleted: so a copy that broke
    off, or one of a store that has gone on since, is made right by doing it again. The mark
    stays until `finish`.
    """
    target.transact(
        lambda txn: txn.put(SCHEMA_KIND, Doc(MARK_KEY, {"unfinished": True})), label="copy_begin"
    )
    kinds = sorted({*source.kinds(), *target.kinds()} - {SCHEMA_KIND})
    read = {kind: _copy_kind(source, target, kind, say) for kind in kinds}
    read[SCHEMA_KIND] = tally(source, SCHEMA_KIND)
    return {kind: found for kind, found in sorted(read.items()) if found.documents}


def finish(source: Store, target: Store) -> None:
    """Give the target the schema number of the source and take the mark away."""
    (number,) = source.get(SCHEMA_KIND, SCHEMA_KEY)

    def work(txn: Txn) -> None:
        if number is not None:
            txn.put(SCHEMA_KIND, number)
        txn.delete(SCHEMA_KIND, MARK_KEY)

    target.transact(work, label="copy_finish")


def differences(read: Mapping[str, Tally], target: Store) -> list[str]:
    """The kinds of which the target, read from the beginning, does not hold what was read."""
    kinds = sorted({*read, *target.kinds()} - {SCHEMA_KIND})
    return [kind for kind in kinds if tally(target, kind) != read.get(kind, Tally())]


def _copy_kind(source: Store, target: Store, kind: str, say: Say) -> Tally:
    done, lo = Tally(), ""
    is_new = _first(target, kind) is None
    for docs in pages(source, kind):
        is_last = len(docs) < PAGE
        hi = END if is_last else key_after(docs[-1].key)
        for part in _parts(kind, docs if is_new else _news(target, kind, docs)):
            target.write_many((kind, doc) for doc in part)
        if not is_new:
            _delete_others(target, kind, (lo, hi), frozenset(doc.key for doc in docs))
        lo = hi
        done = done.plus(kind, docs)
        say(kind, done.documents)
    if not is_new and lo != END:
        _delete_others(target, kind, (lo, END), frozenset())
    return done


def _parts(kind: str, docs: Sequence[Doc]) -> Iterator[list[Doc]]:
    """The documents in parts of at most `PART_BYTES`, or of one."""
    part: list[Doc] = []
    size = 0
    for doc in docs:
        of_doc = len(_encoded(kind, doc))
        if part and size + of_doc > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(doc)
        size += of_doc
    if part:
        yield part


def _news(target: Store, kind: str, docs: Sequence[Doc]) -> list[Doc]:
    """Those that the target does not hold just so."""
    there = target.get(kind, *(doc.key for doc in docs))
    return [
        doc
        for doc, other in zip(docs, there, strict=True)
        if other is None or _sha256(kind, doc) != _sha256(kind, other)
    ]


def _delete_others(target: Store, kind: str, within: tuple[Key, Key], kept: frozenset[Key]) -> None:
    size = min(PAGE, target.capabilities().max_txn_docs)
    for keys in key_pages(target, kind, *within, limit=PAGE):
        others = [key for key in keys if key not in kept]
        for at in range(0, len(others), size):
            target.transact(_deleting(kind, others[at : at + size]), label="copy_delete")


def _deleting(kind: str, keys: Sequence[Key]) -> Callable[[Txn], None]:
    def work(txn: Txn) -> None:
        for key in keys:
            txn.delete(kind, key)

    return work


def _first(store: Store, kind: str) -> Key | None:
    return next(iter(store.scan_keys(kind, "", END, limit=1)), None)


def _is_mark(kind: str, key: Key) -> bool:
    return kind == SCHEMA_KIND and key == MARK_KEY
