"""Content-addressed trees: digests and directory messages as the Remote Execution API has them.

The messages are `build.bazel.remote.execution.v2` `Digest`, `Directory`, `FileNode`,
`DirectoryNode` and `SymlinkNode`. They are written by hand, since one message must have one
encoding: fields in the order of their numbers, nothing that is empty, lists sorted by name.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

INSTANCE = "projects/local/instances/default"
"""The name of our own store in a `CasReference` (bot-api 10.7)."""
MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ENTRIES = 200_000
"""Files, folders and links of one tree."""
MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4_096
MAX_SIZE = 2**63 - 1

_HASH = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BadTree(ValueError):
    """A message that is no directory, or one that must not be laid out on a disk."""


class MissingBlob(Exception):
    """A digest of which the bytes are not there."""

    def __init__(self, digest: "Digest") -> None:
        super().__init__(f"no blob {digest}")
        self.digest = digest


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """SHA-256 in lower-case hex, and the length in bytes."""

    hash: str
    size: int

    def __str__(self) -> str:
        return f"{self.hash}/{self.size}"

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """The digest of these bytes."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """From `<hash>/<size>`. Raises ValueError."""
        name, _, size = text.partition("/")
        if not _HASH.fullmatch(name) or not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise ValueError(f"not <SHA-256 in lower-case hex>/<bytes>: {text[:100]!r}")
        return cls(name, int(size))


EMPTY = Digest.of(b"")
"""Every store has it, also as the empty folder."""


@dataclass(frozen=True, slots=True)
class FileNode:
    """A file of a folder."""

    name: str
    digest: Digest
    is_executable: bool = False


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A folder of a folder; the digest is that of its message."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class SymlinkNode:
    """A symbolic link."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """One folder; every list is sorted by name when it is encoded."""

    files: tuple[FileNode, ...] = ()
    directories: tuple[DirectoryNode, ...] = ()
    symlinks: tuple[SymlinkNode, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or link of a whole tree. `target` is empty for a file, `digest` None for a link."""

    path: str
    digest: Digest | None = None
    is_executable: bool = False
    target: str = ""


def encode(directory: Directory) -> bytes:
    """The one encoding of a folder."""
    out = bytearray()
    for file in sorted(directory.files, key=_name):
        body = _field(1, file.name.encode()) + _field(2, _digest(file.digest))
        out += _field(1, body + (b"\x20\x01" if file.is_executable else b""))
    for folder in sorted(directory.directories, key=_name):
        out += _field(2, _field(1, folder.name.encode()) + _field(2, _digest(folder.digest)))
    for link in sorted(directory.symlinks, key=_name):
        out += _field(3, _field(1, link.name.encode()) + _field(2, link.target.encode()))
    return bytes(out)


def decode(content: bytes) -> Directory:
    """A folder whose names can be laid out on a disk; unknown fields are passed over.

    Raises BadTree, for a name that is no plain name or is there twice as well.
    """
    files, directories, symlinks = [], [], []
    for number, value in _fields(content):
        if number == 1:
            files.append(_file(_message(value)))
        elif number == 2:
            directories.append(_folder(_message(value)))
        elif number == 3:
            symlinks.append(_link(_message(value)))
    names = [n.name for n in files] + [n.name for n in directories] + [n.name for n in symlinks]
    if len(set(names)) != len(names):
        raise BadTree("a name is there twice in one folder")
    return Directory(tuple(files), tuple(directories), tuple(symlinks))


def walk(root: Digest, read: Callable[[Digest], bytes]) -> Iterator[Entry]:
    """Files and links of a tree, folder by folder. `read` gives the bytes of a folder.

    Raises BadTree for one that is too large or deep, or has a link that leads out of it.
    What `read` raises passes through.
    """
    for _, path, directory in folders(root, read):
        for file in directory.files:
            yield Entry(path + file.name, file.digest, file.is_executable)
        for link in directory.symlinks:
            if not stays_inside(path + link.name, link.target):
                raise BadTree(f"the link {path + link.name!r} leads out of the tree")
            yield Entry(path + link.name, target=link.target)


