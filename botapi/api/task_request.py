"""The body of `POST /tasks`: what it may say, checked to the last word (docs/api.md)."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from botapi.api.queries import refuse
from botapi.cfg.value_rules import is_email, realm_problem
from botapi.domain.dimensions import key_problem, value_problem
from botapi.domain.matching import problems
from botapi.domain.names import utf8_length
from botapi.domain.service_accounts import MAX_ACCOUNT_CHARS, NONE, is_literal
from botapi.domain.task import Slice, TaskRequest

MAX_SLICES = 8
MAX_ARGUMENTS = 128
MAX_ENV_KEYS = 64
MAX_ENV_KEY = 64
MAX_ENV_VALUE = 1024
MAX_CWD = 256
MAX_NAME = 256
MAX_USER = 256
MAX_TAGS = 256
MAX_TAG_KEY = 64
MAX_TAG_VALUE = 256
DEFAULT_POOL = "default"
RESERVED_TAG = "swarming.terminate"

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SliceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One slice as it is written; None is "not given"."""

    command: list[str] | msgspec.UnsetType = msgspec.UNSET
    dimensions: dict[str, list[str]] | msgspec.UnsetType = msgspec.UNSET
    env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    env_prefixes: dict[str, list[str]] | msgspec.UnsetType = msgspec.UNSET
    relative_cwd: str | msgspec.UnsetType = msgspec.UNSET
    expiration_s: int | msgspec.UnsetType = msgspec.UNSET
    hard_timeout_s: int | msgspec.UnsetType = msgspec.UNSET
    io_timeout_s: int | msgspec.UnsetType = msgspec.UNSET
    grace_period_s: int | msgspec.UnsetType = msgspec.UNSET
    wait_for_capacity: bool | msgspec.UnsetType = msgspec.UNSET
    secret_bytes_b64: str | msgspec.UnsetType = msgspec.UNSET


