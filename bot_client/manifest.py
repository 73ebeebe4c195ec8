"""Reads a manifest as the server sent it into one checked value.

Every defect is a `ManifestError` that names it; when the task id could be read it travels along,
so that the defect ends in a ``task_error`` and no task hangs on the server.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

Json = dict[str, Any]


class ManifestError(ValueError):
    """The manifest cannot be run; ``task_id`` is None when not even that could be read."""

    def __init__(self, message: str, task_id: Optional[str]) -> None:
        """``message`` says which key is wrong and how."""
        super().__init__(message)
        self.task_id = task_id


class Manifest(NamedTuple):
    """One task to run.  Times are seconds; 0 means no limit for the two timeouts."""

    task_id: str
    bot_id: str
    command: list[str]
    dimensions: Json
    bot_dimensions: dict[str, list[str]]
    hard_timeout: float
    io_timeout: float
    grace_period: float
    env: dict[str, str]
    env_prefixes: dict[str, list[str]]
    relative_cwd: str
    secret_bytes: Optional[str]
    realm: Optional[Json]
    resultdb: Optional[Json]


def parse(raw: object) -> Manifest:
    """Check types and needed keys; ManifestError on the first defect."""
    if not isinstance(raw, dict):
        raise ManifestError("the manifest is not an object", None)
    task_id = raw.get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise ManifestError("manifest.task_id is missing", None)
    try:
        return _checked(raw, task_id)
    except ValueError as defect:
        raise ManifestError(f"bad manifest: {defect}", task_id) from defect


def _checked(raw: Json, task_id: str) -> Manifest:
    _refuse_unsupported(raw)
    return Manifest(
        task_id=task_id,
        bot_id=_text(raw, "bot_id"),
        command=_texts(raw, "command"),
        dimensions=_object(raw, "dimensions", needed=True),
        bot_dimensions=_object(raw, "bot_dimensions", needed=True),
        hard_timeout=_seconds(raw, "hard_timeout"),
        io_timeout=_seconds(raw, "io_timeout"),
        grace_period=_seconds(raw, "grace_period"),
        env=_env(raw),
        env_prefixes=_env_prefixes(raw),
        relative_cwd=_optional_text(raw, "relative_cwd") or "",
        secret_bytes=_base64(raw, "secret_bytes"),
        realm=_object(raw, "realm") or None,
        resultdb=_object(raw, "resultdb") or None,
    )


def _refuse_unsupported(raw: Json) -> None:
    """What this bot cannot do must fail loudly: a task without its inputs is a wrong result."""
    for key in ("cas_input_root", "cipd_input", "caches", "outputs"):
        if raw.get(key):
            raise ValueError(f"{key} is not supported by this bot")


def _text(raw: Json, key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing")
    return value


def _optional_text(raw: Json, key: str) -> Optional[str]:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    return value


def _texts(raw: Json, key: str) -> list[str]:
    value = raw.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} is not a list of strings")
    if any("\0" in item for item in value):
        raise ValueError(f"{key} holds a NUL character")
    return list(value)


def _object(raw: Json, key: str, *, needed: bool = False) -> Json:
    value = raw.get(key)
    if value is None and not needed:
        return {}
    if not isinstance(value, Mapping):
        word = "is missing" if value is None else "is not an object"
        raise ValueError(f"{key} {word}")  # noqa: TRY004 - one kind for every defect
    return dict(value)


def _seconds(raw: Json, key: str) -> float:
    if key not in raw:
        raise ValueError(f"{key} is missing")
    value = raw[key]
    if value is None and key == "io_timeout":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{key} is not a number of seconds")
    return float(value)


def _env(raw: Json) -> dict[str, str]:
    env = {}
    for name, value in _object(raw, "env").items():
        text = "" if value is None else value
        if not isinstance(text, str) or "\0" in text or not name or "=" in name or "\0" in name:
            raise ValueError(f"env {name!r} is not usable")
        env[name] = text
    return env


def _env_prefixes(raw: Json) -> dict[str, list[str]]:
    prefixes = _object(raw, "env_prefixes")
    for name in prefixes:
        if not name or "=" in name:
            raise ValueError(f"env_prefixes {name!r} is not usable")
    return {name: _texts(prefixes, name) for name in prefixes}


def _base64(raw: Json, key: str) -> Optional[str]:
    value = _optional_text(raw, key)
    try:
        base64.b64decode(value or "", validate=True)
    except (binascii.Error, ValueError) as defect:
        raise ValueError(f"{key} is not base64") from defect
    return value or None