def find(root: Digest, path: str, read: Callable[[Digest], bytes]) -> Entry | None:
    """The file or link at this path of a tree; None when there is none. Raises as `walk`."""
    *above, name = path.split("/")
    digest: Digest | None = root
    for word in above:
        digest = _below(digest, word, read) if digest else None
    directory = _folder_of(digest, read) if digest else Directory()
    for file in directory.files:
        if file.name == name:
            return Entry(path, file.digest, file.is_executable)
    for link in directory.symlinks:
        if link.name == name:
            return Entry(path, target=link.target)
    return None


def _below(digest: Digest, name: str, read: Callable[[Digest], bytes]) -> Digest | None:
    found = _folder_of(digest, read).directories
    return next((folder.digest for folder in found if folder.name == name), None)


def _folder_of(digest: Digest, read: Callable[[Digest], bytes]) -> Directory:
    if digest.size > MAX_DIRECTORY_BYTES:
        raise BadTree(f"a folder of {digest.size} bytes")
    return Directory() if digest == EMPTY else decode(read(digest))


def folders(
    root: Digest, read: Callable[[Digest], bytes]
) -> Iterator[tuple[Digest, str, Directory]]:
    """Every folder of a tree with its path, which is empty or ends in `/`. Raises as `walk`."""
    waiting = [(root, "", 0)]
    count = 0
    while waiting:
        digest, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadTree(f"the folder {path!r} is too deep")
        directory = _folder_of(digest, read)
        count += len(directory.files) + len(directory.directories) + len(directory.symlinks)
        if count > MAX_ENTRIES:
            raise BadTree(f"more than {MAX_ENTRIES} entries")
        yield digest, path, directory
        waiting += [(d.digest, f"{path}{d.name}/", depth + 1) for d in directory.directories]


def stays_inside(path: str, target: str) -> bool:
    """Does a link at `path` of a tree lead to a place of the tree, as the text says?"""
    if target.startswith("/") or "\\" in target:
        return False
    depth = path.count("/")
    for word in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(word, 1)
        if depth < 0:
            return False
    return True


def _name(node: FileNode | DirectoryNode | SymlinkNode) -> bytes:
    return node.name.encode()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content


def _digest(digest: Digest) -> bytes:
    size = b"\x10" + _varint(digest.size) if digest.size else b""
    return _field(1, digest.hash.encode()) + size


def _file(fields: dict[int, int | bytes]) -> FileNode:
    executable = fields.get(4, 0)
    return FileNode(_plain_name(fields), _read_digest(fields), bool(executable))


def _folder(fields: dict[int, int | bytes]) -> DirectoryNode:
    return DirectoryNode(_plain_name(fields), _read_digest(fields))


def _link(fields: dict[int, int | bytes]) -> SymlinkNode:
    target = _text(fields, 2)
    if not target or "\0" in target or len(target.encode()) > MAX_TARGET_BYTES:
        raise BadTree(f"a link to {target[:100]!r}")
    return SymlinkNode(_plain_name(fields), target)


def _plain_name(fields: dict[int, int | bytes]) -> str:
    name = _text(fields, 1)
    is_special = name in {"", ".", ".."} or any(letter in name for letter in "/\\\0")
    if is_special or len(name.encode()) > MAX_NAME_BYTES:
        raise BadTree(f"the name {name[:100]!r} is not that of a file")
    return name


def _text(fields: dict[int, int | bytes], number: int) -> str:
    value = fields.get(number, b"")
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError:
        raise BadTree("a name is not UTF-8") from None


def _read_digest(fields: dict[int, int | bytes]) -> Digest:
    inner = _message(fields.get(2, b""))
    name, size = _text(inner, 1), inner.get(2, 0)
    try:
        return Digest.parse(f"{name}/{size if isinstance(size, int) else ''}")
    except ValueError as error:
        raise BadTree(str(error)) from None


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """The last value of each field."""
    return dict(_fields(value)) if isinstance(value, bytes) else {}


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(content):
        tag, at = _read_varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(content, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(content, at)
        elif kind in {_FIXED64, _FIXED32}:
            length = 8 if kind == _FIXED64 else 4
        else:
            raise BadTree("not the message of a folder")
        if at + length > len(content):
            raise BadTree("the message of a folder is cut off")
        yield tag >> 3, content[at : at + length]
        at += length


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise BadTree("not the message of a folder")