class TaskBody(SliceBody, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A task as it is written: the keys of one slice, or `slices`."""

    name: str = ""
    priority: int = 100
    user: str = ""
    tags: list[str] = []
    bot_ping_tolerance_s: int = 1200
    service_account: str = ""
    realm: str = ""
    slices: list[SliceBody] | msgspec.UnsetType = msgspec.UNSET


SLICE_KEYS = SliceBody.__struct_fields__


def task_request(body: TaskBody, task_id: str, authenticated: str, now_ms: int) -> TaskRequest:
    """The request that the body asks for. Raises Refusal with the place of the mistake."""
    slices = tuple(_slice(place, body_) for place, body_ in _slice_bodies(body))
    for index, slice_ in enumerate(slices):
        if slice_ in slices[:index]:
            raise refuse(f"/slices/{index}", "is the same as an earlier slice; leave it out")
        if slice_.pool != slices[0].pool:
            place = f"/slices/{index}/dimensions/pool"
            raise refuse(place, "is not the pool of the first slice; a task is of one pool")
    return TaskRequest(
        task_id=task_id,
        name=_name(body, slices[0].command[0]),
        priority=_within("/priority", body.priority, 1, 255),
        user=_user(body.user),
        authenticated=authenticated,
        tags=_tags(body.tags),
        slices=slices,
        created_ms=now_ms,
        bot_ping_tolerance_s=_within("/bot_ping_tolerance_s", body.bot_ping_tolerance_s, 60, 1200),
        service_account=_service_account(body.service_account),
        realm=_realm(body.realm),
    )


def _slice_bodies(body: TaskBody) -> list[tuple[str, SliceBody]]:
    """Each slice with the pointer to it."""
    if body.slices is msgspec.UNSET:
        return [("", body)]
    for key in SLICE_KEYS:
        if getattr(body, key) is not msgspec.UNSET:
            raise refuse(f"/{key}", "stands beside slices; write it into each slice")
    if not 1 <= len(body.slices) <= MAX_SLICES:
        raise refuse("/slices", f"has {len(body.slices)} entries, not from 1 to {MAX_SLICES}")
    return [(f"/slices/{index}", slice_) for index, slice_ in enumerate(body.slices)]


def _slice(place: str, body: SliceBody) -> Slice:
    if body.secret_bytes_b64 is not msgspec.UNSET:
        raise refuse(f"{place}/secret_bytes_b64", "secrets are not supported yet; leave it out")
    defaults = Slice((), {})
    return Slice(
        command=_command(f"{place}/command", _or(body.command, None)),
        dimensions=_dimensions(f"{place}/dimensions", _or(body.dimensions, {})),
        env=_env(f"{place}/env", _or(body.env, {})),
        env_prefixes=_env_prefixes(f"{place}/env_prefixes", _or(body.env_prefixes, {})),
        relative_cwd=_cwd(f"{place}/relative_cwd", _or(body.relative_cwd, "")),
        expiration_s=_within(
            f"{place}/expiration_s", _or(body.expiration_s, defaults.expiration_s), 30, 604_800
        ),
        hard_timeout_s=_within(
            f"{place}/hard_timeout_s", _or(body.hard_timeout_s, defaults.hard_timeout_s), 0, 601_140
        ),
        io_timeout_s=_within(
            f"{place}/io_timeout_s", _or(body.io_timeout_s, defaults.io_timeout_s), 0, 601_140
        ),
        grace_period_s=_within(
            f"{place}/grace_period_s", _or(body.grace_period_s, defaults.grace_period_s), 0, 3600
        ),
        wait_for_capacity=_or(body.wait_for_capacity, default=False),
    )


def _or(value: Any, default: Any) -> Any:  # noqa: ANN401 - whatever the field holds
    return default if value is msgspec.UNSET else value


def _within(place: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise refuse(place, f"is {value}, not from {low} to {high}")
    return value


def _text(place: str, text: str, most: int | None = None) -> str:
    """Refuse what no process could be given, and what is too long."""
    length = utf8_length(text)
    if length is None or "\0" in text:
        raise refuse(place, "holds a NUL or half a surrogate pair; write plain Unicode text")
    if most is not None and length > most:
        raise refuse(place, f"has {length} bytes, at most {most} are allowed")
    return text


def _name(body: TaskBody, first_word: str) -> str:
    if len(body.name) > MAX_NAME:
        raise refuse("/name", f"has {len(body.name)} characters, at most {MAX_NAME} are allowed")
    return _text("/name", body.name) or first_word[:MAX_NAME]


def _user(user: str) -> str:
    if user.strip() != user or not user.isprintable():
        raise refuse("/user", "has outer blanks or control characters; leave them out")
    return _text("/user", user, MAX_USER)


def _service_account(account: str) -> str:
    if len(account) > MAX_ACCOUNT_CHARS:
        most = f"at most {MAX_ACCOUNT_CHARS} are allowed"
        raise refuse("/service_account", f"has {len(account)} characters, {most}")
    if not is_literal(account) and not is_email(account):
        raise refuse("/service_account", "is neither none, bot nor an e-mail address")
    return account or NONE


def _realm(realm: str) -> str:
    problem = realm_problem(realm) if realm else ""
    if problem:
        raise refuse("/realm", f"is {problem}")
    return realm


def _tags(tags: list[str]) -> tuple[str, ...]:
    if len(tags) > MAX_TAGS:
        raise refuse("/tags", f"has {len(tags)} entries, at most {MAX_TAGS} are allowed")
    for index, tag in enumerate(tags):
        problem = _tag_problem(tag)
        if problem:
            raise refuse(f"/tags/{index}", f"{problem}; write key:value")
        _text(f"/tags/{index}", tag)
    return tuple(dict.fromkeys(tags))


def _tag_problem(tag: str) -> str:
    key, colon, value = tag.partition(":")
    if not colon or not key:
        return "has no key and colon"
    if tag.strip() != tag or key.strip() != key or value.strip() != value:
        return "has outer blanks"
    if len(key.encode("utf-8", "replace")) > MAX_TAG_KEY:
        return f"its key has more than {MAX_TAG_KEY} bytes"
    if len(value.encode("utf-8", "replace")) > MAX_TAG_VALUE:
        return f"its value has more than {MAX_TAG_VALUE} bytes"
    if key == RESERVED_TAG:
        return f"the key {RESERVED_TAG} is the server's own"
    return ""


def _command(place: str, command: list[str] | None) -> tuple[str, ...]:
    if command is None:
        raise refuse(place, "is missing; give the program and its arguments")
    if not 1 <= len(command) <= MAX_ARGUMENTS:
        raise refuse(place, f"has {len(command)} strings, not from 1 to {MAX_ARGUMENTS}")
    if not command[0]:
        raise refuse(f"{place}/0", "is empty; the first string is the program")
    return tuple(_text(f"{place}/{index}", word) for index, word in enumerate(command))


def _dimensions(place: str, asked: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    for key, values in asked.items():
        problem = key_problem(key) or ("" if values else "has no values")
        if problem:
            raise refuse(f"{place}/{pointer(key)}", problem)
        for index, value in enumerate(values):
            for alternative in value.split("|"):
                problem = value_problem(key, alternative)
                if problem:
                    raise refuse(f"{place}/{pointer(key)}/{index}", problem)
    wanted = {key: tuple(values) for key, values in asked.items()}
    wanted.setdefault("pool", (DEFAULT_POOL,))
    for problem in problems(wanted):
        raise refuse(place, problem)
    return wanted


def _env(place: str, env: dict[str, str]) -> dict[str, str]:
    _env_keys(place, env)
    return {key: _text(f"{place}/{key}", value, MAX_ENV_VALUE) for key, value in env.items()}


def _env_prefixes(place: str, prefixes: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    _env_keys(place, prefixes)
    for key, paths in prefixes.items():
        if not paths:
            raise refuse(f"{place}/{key}", "has no paths; give at least one or leave it out")
        for index, path in enumerate(paths):
            _path(f"{place}/{key}/{index}", path, MAX_ENV_VALUE, other="\\")
    return {key: tuple(paths) for key, paths in prefixes.items()}


def _env_keys(place: str, env: Iterable[str]) -> None:
    keys = list(env)
    if len(keys) > MAX_ENV_KEYS:
        raise refuse(place, f"has {len(keys)} keys, at most {MAX_ENV_KEYS} are allowed")
    for key in keys:
        if not _ENV_KEY.fullmatch(key) or len(key) > MAX_ENV_KEY:
            raise refuse(
                f"{place}/{pointer(key)}",
                f"is no variable name; use at most {MAX_ENV_KEY} letters, digits and _",
            )


def _cwd(place: str, path: str) -> str:
    return _path(place, path, MAX_CWD) if path else ""


def _path(place: str, path: str, most: int, other: str = "") -> str:
    """A path below the task's folder, in one way of writing only."""
    _text(place, path, most)
    parts = re.split(r"[/\\]", path)
    is_odd = "" in parts or "." in parts or bool(other and other in path)
    if is_odd or ".." in parts or re.match(r"[A-Za-z]:", path):
        raise refuse(place, f'"{path[:80]}" is not a plain path below the task\'s folder, as a/b')
    return path


def pointer(key: str) -> str:
    """A key as a part of a JSON pointer, cut to what is worth showing."""
    return key[:80].replace("~", "~0").replace("/", "~1")
