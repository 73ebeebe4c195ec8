"""Inputs by digest, kept from task to task in ``cas_cache``; oldest out first.

A task gets copies, and each copy is checked against its digest on the way: a task that writes
to its inputs, or a disk that rots, cannot change what the next task gets.
"""

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from contextlib import suppress
from typing import IO

from bot_client import task_env
from bot_client.cas import Digest
from bot_client.clock import Clock

log = logging.getLogger("bot.cas")

PIECE_BYTES = 1024 * 1024


class ContentCache:
    """The index is in memory, the files' times are its copy on disk."""

    def __init__(self, folder: str, clock: Clock) -> None:
        """``load`` it before use."""
        self._folder = folder
        self._clock = clock
        self._entries: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def load(self) -> None:
        """Read what an earlier process kept; what is not ours is removed."""
        found = []
        self._entries.clear()
        self.size = 0
        for name in _names(self._folder):
            below = os.path.join(self._folder, name)
            if len(name) != 2 or os.path.islink(below) or not os.path.isdir(below):
                task_env.remove_tree(below)
                continue
            for file in _names(below):
                path = os.path.join(below, file)
                facts = os.lstat(path)
                if len(file) == 64 and file.startswith(name) and os.path.isfile(path):
                    found.append((facts.st_mtime, file, facts.st_size))
                else:
                    task_env.remove_tree(path)
        for used_at, name, size in sorted(found):
            self._entries[name] = (size, used_at)
            self.size += size

    def has(self, digest: Digest) -> bool:
        """Is it here?  Its bytes are checked when they are used."""
        return self._entries.get(digest.hash, (-1, 0.0))[0] == digest.size

    def copy(self, digest: Digest, target: IO[bytes]) -> bool:
        """Write a blob's bytes; false, and gone from here, when they are not what they were."""
        hasher = hashlib.sha256()
        try:
            with open(self._path(digest.hash), "rb", buffering=0) as file:
                while True:
                    piece = file.read(PIECE_BYTES)
                    if not piece:
                        break
                    hasher.update(piece)
                    target.write(piece)
        except FileNotFoundError:
            self._forget(digest.hash)
            return False
        if hasher.hexdigest() != digest.hash:
            log.warning("%s in the cache has other bytes: removed", digest)
            self._forget(digest.hash)
            return False
        self._use(digest)
        return True

    def _use(self, digest: Digest) -> None:
        now = self._clock.wall()
        with suppress(OSError):
            os.utime(self._path(digest.hash), (now, now))
        self._entries[digest.hash] = (digest.size, now)
        self._entries.move_to_end(digest.hash)

    def new_file(self) -> IO[bytes]:
        """A file to fill for `keep`, or to close."""
        folder = os.path.join(self._folder, "new")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder)

    def keep(self, digest: Digest, filled: IO[bytes]) -> None:
        """Take over a filled file whose bytes were checked."""
        filled.flush()
        path = self._path(digest.hash)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.link(filled.name, path)
        if digest.hash not in self._entries:
            self.size += digest.size
        self._use(digest)

    def oldest(self) -> float:
        """Unix time of the use that is longest ago; infinite when nothing is here."""
        for _size, used_at in self._entries.values():
            return used_at
        return float("inf")

    def drop_oldest(self) -> None:
        """Remove what was not used for longest."""
        for name in self._entries:
            self._forget(name)
            return

    def _forget(self, name: str) -> None:
        size, _ = self._entries.pop(name, (0, 0.0))
        self.size -= size
        with suppress(FileNotFoundError):
            os.unlink(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name[:2], name)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
