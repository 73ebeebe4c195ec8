"""What a task leaves behind, as a tree of files: gathered, hashed, made into folders."""

import hashlib
import os
import stat
from typing import Any, NamedTuple

from bot_client.blob_api import Stop, on_disk
from bot_client.cas import (
    MAX_DEPTH,
    MAX_ENTRIES,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    SymlinkNode,
    digest_of,
    encode,
    is_plain_name,
    stays_inside,
)
from bot_client.content_cache import PIECE_BYTES
from bot_client.errors import BotError


class TaskFault(BotError):
    """The task cannot be run as it was asked for; the text goes to its author."""


class _File(NamedTuple):
    path: str
    is_executable: bool


class _Link(NamedTuple):
    target: str


class OutputTree:
    """Files and links that a task leaves behind; later ones replace earlier ones."""

    def __init__(self, notes: list[str]) -> None:
        """What is left out is said in ``notes``."""
        self._root: dict[str, Any] = {}
        self._notes = notes
        self._count = 0

    def is_empty(self) -> bool:
        """Is there nothing to upload?"""
        return not self._root

    def add_folder(self, folder: str) -> None:
        """Everything in a folder that the bot made itself."""
        self._add_children(folder, self._root, "", 0)

    def add(self, run: str, name: str) -> None:
        """A file or folder of the run folder; skipped when it is missing, or behind a link."""
        words = name.split("/")
        source = run
        for word in words[:-1]:
            source = os.path.join(source, word)
            if os.path.islink(source) or not os.path.isdir(source):
                return
        source = os.path.join(source, words[-1])
        if not os.path.lexists(source):
            return
        into = self._root
        for word in words[:-1]:
            below = into.get(word)
            into[word] = below = below if isinstance(below, dict) else {}
            into = below
        self._add_one(source, into, name, len(words))

    def _add_children(self, folder: str, into: dict[str, Any], path: str, depth: int) -> None:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            self._add_one(os.path.join(folder, name), into, f"{path}{name}", depth)

    def _add_one(self, source: str, into: dict[str, Any], path: str, depth: int) -> None:
        name = os.path.basename(source)
        try:
            facts = os.lstat(source)
        except FileNotFoundError:
            return
        if not is_plain_name(name):
            self._leave_out(path, "its name cannot be kept")
            return
        self._count += 1
        if self._count > MAX_ENTRIES or depth > MAX_DEPTH:
            raise TaskFault(f"more than {MAX_ENTRIES} outputs, or over {MAX_DEPTH} folders deep")
        if stat.S_ISDIR(facts.st_mode):
            below = into.get(name)
            into[name] = below = below if isinstance(below, dict) else {}
            self._add_children(source, below, f"{path}/", depth + 1)
        elif stat.S_ISLNK(facts.st_mode):
            self._add_link(source, into, path)
        elif stat.S_ISREG(facts.st_mode):
            into[name] = _File(source, bool(facts.st_mode & 0o100))
        else:
            self._leave_out(path, "it is no file, folder or link")

    def _add_link(self, source: str, into: dict[str, Any], path: str) -> None:
        target = os.readlink(source)
        if stays_inside(path, target):
            into[os.path.basename(source)] = _Link(target)
        else:
            self._leave_out(path, "it is a link that leads out of the outputs")

    def _leave_out(self, path: str, why: str) -> None:
        if len(self._notes) < 20:
            self._notes.append(f"output {path!r} is left out: {why}")

    def digest(self, files: dict[Digest, str], folders: dict[Digest, bytes], stop: Stop) -> Digest:
        """The digest of the whole; fills in where the bytes of every part are."""
        return _digest_folder(self._root, files, folders, stop)


def _digest_folder(
    folder: dict[str, Any], files: dict[Digest, str], folders: dict[Digest, bytes], stop: Stop
) -> Digest:
    directory = Directory([], [], [])
    for name, node in folder.items():
        if isinstance(node, _File):
            digest = _hash_file(node.path, stop)
            files[digest] = node.path
            directory.files.append(FileNode(name, digest, node.is_executable))
        elif isinstance(node, _Link):
            directory.symlinks.append(SymlinkNode(name, node.target))
        else:
            below = _digest_folder(node, files, folders, stop)
            directory.directories.append(DirectoryNode(name, below))
    content = encode(directory)
    digest = digest_of(content)
    folders[digest] = content
    return digest


def _hash_file(path: str, stop: Stop) -> Digest:
    hasher = hashlib.sha256()
    size = 0
    with on_disk(open, path, "rb", 0) as file:
        while True:
            stop.check()
            piece = on_disk(file.read, PIECE_BYTES)
            if not piece:
                return Digest(hasher.hexdigest(), size)
            hasher.update(piece)
            size += len(piece)
