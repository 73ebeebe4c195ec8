"""The bot archive: a zip that is the same bytes for the same members, named by its content.

The version of an archive is a digest of its members (bot-api 8.2), so neither compression
nor the zip comment changes it. A zip made elsewhere is served with its two generated
members replaced.
"""

import binascii
import hashlib
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

CONFIG_JSON = "config/config.json"
HOOKS = "config/bot_config.py"
MAIN = "__main__.py"
MAX_COMMENT_BYTES = 0xFFFF
MAX_MEMBERS = 5_000
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_RATIO = 200
"""Most bytes that one byte of a zip may unpack to, once it is more than `RATIO_FREE_BYTES`."""
RATIO_FREE_BYTES = 1024 * 1024

_EPOCH = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
_PRIVATE = ".cipdpkg/"
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Others need more memory than their sizes tell."""


class BadArchive(Exception):
    """What was given is no bot archive; one line says why."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A finished archive: its version (64 hex digits) and its bytes."""

    version: str
    content: bytes


def content_digest(members: Mapping[str, bytes]) -> str:
    """The version of an archive with these members (bot-api 8.2)."""
    digest = hashlib.sha256()
    for name, content in sorted(members.items(), key=lambda member: member[0].encode()):
        raw = name.encode()
        digest.update(b"%d%s%d" % (len(raw), raw, len(content)))
        digest.update(content)
    return digest.hexdigest()


def config_json(server_url: str) -> bytes:
    """The member `config/config.json` (bot-api 8.1): no final newline, no trailing slash."""
    fields = {
        "server": server_url.rstrip("/"),
        "bot_cipd_instance_id": "",
        "server_version": "",
        "enable_ts_monitoring": False,
    }
    return json.dumps(fields, indent=2, ensure_ascii=True).encode("ascii")


def pack(members: Mapping[str, bytes]) -> Archive:
    """The archive of these members: sorted, of 1980-01-01, mode 0600, no folder entries.

    Raises BadArchive for a name that a zip or the digest could not carry faithfully.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            _check_name(name)
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o100600 << 16
            archive.writestr(info, members[name])
    return Archive(content_digest(members), packed.getvalue())


def unpack(content: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> dict[str, bytes]:
    """The members of a zip made elsewhere, without folders and packaging notes.

    Raises BadArchive when it is not a zip, is damaged or encrypted, has a member twice, a
    link, a name that leaves the archive or that two systems would read differently, too
    many members, or unpacks to more than `max_bytes` or out of proportion.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_infos(infos, len(content), max_bytes)
            return {info.filename: archive.read(info) for info in infos if _is_wanted(info)}
    except (
        *(zipfile.BadZipFile, binascii.Error, zlib.error),
        *(EOFError, OSError, RuntimeError, ValueError),
    ) as e:
        raise BadArchive(f"not a readable zip: {e}") from None


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and not info.filename.startswith(_PRIVATE)


def _check_infos(infos: list[zipfile.ZipInfo], packed: int, max_bytes: int) -> None:
    """Everything that can be told before a byte is unpacked."""
    if len(infos) > MAX_MEMBERS:
        raise BadArchive(f"more than {MAX_MEMBERS} members")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > max_bytes:
        raise BadArchive(f"unpacks to more than {max_bytes} bytes")
    if unpacked > max(RATIO_FREE_BYTES, MAX_RATIO * packed):
        raise BadArchive(f"unpacks to more than {MAX_RATIO} times its size")
    for info in infos:
        _check_info(info)
    files = [info.filename for info in infos if not info.is_dir()]
    _check_clashes(files)


def _check_info(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    _check_name(name.removesuffix("/"))
    if info.compress_type not in _METHODS:
        raise BadArchive(f"member {name!r} is neither stored nor deflated")
    if info.flag_bits & _ENCRYPTED:
        raise BadArchive(f"member {name!r} is encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        raise BadArchive(f"member {name!r} is neither a file nor a folder")


def _check_clashes(names: list[str]) -> None:
    """No name twice, none twice but for its case, none that is a folder of another."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(name.lower())
        if other is not None:
            twice = "is in it twice" if other == name else f"differs from {other!r} by case only"
            raise BadArchive(f"member {name!r} {twice}")
        seen[name.lower()] = name
    for name in names:
        parts = name.lower().split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise BadArchive(f"member {name!r} lies below a file")


def with_comment(content: bytes, text: str) -> bytes:
    """The zip with this comment instead of the one it has; the members stay as they are.

    Raises BadArchive when it is not a zip, and ValueError for a comment over 65,535 bytes.
    """
    comment = text.encode()
    if len(comment) > MAX_COMMENT_BYTES:
        raise ValueError(f"comment too long: {len(comment)} > {MAX_COMMENT_BYTES} bytes")
    at = _end_record(content)
    *fields, _length = _END.unpack_from(content, at)
    return content[:at] + _END.pack(*fields, len(comment)) + comment


def comment(content: bytes) -> str:
    """The comment of a zip; empty without one. Raises BadArchive when it is not a zip."""
    return content[_end_record(content) + _END.size :].decode("utf-8", "replace")


def _end_record(content: bytes) -> int:
    """Where the record at the end of a zip begins: the last one whose comment ends the file."""
    at = len(content)
    lowest = max(0, len(content) - _END.size - MAX_COMMENT_BYTES)
    while (at := content.rfind(b"PK\x05\x06", lowest, at)) >= 0:
        if at + _END.size <= len(content):
            length = _END.unpack_from(content, at)[-1]
            if at + _END.size + length == len(content):
                return at
    raise BadArchive("not a zip")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not name.isascii() or not name.isprintable() or "\\" in name:
        raise BadArchive(f"member name is not plain ASCII: {name!r}")
    if {"", ".", ".."} & {*parts} or _DRIVE.match(name):
        raise BadArchive(f"member name is not a clean relative path: {name!r}")
