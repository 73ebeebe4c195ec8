"""The bot's zip: its content digest, its comment, copies without the comment.

The digest is over names and contents in order of name, so compression, timestamps and the zip
comment (which may carry a bootstrap token) do not change it.
"""

import hashlib
import json
import os
import struct
import sys
import zipfile
from typing import Any, Optional

from bot_client.errors import EXIT_CONFIG, Fatal

CONFIG_MEMBER = "config/config.json"
HOOKS_MEMBER = "config/bot_config.py"
_EOCD = b"PK\x05\x06"
_EOCD_SIZE = 22


def running_archive() -> Optional[str]:
    """Absolute path of the zip this code was imported from; None in a source tree."""
    loader = getattr(sys.modules.get("bot_client"), "__loader__", None)
    path = getattr(loader, "archive", None)
    return os.path.abspath(path) if isinstance(path, str) else None


def require_running_archive() -> str:
    """As `running_archive`, but Fatal when the bot runs from loose files."""
    path = running_archive()
    if path is None:
        raise Fatal("this command needs the bot archive (swarming_bot.zip)", EXIT_CONFIG)
    return path


def content_digest(path: str) -> str:
    """The version of the archive: SHA-256, lower-case hex.  BadZipFile when it is no zip."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as bundle:
        for name in sorted(bundle.namelist()):
            content = bundle.read(name)
            digest.update(f"{len(name)}{name}{len(content)}".encode())
            digest.update(content)
    return digest.hexdigest()


def read_member(path: str, name: str) -> Optional[bytes]:
    """Content of one member, None when the archive has no such member."""
    with zipfile.ZipFile(path) as bundle:
        try:
            return bundle.read(name)
        except KeyError:
            return None


def own_modules(path: str) -> list[str]:
    """Names of the bot's modules in an archive, for a self-test that imports them all."""
    with zipfile.ZipFile(path) as bundle:
        names = [name for name in bundle.namelist() if name.startswith("bot_client/")]
    files = [name[: -len(".py")] for name in names if name.endswith(".py")]
    return sorted(name.replace("/", ".") for name in files if not name.endswith("__init__"))


def read_config(path: str) -> dict[str, Any]:
    """config.json of an archive, with its ``server`` checked.  Fatal when it is unusable."""
    raw = read_member(path, CONFIG_MEMBER)
    try:
        config = json.loads(raw or b"")
    except ValueError:
        config = None
    server = config.get("server") if isinstance(config, dict) else None
    if not isinstance(server, str) or not server.startswith(("http://", "https://")):
        raise Fatal(f"{path}: {CONFIG_MEMBER} names no server", EXIT_CONFIG)
    if server.endswith("/"):
        raise Fatal(f"{path}: the server URL must not end in a slash: {server}", EXIT_CONFIG)
    return dict(config)


def read_comment(path: str) -> str:
    """The zip comment as text; empty when there is none or the file is no zip."""
    try:
        with zipfile.ZipFile(path) as bundle:
            return bundle.comment.decode("ascii", "replace").strip()
    except (OSError, zipfile.BadZipFile):
        return ""


def copy_without_comment(source: str, target: str) -> None:
    """Copy an archive, leave its comment behind, and make the copy appear whole or not at all."""
    with open(source, "rb") as file:
        data = file.read()
    cut = data.rfind(_EOCD)
    if cut >= 0 and len(data) >= cut + _EOCD_SIZE:
        data = data[: cut + _EOCD_SIZE - 2] + struct.pack("<H", 0)
    write_whole(target, data)


def write_whole(path: str, data: bytes) -> None:
    """Write a 0600 file so that a crash leaves the old one or the new one, never a part."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def interpreter_command() -> list[str]:
    """This interpreter with the flags that must survive a restart (-I, -S, -B and so on)."""
    flags = []
    if sys.flags.isolated:
        flags.append("-I")
    elif sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.no_site:
        flags.append("-S")
    if sys.flags.dont_write_bytecode:
        flags.append("-B")
    return [sys.executable, *flags]
