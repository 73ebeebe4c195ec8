"""The bot archive: a zip that is the same bytes for the same members, named by its content.

The version of an archive is a digest of its members (bot-api 8.2), so neither compression
nor the zip comment changes it. A zip made elsewhere is served with its two generated
members replaced.
"""

import binascii
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

CONFIG_JSON = "config/config.json"
HOOKS = "config/bot_config.py"
MAIN = "__main__.py"
MAX_COMMENT_BYTES = 0xFFFF

_EPOCH = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
_PRIVATE = ".cipdpkg/"


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


def unpack(content: bytes, max_bytes: int = 64 * 1024 * 1024) -> dict[str, bytes]:
    """The members of a zip made elsewhere, without folders and packaging notes.

    Raises BadArchive when it is not a zip, is damaged, has a member twice, or unpacks to
    more than `max_bytes`.
    """
    members: dict[str, bytes] = {}
    left = max_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if info.is_dir() or info.filename.startswith(_PRIVATE):
                    continue
                if info.filename in members:
                    raise BadArchive(f"member {info.filename!r} is in it twice")
                left -= info.file_size
                if left < 0:
                    raise BadArchive(f"unpacks to more than {max_bytes} bytes")
                members[info.filename] = archive.read(info)
    except (zipfile.BadZipFile, binascii.Error, EOFError, OSError, RuntimeError, ValueError) as e:
        raise BadArchive(f"not a readable zip: {e}") from None
    return members


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
    if {"", ".", ".."} & {*parts}:
        raise BadArchive(f"member name is not a clean relative path: {name!r}")
