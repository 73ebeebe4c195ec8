"""Reads a manifest as the server sent it into one checked value.

Every defect is a `ManifestError` that names it; when the task id could be read it travels along,
so that the defect ends in a ``task_error`` and no task hangs on the server.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from bot_client import cas
from bot_client.cas import Digest

Json = dict[str, Any]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CACHE_NAME = re.compile(r"[a-z0-9_]{1,4096}")


class ManifestError(ValueError):
    """The manifest cannot be run; ``task_id`` is None when not even that could be read."""

    def __init__(self, message: str, task_id: Optional[str]) -> None:
        """``message`` says which key is wrong and how."""
        super().__init__(message)
        self.task_id = task_id


class CacheWanted(NamedTuple):
    """A named cache at a path of the run folder; ``hint`` is its size in bytes, -1 unknown."""

    name: str
    path: str
    hint: int


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
    input_root: Optional[Digest] = None
    caches: tuple[CacheWanted, ...] = ()
    outputs: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()


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
        input_root=_input_root(raw),
        caches=_caches(raw),
        outputs=_outputs(raw),
        secrets=_secrets(raw),
    )


def _refuse_unsupported(raw: Json) -> None:
    """What this bot cannot do must fail loudly: a task without its inputs is a wrong result."""
    if raw.get("cipd_input"):
        raise ValueError("cipd_input is not supported by this bot")


def _input_root(raw: Json) -> Optional[Digest]:
    """Only our own server's store: there is no way to ask another one."""
    said = _object(raw, "cas_input_root")
    if not said:
        return None
    instance = said.get("cas_instance")
    if instance != cas.INSTANCE:
        raise ValueError(f"cas_input_root: {instance!r} is not supported by this bot")
    digest = _object(said, "digest", needed=True)
    try:
        return cas.parse_digest(f"{digest.get('hash')}/{digest.get('size_bytes') or 0}")
    except ValueError as defect:
        raise ValueError(f"cas_input_root: {defect}") from defect


def _caches(raw: Json) -> tuple[CacheWanted, ...]:
    found = tuple(_cache(item) for item in raw.get("caches") or ())
    if len({cache.name for cache in found}) != len(found):
        raise ValueError("caches names one twice")
    paths = [f"{cache.path}/" for cache in found]
    if any(a.startswith(b) for i, a in enumerate(paths) for j, b in enumerate(paths) if i != j):
        raise ValueError("caches have paths within each other")
    return found


def _cache(item: object) -> CacheWanted:
    if not isinstance(item, dict):
        raise ValueError("caches is not a list of objects")  # noqa: TRY004 - one kind
    name, path = item.get("name"), item.get("path")
    if not isinstance(name, str) or not _CACHE_NAME.fullmatch(name):
        raise ValueError(f"caches: {name!r} is not a name")
    if not isinstance(path, str) or not cas.is_path(path):
        raise ValueError(f"caches: {path!r} is not a path below the run folder")
    try:
        return CacheWanted(name, path, int(item.get("hint") or -1))
    except (TypeError, ValueError):
        return CacheWanted(name, path, -1)


def _outputs(raw: Json) -> tuple[str, ...]:
    found = tuple(path.rstrip("/") for path in _texts(raw, "outputs"))
    for path in found:
        if not cas.is_path(path):
            raise ValueError(f"outputs: {path!r} is not a path below the run folder")
    return found


def _secrets(raw: Json) -> tuple[tuple[str, str], ...]:
    """Variables and values in base64; one that the server cannot give fails the task."""
    ours = _object(raw, "skep")
    missing = [name for name in ours.get("secrets_missing") or () if isinstance(name, str)]
    if missing:
        raise ValueError(f"secrets that are gone, or do not open: {', '.join(missing)}")
    said = _object(ours, "secrets")
    for name in said:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"secrets: {name!r} is not a name")
    return tuple((name, _base64(said, name) or "") for name in sorted(said))


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
