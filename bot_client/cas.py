"""Digests and directory messages of content-addressed trees, as the server has them.

The messages are those of the Remote Execution API (``build.bazel.remote.execution.v2``), with
the one encoding: fields by number, nothing that is empty, lists sorted by name.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple, Union

INSTANCE = "projects/local/instances/default"
MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ENTRIES = 200_000
MAX_NAME_BYTES = 255

_DIGEST = re.compile(r"[0-9a-f]{64}/(0|[1-9][0-9]{0,18})")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Fields = dict[int, Union[int, bytes]]


class BadTree(ValueError):
    """A tree that must not be laid out on this disk; the text says what is wrong with it."""


class Digest(NamedTuple):
    """SHA-256 in lower-case hex and the length in bytes."""

    hash: str
    size: int

    def __str__(self) -> str:
        return f"{self.hash}/{self.size}"


class FileNode(NamedTuple):
    """A file of a folder."""

    name: str
    digest: Digest
    is_executable: bool


class DirectoryNode(NamedTuple):
    """A folder of a folder."""

    name: str
    digest: Digest


class SymlinkNode(NamedTuple):
    """A symbolic link."""

    name: str
    target: str


class Directory(NamedTuple):
    """One folder."""

    files: list[FileNode]
    directories: list[DirectoryNode]
    symlinks: list[SymlinkNode]


def digest_of(content: bytes) -> Digest:
    """The digest of these bytes."""
    return Digest(hashlib.sha256(content).hexdigest(), len(content))


EMPTY = digest_of(b"")


def parse_digest(text: str) -> Digest:
    """From ``<hash>/<size>``; ValueError."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"not a digest: {text[:100]!r}")
    name, _, size = text.partition("/")
    return Digest(name, int(size))


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
    """A folder whose names can be laid out; BadTree for anything else."""
    directory = Directory([], [], [])
    for number, value in _fields(content):
        fields = _message(value)
        if number == 1:
            node = FileNode(_plain_name(fields), _read_digest(fields), bool(fields.get(4)))
            directory.files.append(node)
        elif number == 2:
            directory.directories.append(DirectoryNode(_plain_name(fields), _read_digest(fields)))
        elif number == 3:
            directory.symlinks.append(SymlinkNode(_plain_name(fields), _target(fields)))
    names = [node.name for nodes in directory for node in nodes]
    if len(set(names)) != len(names):
        raise BadTree("a name is there twice in one folder")
    return directory


def is_plain_name(name: str) -> bool:
    """Can this be the name of one file or folder on every system?"""
    if name in {"", ".", ".."} or any(letter in name for letter in "/\\\0"):
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def stays_inside(path: str, target: str) -> bool:
    """Does a link at ``path`` of a tree lead to a place of the tree, as the text says?"""
    if target.startswith("/") or "\\" in target or not target:
        return False
    depth = path.count("/")
    for word in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(word, 1)
        if depth < 0:
            return False
    return True


def is_path(path: str) -> bool:
    """Is this a normal path below a folder?"""
    return bool(path) and all(is_plain_name(word) for word in path.split("/"))


def _name(node: Union[FileNode, DirectoryNode, SymlinkNode]) -> bytes:
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


def _target(fields: _Fields) -> str:
    target = _text(fields, 2)
    if not target or "\0" in target:
        raise BadTree(f"a link to {target[:100]!r}")
    return target


def _plain_name(fields: _Fields) -> str:
    name = _text(fields, 1)
    if not is_plain_name(name):
        raise BadTree(f"the name {name[:100]!r} is not that of a file")
    return name


def _text(fields: _Fields, number: int) -> str:
    value = fields.get(number, b"")
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError:
        raise BadTree("a name is not UTF-8") from None


def _read_digest(fields: _Fields) -> Digest:
    inner = _message(fields.get(2, b""))
    try:
        return parse_digest(f"{_text(inner, 1)}/{inner.get(2, 0)!r}")
    except ValueError as defect:
        raise BadTree(str(defect)) from None


def _message(value: Union[int, bytes]) -> _Fields:
    return dict(_fields(value)) if isinstance(value, bytes) else {}


def _fields(content: bytes) -> Iterator[tuple[int, Union[int, bytes]]]:
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
