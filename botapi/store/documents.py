"""What every engine does to a document: check it, pack it, buffer it until the commit.

Bodies are packed at `put`, so that a later change of the caller's mapping never leaks in,
limits are met at once, and every engine gives back exactly the same types.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from botapi.store.protocol import (
    MAX_ALTERNATIVES,
    MAX_BODY_BYTES,
    MAX_KEY_BYTES,
    MAX_TAG_BYTES,
    MAX_TAGS,
    AnyOf,
    Doc,
    Key,
    Page,
    TooLarge,
)

MAX_TXN_DOCS = 10_000
"""Most documents one transaction may write, so that no single one holds up the others."""

SCHEMA_KIND = "schema"
SCHEMA_KEY = "ACTIVE"
"""Where the schema number in force is kept, as `{"number": n}`."""

NO_TAGS: frozenset[str] = frozenset()

_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Packed:
    """A checked document without its key: the body as bytes, the tags, the expiry (ms)."""

    body: bytes
    tags: frozenset[str]
    expire_at: int | None


@dataclass(frozen=True, slots=True)
class Write:
    """The last write of one key: `packed` None deletes; `must_be_new` came from an insert."""

    packed: Packed | None
    must_be_new: bool


class WriteBuffer:
    """The writing half of a transaction: nothing reaches the engine before the commit."""

    def __init__(self) -> None:
        self.writes: dict[str, dict[Key, Write]] = {}
        self.topics: dict[str, None] = {}
        self._count = 0
        self._ended = False

    def put(self, kind: str, doc: Doc) -> None:
        """Insert or replace. Raises TooLarge, ValueError or TypeError at once."""
        self._write(kind, doc.key, pack(doc), must_be_new=False)

    def insert(self, kind: str, doc: Doc) -> None:
        """Write a document that must not exist at the commit."""
        self._write(kind, doc.key, pack(doc), must_be_new=True)

    def delete(self, kind: str, key: Key) -> None:
        """Remove, if it is there."""
        check_key(key)
        self._write(kind, key, None, must_be_new=False)

    def notify(self, topic: str) -> None:
        """Remember the topic for after the commit. Raises ValueError unless it is one line."""
        self.check_running()
        if not topic or "\n" in topic:
            raise ValueError(f"{topic!r} is not a topic: one line of text")
        self.topics[topic] = None

    def end(self) -> None:
        """Refuse every further call: a transaction must not outlive its function."""
        self._ended = True

    def check_running(self) -> None:
        """Raise RuntimeError when the transaction function has ended."""
        if self._ended:
            raise RuntimeError("the transaction has ended")

    def _write(self, kind: str, key: Key, packed: Packed | None, *, must_be_new: bool) -> None:
        self.check_running()
        check_kind(kind)
        of_kind = self.writes.setdefault(kind, {})
        before = of_kind.get(key)
        if before is not None:
            must_be_new = must_be_new or before.must_be_new
        elif self._count >= MAX_TXN_DOCS:
            raise TooLarge(f"more than {MAX_TXN_DOCS} documents in one transaction")
        else:
            self._count += 1
        of_kind[key] = Write(packed, must_be_new)


def pack(doc: Doc) -> Packed:
    """Check a document and encode its body. Raises TooLarge, ValueError, TypeError."""
    check_key(doc.key)
    if doc.tags:
        _check_tags(doc)
    if doc.expire_at is not None and not 0 <= doc.expire_at < 2**63:
        raise ValueError(f"expire_at {doc.expire_at} of {doc.key!r} is not a time in milliseconds")
    body = doc.body if type(doc.body) is dict else dict(doc.body)
    encoded = _encode(body)
    if len(encoded) > MAX_BODY_BYTES:
        raise TooLarge(
            f"the body of {doc.key!r} has {len(encoded)} bytes, the limit is {MAX_BODY_BYTES}"
        )
    return Packed(encoded, doc.tags or NO_TAGS, doc.expire_at)


def unpack(key: Key, packed: Packed) -> Doc:
    """The document again, its body a fresh one that the caller may change."""
    return Doc(key, _decode(packed.body), packed.tags, packed.expire_at)


def unpack_body(encoded: bytes) -> Mapping[str, Any]:
    """The body that `pack` encoded."""
    body: Mapping[str, Any] = _decode(encoded)
    return body


def pack_tags(tags: frozenset[str]) -> bytes | None:
    """Tags as one value beside the body; None when there are none."""
    return _encode(sorted(tags)) if tags else None


def unpack_tags(encoded: bytes | None) -> frozenset[str]:
    """The tags that `pack_tags` encoded."""
    return frozenset(_decode(encoded)) if encoded else NO_TAGS


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind that is not a short lower-case word."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a kind: up to 40 of a-z, 0-9 and _, a letter first")


def check_key(key: Key) -> None:
    """Raise ValueError for the empty key, TooLarge for one over its limit."""
    if not key:
        raise ValueError("a key must not be empty")
    size = len(key) if key.isascii() else len(key.encode())
    if size > MAX_KEY_BYTES:
        raise TooLarge(f"the key {key[:40]!r}… has {size} bytes, the limit is {MAX_KEY_BYTES}")


def check_query(all_of: Sequence[AnyOf]) -> None:
    """Raise ValueError for an empty AnyOf, TooLarge for too many alternatives in all."""
    if not all(all_of):
        raise ValueError("an AnyOf must hold at least one tag")
    alternatives = sum(map(len, all_of))
    if alternatives > MAX_ALTERNATIVES:
        raise TooLarge(f"{alternatives} alternatives in one query, the limit is {MAX_ALTERNATIVES}")


def check_limit(limit: int) -> None:
    """Raise ValueError for a limit below 1, which engines would read in different ways."""
    if limit < 1:
        raise ValueError(f"a limit of {limit} asks for nothing")


def page_of(docs: list[Doc], limit: int) -> Page:
    """A page of what was asked for with one more than `limit`, to see whether there is more."""
    page = docs[:limit]
    return Page(page, page[-1].key if len(docs) > limit else None)


def parts(
    docs: Iterable[tuple[str, Doc]], size: int, max_bytes: int
) -> Iterable[list[tuple[str, Doc]]]:
    """The documents in lists of at most `size`, whose bodies have at most `max_bytes`."""
    part: list[tuple[str, Doc]] = []
    left = max_bytes
    for item in docs:
        left -= len(pack(item[1]).body)
        if len(part) == size or (part and left < 0):
            yield part
            part, left = [], max_bytes - len(pack(item[1]).body)
        part.append(item)
    if part:
        yield part


def _check_tags(doc: Doc) -> None:
    if len(doc.tags) > MAX_TAGS:
        raise TooLarge(f"{doc.key!r} has {len(doc.tags)} tags, the limit is {MAX_TAGS}")
    for tag in doc.tags:
        size = len(tag.encode())
        if size > MAX_TAG_BYTES:
            raise TooLarge(f"the tag {tag[:40]!r}… has {size} bytes, the limit is {MAX_TAG_BYTES}")
