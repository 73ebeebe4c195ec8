"""Blobs between a connection and the store: in pieces, so that neither memory nor loop fills.

The connection is read and written on the loop, every step that touches the store runs on a
native thread.
"""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from botapi.blobs.protocol import PIECE_BYTES, BadContent, BlobStore, Pieces, read_all
from botapi.concurrency import Concurrency
from botapi.domain.cas import EMPTY, BadTree, Digest, Entry, MissingBlob, find, walk
from botapi.domain.errors import Code, Refusal

MAX_ASKED = 10_000
"""Digests of one question which are missing."""
_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")

T = TypeVar("T")


class Source(Protocol):
    """Where the bytes of an upload come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a blob on its way out."""

    digest: Digest
    start: int
    length: int
    pieces: Pieces

    @property
    def is_part(self) -> bool:
        """Less than the whole."""
        return self.length != self.digest.size

    def headers(self) -> dict[str, str]:
        """What a download says of itself; nothing in it may run in a browser."""
        found = {
            "Content-Length": str(self.length),
            "Accept-Ranges": "bytes",
            "ETag": f'"{self.digest.hash}"',
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox",
        }
        if self.is_part:
            last = self.start + self.length - 1
            found["Content-Range"] = f"bytes {self.start}-{last}/{self.digest.size}"
        return found


@dataclass(frozen=True, slots=True)
class Transfers:
    """What the doors do with blobs."""

    store: BlobStore
    concurrency: Concurrency

    def missing(self, texts: Sequence[str], what: str = "digests") -> list[str]:
        """Which of these `<hash>/<size>` are not here; the others live on from now."""
        if len(texts) > MAX_ASKED:
            raise Refusal(Code.INVALID_ARGUMENT, f"{what}: {len(texts)}, at most {MAX_ASKED}")
        digests = [parse(text, f"{what}[{place}]") for place, text in enumerate(texts)]
        asked = [digest for digest in digests if digest != EMPTY]
        return [str(d) for d in self.concurrency.outside(lambda: self.store.missing(asked))]

    def receive(self, digest: Digest, source: Source, length: int | None) -> bool:
        """Take a blob in; was it new? `length` is what the sender announced.

        Raises Refusal INVALID_ARGUMENT for other bytes than the digest's, StoreFull.
        """
        if length is not None and length != digest.size:
            raise _other_bytes(digest, f"{length} bytes are announced")
        outside = self.concurrency.outside
        upload = outside(lambda: self.store.upload(digest))
        try:
            while piece := _read(source):
                outside(lambda piece=piece: upload.write(piece))  # type: ignore[misc] # bound now
            return outside(upload.commit)
        except BadContent as error:
            raise _other_bytes(digest, str(error)) from None
        finally:
            outside(upload.abort)

    def send(self, digest: Digest, asked: str = "") -> Piece:
        """A blob, or the part of it that a `Range` header asks for.

        Raises Refusal NOT_FOUND, OUT_OF_RANGE.
        """
        start, length = _range(asked, digest.size)
        return Piece(digest, start, length, self.pieces(digest, start, length))

    def pieces(self, digest: Digest, start: int, length: int) -> Pieces:
        """Bytes of a blob; each piece is read on a native thread. Raises Refusal NOT_FOUND."""
        if digest == EMPTY:
            return _Native(_nothing(), self.concurrency)
        try:
            found = self.concurrency.outside(lambda: self.store.read(digest, start, length))
        except MissingBlob as error:
            raise Refusal(Code.NOT_FOUND, f"{error}: never uploaded, or deleted") from None
        return _Native(found, self.concurrency)

    def tree(self, root: Digest) -> list[Entry]:
        """Everything in a tree, by path. Raises Refusal NOT_FOUND, FAILED_PRECONDITION."""
        return self._walked(lambda: sorted(self._entries(root), key=lambda entry: entry.path))

    def found(self, root: Digest, path: str) -> Entry | None:
        """The file or link at a path of a tree; None when there is none. Raises as `tree`."""
        return self._walked(lambda: find(root, path, lambda d: read_all(self.store, d)))

    def _entries(self, root: Digest) -> Iterator[Entry]:
        return walk(root, lambda digest: read_all(self.store, digest))

    def _walked(self, look: Callable[[], T]) -> T:
        try:
            return self.concurrency.outside(look)
        except MissingBlob as error:
            raise Refusal(Code.NOT_FOUND, f"{error}: never uploaded, or deleted") from None
        except BadTree as error:
            raise Refusal(Code.FAILED_PRECONDITION, f"not a tree of files: {error}") from None


class _Native:
    """See `Pieces`: each piece is read on a native thread."""

    def __init__(self, found: Pieces, concurrency: Concurrency) -> None:
        self._found = found
        self._concurrency = concurrency
        self.close = found.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._concurrency.outside(lambda: next(self._found, b""))
        if not piece:
            raise StopIteration
        return piece


def _nothing() -> Generator[bytes]:
    yield from ()


def parse(text: str, what: str) -> Digest:
    """A digest that somebody gave. Raises Refusal INVALID_ARGUMENT."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"{what}: {error}") from None


def _other_bytes(digest: Digest, found: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, f"these are not the bytes of {digest}: {found}")


def _read(source: Source) -> bytes:
    try:
        return source.read(PIECE_BYTES)
    except OSError:
        raise Refusal(Code.INTERNAL, "the body could not be read to its end") from None


def _range(asked: str, size: int) -> tuple[int, int]:
    """Start and length; a header that is no single range of bytes is passed over (RFC 9110)."""
    found = _RANGE.fullmatch(asked)
    if found is None or not (found[1] or found[2]):
        return 0, size
    if found[1] is None:
        length = min(int(found[2]), size)
        return size - length, length
    start = int(found[1])
    last = min(int(found[2] or size - 1), size - 1)
    if start > last:
        raise Refusal(Code.OUT_OF_RANGE, f"Range: {asked}: there are {size} bytes")
    return start, last - start + 1
