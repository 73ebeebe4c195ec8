"""What a bot is, for matching: keys with values, and which of them the server decides.

Security rule number one lives in `overlay`: a bot is never believed about a key that its
group assigns, nor about a trusted key that its group does not.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from botapi.domain.names import utf8_length

MAX_KEY_BYTES = 64
MAX_VALUE_BYTES = 256
MAX_REMEMBERED_CHARS = 4_096
"""Longer dimensions are judged anew each time, so that nobody fills the memory."""
SHOWN_KEY_BYTES = 69
SHOWN_VALUE_BYTES = 261

KEY_REGEX = r"^[a-zA-Z\-\_\.][0-9a-zA-Z\-\_\.]*$"
_KEY = re.compile(KEY_REGEX[1:-1])


def key_problem(key: str) -> str:
    """What is wrong with a dimension key (bot-api 6.1); empty when nothing is."""
    if not key:
        return "empty key"
    length = utf8_length(key)
    if length is not None and length > MAX_KEY_BYTES:
        return f"key too long: {length} > {MAX_KEY_BYTES}"
    if _KEY.fullmatch(key) is None:
        return f"key does not match {KEY_REGEX}"
    return ""


def value_problem(key: str, value: str) -> str:
    """What is wrong with a value under this key (bot-api 6.1); empty when nothing is."""
    if not value:
        return "empty value"
    length = utf8_length(value)
    if length is None:
        return "value is not Unicode text"
    if length > MAX_VALUE_BYTES:
        return f"value too long: {length} > {MAX_VALUE_BYTES}"
    if value.strip() != value:
        return "value has outer spaces"
    if ":" in value and key in {"id", "pool"}:
        return '":" in a bot id' if key == "id" else '":" in a pool name'
    return ""


def validate(dims: Mapping[str, Sequence[str]]) -> list[str]:
    """Every complaint of bot-api 6.1 about the dimensions of a bot, ordered by key.

    Each is one line such as `bad dimensions: key "os": bad value "": empty value`.
    The list is empty when all is well; `pool` is not asked for, it comes from the group.
    """
    return [
        f"bad dimensions: key {quote(key, SHOWN_KEY_BYTES)}: {problem}"
        for key in sorted({*dims, "id"})
        for problem in (_judged(key, tuple(dims[key])) if key in dims else ["missing"])
    ]


def _judged(key: str, values: tuple[str, ...]) -> tuple[str, ...]:
    size = len(key) + sum(map(len, values))
    judge = _remembered_problems if size <= MAX_REMEMBERED_CHARS else _problems
    return judge(key, values)


@lru_cache(maxsize=4_096)  # bots say much the same, at every poll
def _remembered_problems(key: str, values: tuple[str, ...]) -> tuple[str, ...]:
    return _problems(key, values)


def _problems(key: str, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_each_problem(key, values))


def _each_problem(key: str, values: tuple[str, ...]) -> Iterable[str]:
    problem = key_problem(key)
    if problem:
        yield problem
    if not values:
        yield "no values"
    if key == "id" and len(values) > 1:
        yield "exactly one value expected"
    seen: set[str] = set()
    for value in values:
        problem = value_problem(key, value)
        if problem:
            yield f"bad value {quote(value, SHOWN_VALUE_BYTES)}: {problem}"
        if value in seen:
            yield f"duplicate value {quote(value, SHOWN_VALUE_BYTES)}"
        seen.add(value)


def quote(text: str, max_bytes: int) -> str:
    """The text in double quotes, cut to so many bytes of UTF-8 and `...` when it is longer."""
    raw = text.encode("utf-8", "replace")
    if len(raw) > max_bytes:
        text = raw[:max_bytes].decode("utf-8", "ignore") + "..."
    escaped = (_escape(c) for c in text)
    return '"' + "".join(escaped) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else ascii(char)[1:-1]


def flatten(dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All `key:value` pairs, sorted, each once."""
    return tuple(sorted({f"{key}:{value}" for key, values in dims.items() for value in values}))


def unflatten(flat: Iterable[str]) -> dict[str, list[str]]:
    """The inverse of `flatten`: the first `:` of each pair ends its key."""
    dims: dict[str, list[str]] = {}
    for pair in flat:
        key, _, value = pair.partition(":")
        dims.setdefault(key, []).append(value)
    return dims


def overlay(
    reported: Mapping[str, Sequence[str]],
    group_dims: Mapping[str, Sequence[str]],
    trusted_keys: Collection[str],
) -> dict[str, list[str]]:
    """The dimensions of a bot: what it reports, with its group's word above its own.

    A key that the group assigns has the group's values only. A trusted key that the group
    does not assign is dropped (bot-api 7.2, our rule). `id` is always the bot's own: neither
    a group nor the trusted list touches it. The keys are sorted.
    """
    barred = ({*group_dims} | {*trusted_keys}) - {"id"}
    dims = {key: list(values) for key, values in reported.items() if key not in barred}
    dims |= {key: list(values) for key, values in group_dims.items() if key != "id"}
    return dict(sorted(dims.items()))


def dropped_keys(
    reported: Mapping[str, Sequence[str]],
    group_dims: Mapping[str, Sequence[str]],
    trusted_keys: Collection[str],
) -> tuple[str, ...]:
    """The trusted keys that `overlay` drops since the group does not assign them; for the log."""
    return tuple(sorted(({*reported} & {*trusted_keys}) - {*group_dims} - {"id"}))
