"""The seam of the blob store: bytes by their SHA-256, on a disk or in a bucket.

Everything here blocks its thread: callers go through `Concurrency.outside`.
A blob that is there is whole: nobody sees half of one, whenever a process dies.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from botapi.domain.cas import Digest

PIECE_BYTES = 1024 * 1024
"""What is written, and read, at once."""


class BadContent(Exception):
    """The bytes that came are not those of the digest; nothing is kept of them."""


class Upload(Protocol):
    """One blob on its way in. `commit` or `abort` ends it."""

    def write(self, piece: bytes) -> None:
        """More bytes. Raises BadContent for more than the digest says, StoreFull."""
        ...

    def commit(self) -> bool:
        """Keep it; was it new? Raises BadContent when the bytes are others, StoreFull."""
        ...

    def abort(self) -> None:
        """Forget it; harmless after `commit`."""
        ...


class Pieces(Protocol):
    """Bytes on their way out. Whoever does not read to the end closes it."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes:
        """The next bytes."""
        ...

    def close(self) -> None:
        """Nothing more is wanted."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What is kept."""

    blobs: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep over a part of the store did."""

    kept: Usage = Usage()
    deleted: Usage = Usage()


class BlobStore(Protocol):
    """One engine. Everything raises Outage when the engine cannot be reached."""

    def missing(self, digests: Collection[Digest]) -> list[Digest]:
        """Which of them are not here. The others are touched: they live on from now."""
        ...

    def upload(self, digest: Digest) -> Upload:
        """Begin to take a blob in. Raises StoreFull."""
        ...

    def read(self, digest: Digest, start: int, length: int) -> Pieces:
        """`length` bytes from `start` on. Raises MissingBlob at once, not at the first piece."""
        ...

    def delete(self, digest: Digest) -> bool:
        """Remove it whatever its age; was it there?"""
        ...

    def sweep(self, part: int, before_ms: int) -> Swept:
        """Delete what of one of `PARTS` parts was last touched before then."""
        ...

    def note_usage(self, usage: Usage) -> None:
        """What a sweep over all parts counted."""
        ...


PARTS = 256
"""Parts of a store: the first two digits of a hash."""


def read_all(store: BlobStore, digest: Digest) -> bytes:
    """A small blob, whole. Raises MissingBlob."""
    return b"".join(store.read(digest, 0, digest.size))
