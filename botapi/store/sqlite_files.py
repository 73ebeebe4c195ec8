"""The files of one SQLite database: where they may lie, how they are opened, whose turn it is.

`skep.db` (with the two files SQLite keeps beside it), `write.lock` and the folder `wake`
share one data directory on a local disk.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from botapi.concurrency import native_lock
from botapi.store.protocol import Conflict, Outage, StoreError, StoreFull

DATABASE = "skep.db"
TURN = "write.lock"
WAKE = "wake"

OLDEST_SQLITE = (3, 40, 0)
BUSY_TIMEOUT_S = 5.0
MMAP_BYTES = 256 * 1024 * 1024
JOURNAL_BYTES = 64 * 1024 * 1024
POOLED_READERS = 16
"""Most idle reading connections that are kept; more are opened when more read at once."""

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs"),
)
_NETWORK_FUSE = ("ceph", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "smbnetfs", "sshfs")


def prepare(data_dir: Path) -> Path:
    """Make the directory (0700) and the empty database file (0600); the path of the file.

    An existing directory keeps its mode. Raises StoreError, in one line, for a SQLite that
    is too old and for a network file system, where locks and shared memory do not work.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, {oldest} is needed")
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if MOUNTS.exists():
        refuse_network(data_dir, MOUNTS.read_text())
    path = data_dir / DATABASE
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)
    return path


def refuse_network(folder: Path, mounts: str) -> None:
    """Raise StoreError when the folder lies on a network file system of this mountinfo text."""
    file_system = file_system_of(folder, mounts)
    kind, _, driver = file_system.partition(".")
    if kind in _NETWORK or (kind == "fuse" and driver.startswith(_NETWORK_FUSE)):
        raise StoreError(
            f"{folder} is on {file_system}, a network file system, where SQLite can lose data; "
            "choose a local disk"
        )


def file_system_of(folder: Path, mounts: str) -> str:
    """The type of the file system that holds the folder; `unknown` when no mount does."""
    real = os.path.realpath(folder)
    best, found = "", "unknown"
    for line in mounts.splitlines():
        before, _, behind = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount covers an earlier one
            best, found = point, behind.split(" ")[0]
    return found


def connect(path: Path, *, writer: bool = False) -> sqlite3.Connection:
    """Open the database file; the connection may wander from thread to thread, one at a time."""
    mode = "rw" if writer else "ro"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    if writer:
        # Only before the first table; afterwards SQLite ignores it.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
    return connection


def translated(error: sqlite3.Error) -> StoreError:
    """The error of the protocol for an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"no space left for the database: {error}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Conflict(f"another program holds the database: {error}")
    return Outage(f"SQLite: {error}")


class Readers:
    """Idle reading connections: whoever reads takes one, or opens another, and gives it back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gate = native_lock()
        self._idle: list[sqlite3.Connection] | None = []

    @contextlib.contextmanager
    def one(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile. Never waits for one."""
        with self._gate:
            con = self._idle.pop() if self._idle else None
        con = con or connect(self._path)
        try:
            yield con
        finally:
            with self._gate:
                keep = self._idle is not None and len(self._idle) < POOLED_READERS
                if self._idle is not None and keep:
                    self._idle.append(con)
            if not keep:
                con.close()

    def close(self) -> None:
        """Close the idle connections now and the others when they come back."""
        with self._gate:
            idle, self._idle = self._idle or [], None
        for con in idle:
            con.close()


class Turn:
    """The right to write, which the processes that share a database pass on among themselves.

    SQLite's own lock is correct but unfair: a process can starve for seconds in its busy
    handler. The kernel's queue behind `flock` wakes one waiter after the other.
    """

    def __init__(self, data_dir: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(data_dir / TURN, flags, 0o600)

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn and hold it; only on a native thread, since it blocks."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the file."""
        os.close(self._handle)
