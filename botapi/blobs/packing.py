"""A tree as one file, made while it is sent: nothing is kept whole in memory or on disk."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator

from botapi.domain.cas import Digest, Entry

Pieces = Callable[[Digest], Iterator[bytes]]
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_LINK_MODE = 0o120777


def tar(entries: Iterable[Entry], pieces: Pieces) -> Iterator[bytes]:
    """A tar file (pax); every time in it is 0."""
    for entry in entries:
        info = tarfile.TarInfo(entry.path)
        info.mode = 0o755 if entry.is_executable else 0o644
        if entry.digest is None:
            info.type, info.linkname = tarfile.SYMTYPE, entry.target
            yield info.tobuf(tarfile.PAX_FORMAT)
            continue
        info.size = entry.digest.size
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from pieces(entry.digest)
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def zipped(entries: Iterable[Entry], pieces: Pieces) -> Iterator[bytes]:
    """A zip file without compression."""
    out = _Out()
    with zipfile.ZipFile(out, "w") as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.path, _ZIP_TIME)
            if entry.digest is None:
                info.external_attr = _LINK_MODE << 16
                archive.writestr(info, entry.target)
            else:
                info.external_attr = (0o100755 if entry.is_executable else 0o100644) << 16
                info.file_size = entry.digest.size
                with archive.open(info, "w") as member:
                    for piece in pieces(entry.digest):
                        member.write(piece)
                        yield out.taken()
            yield out.taken()
    yield out.taken()


class _Out(io.RawIOBase):
    """What the zip writer writes to: a place that cannot be gone back in."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override] # all that zipfile passes
        self._held += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        held = bytes(self._held)
        self._held.clear()
        return held
