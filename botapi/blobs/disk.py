"""Blobs as files: `blobs/<two digits>/<hash>`, whole by rename, their age the file's mtime.

Every change of a blob (it appears, it is touched, it is deleted) happens under a lock that
all processes of the server share, so that "it is here" and "it is old, away with it" never
cross. The lock is held for a few system calls, never while bytes are moved.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import IO

from botapi.blobs.protocol import PIECE_BYTES, BadContent, Swept, Usage
from botapi.clock import Clock
from botapi.domain.cas import Digest, MissingBlob
from botapi.store.protocol import Outage, StoreFull

PLACE = "place"
"""File with a name of the folder, so that two servers know whether they share it."""
LEFT_OVER_S = 86_400
"""Age of a half-written file that no process can still be writing."""
FULL = frozenset({ENOSPC, EDQUOT})


def place_of(folder: Path, new: str) -> str:
    """The name of a folder of blobs: the same for everybody who sees the same folder.

    `new` becomes its name unless it has one. Raises StoreError.
    """
    with _disk_errors():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, encoding="ascii") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(file.name, folder / PLACE)
        _sync(folder)
        return (folder / PLACE).read_text(encoding="ascii")


class DiskBlobs:
    """The engine for one machine. The folder is made with the first blob."""

    def __init__(self, folder: Path, max_bytes: int, clock: Clock) -> None:
        """`max_bytes`: the budget for everything together; 0 is no limit."""
        self._folder = folder
        self._clock = clock
        self._max_bytes = max_bytes

    def missing(self, digests: Collection[Digest]) -> list[Digest]:
        """See `BlobStore`."""
        with self._lock(fcntl.LOCK_SH):
            return [digest for digest in digests if not self._touch(digest)]

    def _touch(self, digest: Digest) -> bool:
        path = self._path(digest)
        try:
            if path.stat().st_size != digest.size:
                return False
            self._date(path)
        except FileNotFoundError:
            return False
        return True

    def _date(self, path: Path) -> None:
        now_ns = self._clock.now_ms() * 1_000_000
        os.utime(path, ns=(now_ns, now_ns))

    def upload(self, digest: Digest) -> "DiskUpload":
        """See `BlobStore`."""
        with _disk_errors():
            used = self._used()
            if self._max_bytes and used + digest.size > self._max_bytes:
                raise StoreFull(
                    f"blobs: {used} of {self._max_bytes} bytes (SKEP_BLOBS_MAX) are used, "
                    f"{digest.size} more do not fit"
                )
            return DiskUpload(self, digest, self._made(self._folder / "new"))

    def read(self, digest: Digest, start: int, length: int) -> "_FilePieces":
        """See `BlobStore`."""
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MissingBlob(digest) from None
        file = os.fdopen(fd, "rb", buffering=0)
        if os.fstat(fd).st_size != digest.size:
            file.close()
            raise MissingBlob(digest)
        return _FilePieces(file, start, length)

    def delete(self, digest: Digest) -> bool:
        """See `BlobStore`."""
        with self._lock(fcntl.LOCK_EX):
            try:
                self._path(digest).unlink()
            except FileNotFoundError:
                return False
            self._count(-digest.size)
            return True

    def sweep(self, part: int, before_ms: int) -> Swept:
        """See `BlobStore`. Half-written files go with part 0."""
        if not self._folder.exists():
            return Swept()
        if part == 0:
            self._forget_left_overs()
        kept, deleted = [0, 0], [0, 0]
        folder = self._folder / f"{part:02x}"
        for entry in list(os.scandir(folder)) if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat().st_size
                count = deleted if self._delete_if_old(entry, before_ms) else kept
                count[0] += 1
                count[1] += size
        return Swept(Usage(*kept), Usage(*deleted))

    def _delete_if_old(self, entry: "os.DirEntry[str]", before_ms: int) -> bool:
        if entry.stat().st_mtime_ns >= before_ms * 1_000_000:
            return False
        with contextlib.suppress(FileNotFoundError), self._lock(fcntl.LOCK_EX):
            found = os.stat(entry.path)
            if found.st_mtime_ns < before_ms * 1_000_000:
                os.unlink(entry.path)
                self._count(-found.st_size)
                return True
        return False

    def _forget_left_overs(self) -> None:
        folder = self._folder / "new"
        for path in folder.iterdir() if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):
                if self._clock.now_ms() / 1000 - path.stat().st_mtime > LEFT_OVER_S:
                    path.unlink()

    def note_usage(self, usage: Usage) -> None:
        """See `BlobStore`: the running count is corrected, a process may have died counting."""
        if self._folder.exists():
            with _disk_errors(), self._lock(fcntl.LOCK_EX):
                self._write_count(usage.size_bytes)

    def keep(self, digest: Digest, written: Path) -> bool:
        """Give a whole, synced file its name; was it new?"""
        with _disk_errors():
            place = self._path(digest)
            folder = self._made(place.parent)
            with self._lock(fcntl.LOCK_EX):
                is_new = not self._touch(digest)
                if is_new:
                    self._date(written)
                    os.replace(written, place)
                    self._count(digest.size)
            if is_new:
                _sync(folder)
            return is_new

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.hash[:2] / digest.hash

    def _made(self, folder: Path) -> Path:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sync(folder.parent)
        return folder

    def _used(self) -> int:
        try:
            return int((self._folder / "usage").read_text(encoding="ascii") or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def _count(self, more: int) -> None:
        self._write_count(max(0, self._used() + more))

    def _write_count(self, used: int) -> None:
        fd = os.open(self._folder / "usage", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(f"{used:<20d}".encode())

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with _disk_errors():
            place = self._made(self._folder) / "lock"
            fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)


class DiskUpload:
    """A file without a name that counts, until it has all its bytes."""

    def __init__(self, store: DiskBlobs, digest: Digest, folder: Path) -> None:
        self._store = store
        self._digest = digest
        self._hash = hashlib.sha256()
        self._size = 0
        fd, name = tempfile.mkstemp(dir=folder)
        self._path = Path(name)
        self._file = os.fdopen(fd, "wb", buffering=0)

    def write(self, piece: bytes) -> None:
        """See `Upload`."""
        self._size += len(piece)
        if self._size > self._digest.size:
            raise BadContent(f"more than the {self._digest.size} bytes of its digest")
        self._hash.update(piece)
        with _disk_errors():
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]

    def commit(self) -> bool:
        """See `Upload`."""
        if self._size != self._digest.size:
            raise BadContent(f"{self._size} bytes, its digest says {self._digest.size}")
        if self._hash.hexdigest() != self._digest.hash:
            raise BadContent(f"the SHA-256 is {self._hash.hexdigest()}, not {self._digest.hash}")
        with _disk_errors():
            os.fchmod(self._file.fileno(), 0o400)
            os.fsync(self._file.fileno())
        return self._store.keep(self._digest, self._path)

    def abort(self) -> None:
        """See `Upload`."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """StoreFull for a full disk, Outage for another one that fails."""
    try:
        yield
    except OSError as error:
        kind = StoreFull if error.errno in FULL else Outage
        raise kind(f"blobs: {error.strerror or error}") from error


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _FilePieces:
    """See `Pieces`."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._left = length
        file.seek(start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _disk_errors():
            piece = self._file.read(min(self._left, PIECE_BYTES)) if self._left else b""
        self._left -= len(piece)
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        self._left = 0
        self._file.close()
