"""The file with the key-encryption keys: outside the database, readable by its owner only.

One key a line, `<id>:<32 bytes in base64>`; the first one wraps, the others still open.
"""

import base64
import binascii
import os
import re
import stat
from pathlib import Path

from botapi.clock import Rng
from botapi.secrets.envelope import KEY_BYTES, KeyEncryptionKeys

MAX_FILE_BYTES = 4_096
MODE = 0o400
_LINE = re.compile(r"([a-z0-9]{4,16}):([A-Za-z0-9+/]{43}=)")


class KeyFileError(Exception):
    """The file is missing, open to others, or not of its form; one line says which."""


def read_keys(path: Path) -> KeyEncryptionKeys:
    """The keys of the file. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"{path}: others may read it (mode {mode & 0o777:o}); chmod 0400 it")
    lines = raw.decode("ascii", "replace").splitlines()
    keys = tuple(_key(path, number, line) for number, line in enumerate(lines, 1) if line)
    if not keys or len(raw) > MAX_FILE_BYTES:
        raise KeyFileError(f"{path}: holds no keys, or too many; write <id>:<32 bytes in base64>")
    if len({key_id for key_id, _ in keys}) < len(keys):
        raise KeyFileError(f"{path}: two keys have the same id")
    return KeyEncryptionKeys(keys)


def _key(path: Path, number: int, line: str) -> tuple[str, bytes]:
    found = _LINE.fullmatch(line)
    try:
        key = base64.b64decode(found[2], validate=True) if found else b""
    except binascii.Error:
        key = b""
    if found is None or len(key) != KEY_BYTES:
        raise KeyFileError(f"{path}:{number}: is not <id>:<32 bytes in base64>")
    return found[1], key


def make_key_file(path: Path, rng: Rng) -> None:
    """A file with one new key, unless there is one. Raises KeyFileError."""
    if not path.exists():
        _write(path, [_new_line(rng)], exclusive=True)


def add_key(path: Path, rng: Rng) -> KeyEncryptionKeys:
    """Put a new key before the others; it wraps from now on. Raises KeyFileError."""
    keys = read_keys(path)
    _write(path, [_new_line(rng), *map(_line, keys.keys)], exclusive=False)
    return read_keys(path)


def keep_active(path: Path) -> KeyEncryptionKeys:
    """Drop every key but the first. Raises KeyFileError."""
    keys = read_keys(path)
    _write(path, [_line(keys.keys[0])], exclusive=False)
    return read_keys(path)


def _new_line(rng: Rng) -> str:
    key = rng.randbits(8 * KEY_BYTES).to_bytes(KEY_BYTES, "big")
    return _line((f"{rng.randbits(40):010x}", key))


def _line(key: tuple[str, bytes]) -> str:
    return f"{key[0]}:{base64.b64encode(key[1]).decode()}"


def _write(path: Path, lines: list[str], *, exclusive: bool) -> None:
    """Write beside it and rename, so that there is a whole file at every moment."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write("\n".join([*lines, ""]))
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(new, path)
            new.unlink()
        else:
            new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        new.unlink(missing_ok=True)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None
