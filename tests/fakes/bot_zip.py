"""Builds the bot's archive the way the server does, for tests of the bot."""

import hashlib
import json
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "bot_client"


def members(server: str, hooks: str | None = None, **changes: str) -> dict[str, bytes]:
    """Name to content; ``changes`` replaces or adds members (``__`` stands for a slash)."""
    found = {
        f"bot_client/{path.relative_to(SOURCE).as_posix()}": path.read_bytes()
        for path in SOURCE.rglob("*.py")
    }
    found["__main__.py"] = (SOURCE / "zip_main.py").read_bytes()
    config = {
        "server": server,
        "bot_cipd_instance_id": "",
        "server_version": "",
        "enable_ts_monitoring": False,
    }
    found["config/config.json"] = json.dumps(config, indent=2).encode()
    if hooks is not None:
        found["config/bot_config.py"] = hooks.encode()
    return found


def digest(content: dict[str, bytes]) -> str:
    """The version, computed apart from the bot's own code."""
    whole = hashlib.sha256()
    for name in sorted(content):
        whole.update(f"{len(name)}{name}{len(content[name])}".encode() + content[name])
    return whole.hexdigest()


def write(path: Path, content: dict[str, bytes], comment: bytes = b"") -> str:
    """Write the archive deterministically; returns its version."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in sorted(content):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            bundle.writestr(info, content[name])
        bundle.comment = comment
    path.chmod(0o600)
    return digest(content)
