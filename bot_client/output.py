"""The output that the server has not acknowledged yet, with absolute offsets.

The newest bytes wait in memory; when the server is slow or away they spill to an unlinked file
in the bot directory, up to a cap, beyond which the reader stops and the command blocks.
"""

import tempfile
from threading import Lock
from typing import IO, Optional

MEMORY_BYTES = 4 * 1024 * 1024
HISTORY_BYTES = 1024 * 1024
SPILL_BYTES = 512 * 1024 * 1024


class OutputBuffer:
    """Filled by the reading thread, emptied by the posting one."""

    def __init__(
        self, folder: str, memory_bytes: int = MEMORY_BYTES, spill_bytes: int = SPILL_BYTES
    ) -> None:
        """``folder`` takes the spill file, which has no name and so never outlives the process."""
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._spill_bytes = spill_bytes
        self._lock = Lock()
        self._head = bytearray()
        self._base = 0
        self._start = 0
        self._file: Optional[IO[bytes]] = None
        self._file_read = 0
        self._file_end = 0

    @property
    def acknowledged(self) -> int:
        """Offset below which the server said that it has everything."""
        return self._start

    @property
    def pending(self) -> int:
        """Bytes that the server does not have yet."""
        return self._base + len(self._head) - self._start + self._file_end - self._file_read

    def is_full(self) -> bool:
        """Has the spill file reached its cap?  Then do not read on before it was emptied."""
        return self._file_end >= self._spill_bytes

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        with self._lock:
            in_memory = self._base + len(self._head) - self._start
            if self._file_end == self._file_read and in_memory < self._memory_bytes:
                self._head += data
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see close
            self._file.seek(self._file_end)
            self._file.write(data)
            self._file_end += len(data)

    def peek(self, limit: int) -> tuple[int, bytes]:
        """The offset and the first bytes that are not acknowledged, at most limit of them."""
        with self._lock:
            skip = self._start - self._base
            if len(self._head) - skip < limit:
                self._refill()
            return self._start, bytes(self._head[skip : skip + limit])

    def _refill(self) -> None:
        """Move bytes from the file to memory; an emptied file gives its space back."""
        if self._file is None or self._file_end == self._file_read:
            return
        self._file.seek(self._file_read)
        data = self._file.read(min(self._memory_bytes, self._file_end - self._file_read))
        self._head += data
        self._file_read += len(data)
        if self._file_read == self._file_end:
            self._file.seek(0)
            self._file.truncate()
            self._file_read = self._file_end = 0

    def acknowledge(self, offset: int) -> None:
        """The server has everything below offset; some of it is kept for `rewind`."""
        with self._lock:
            end = self._base + len(self._head)
            self._start = min(max(offset, self._start), end)
            surplus = self._start - self._base - HISTORY_BYTES
            if surplus > 0:
                del self._head[:surplus]
                self._base += surplus

    def rewind(self, offset: int) -> bool:
        """The server has less than it said; send from offset again.  False when that is gone."""
        with self._lock:
            if not self._base <= offset <= self._base + len(self._head):
                return False
            self._start = offset
            return True

    def close(self) -> None:
        """Give the spill file back."""
        if self._file is not None:
            self._file.close()
            self._file = None
