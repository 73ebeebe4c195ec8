"""What lists have in common: page size, cursor, filters, time ranges (prpc-api 2.2 to 2.4)."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from swarmingpb.swarming_pb2 import (
    BotEventsRequest,
    BotTasksRequest,
    StringPair,
    TasksCancelRequest,
    TasksCountRequest,
    TasksRequest,
    TasksWithPerfRequest,
)

from botapi.api import cursors
from botapi.api.parts import ApiParts
from botapi.api.queries import DEFAULT_LIMIT, MAX_ALTERNATIVES, MAX_LIMIT
from botapi.domain.dimensions import key_problem, value_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import TASK_EPOCH_MS, request_key, task_created_ms, task_id
from botapi.store.protocol import AnyOf, Key

LAST_MS = 9_999_999_999_999
"""The last time that keys can say, in the year 2286."""


Ranged = (
    BotEventsRequest
    | BotTasksRequest
    | TasksCancelRequest
    | TasksCountRequest
    | TasksRequest
    | TasksWithPerfRequest
)
"""Requests with a time range."""


def bad(message: str) -> Refusal:
    """The caller's mistake, code 3."""
    return Refusal(Code.INVALID_ARGUMENT, message)


def page_limit(limit: int) -> int:
    """How many items a page has; 0 is the default. Raises Refusal INVALID_ARGUMENT."""
    if not limit:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise bad(f"limit is {limit}, not from 1 to {MAX_LIMIT}")
    return limit


def read_cursor(parts: ApiParts, method: str, text: str) -> Key | None:
    """What `next_cursor` was given for this method; None without a cursor.

    Raises Refusal INVALID_ARGUMENT for a text that is damaged, foreign, or of another method.
    """
    return cursors.unseal(parts, method, text)


def next_cursor(parts: ApiParts, method: str, key: Key, full: bool) -> str:  # noqa: FBT001
    """The cursor behind `key`, the last of this page; empty unless the page is full.

    So there is a cursor exactly when the page holds as many items as were asked for.
    """
    return cursors.seal(parts, method, key) if full else ""


def constraints(pairs: Iterable[StringPair]) -> tuple[AnyOf, ...]:
    """A filter of dimensions: for each entry the flat `key:value` alternatives.

    Equal entries count once. Raises Refusal INVALID_ARGUMENT (prpc-api 2.3).
    """
    found: dict[AnyOf, None] = {}
    for pair in pairs:
        values = pair.value.split("|")
        problems = [key_problem(pair.key), *(value_problem(pair.key, value) for value in values)]
        problem = next(filter(None, problems), "")
        if problem:
            raise bad(f'dimensions: "{pair.key[:80]}:{pair.value[:80]}": {problem}')
        found[frozenset(f"{pair.key}:{value}" for value in values)] = None
    return _bounded("dimensions", found)


def tag_constraints(tags: Iterable[str]) -> tuple[AnyOf, ...]:
    """A filter of tags: for each `key:a|b` the tags that it stands for.

    Equal entries count once. Raises Refusal INVALID_ARGUMENT (prpc-api 2.3).
    """
    found: dict[AnyOf, None] = {}
    for tag in tags:
        key, colon, value = tag.partition(":")
        alternatives = value.split("|")
        if not colon:
            raise bad(f'tags: "{tag[:80]}" has no colon; write key:value')
        if not all(part and part == part.strip() for part in (key, *alternatives)):
            raise bad(f'tags: "{tag[:80]}" has an empty part, or blanks around one')
        found[frozenset(f"{key}:{alternative}" for alternative in alternatives)] = None
    return _bounded("tags", found)


def _bounded(what: str, found: Iterable[AnyOf]) -> tuple[AnyOf, ...]:
    constraints = tuple(found)
    total = sum(map(len, constraints))
    if total > MAX_ALTERNATIVES:
        raise bad(f"{what}: {total} values, at most {MAX_ALTERNATIVES}")
    return constraints


def pools_of(constraints: Iterable[AnyOf]) -> frozenset[str]:
    """The pools that a filter names: all alternatives of all `pool` entries."""
    flat = (one for alternatives in constraints for one in alternatives)
    return frozenset(one.removeprefix("pool:") for one in flat if one.startswith("pool:"))


def instant_ms(moment: Timestamp) -> int:
    """Milliseconds since 1970, cut."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def time_range(asked: Ranged) -> tuple[int, int] | None:
    """`[start, end)` in ms by another time than that of creation, 0 where there is no bound.

    None for a range with nothing in it (prpc-api 2.4). What is stored are whole milliseconds,
    so a bound between two of them is that of the later one.
    """
    start = max(_rounded_up_ms(asked.start), 0) if asked.HasField("start") else 0
    if not asked.HasField("end"):
        return (start, 0) if start <= LAST_MS else None
    end = _rounded_up_ms(asked.end)
    if end <= start or start > LAST_MS:
        return None
    return start, end if end <= LAST_MS else 0


def _rounded_up_ms(moment: Timestamp) -> int:
    return moment.seconds * 1000 - -moment.nanos // 1_000_000


def creation_range(asked: Ranged) -> tuple[int, int]:
    """`[start, end)` of creation in ms, 0 where there is no bound.

    Raises Refusal INVALID_ARGUMENT for a time before 2010, and for a range with nothing in it.
    """
    start = instant_ms(asked.start) if asked.HasField("start") else None
    end = instant_ms(asked.end) if asked.HasField("end") else None
    for name, moment_ms in (("start", start), ("end", end)):
        if moment_ms is not None and moment_ms < TASK_EPOCH_MS:
            raise bad(f"{name} is before 2010-01-01, when there were no tasks")
    if start is not None and end is not None and start >= end:
        raise bad("start must be before end")
    return min(start or 0, LAST_MS), end if end and end <= LAST_MS else 0


def check_task_cursor(key: Key | None, start_ms: int, end_ms: int) -> None:
    """A cursor of tasks by creation must lie in `[start, end)`. Raises Refusal INVALID_ARGUMENT.

    `key` is that of kind `task` (bot-api 9.4).
    """
    if key is None:
        return
    created_ms = task_created_ms(task_id(request_key(int(key, 16))))
    if created_ms < start_ms or (end_ms and created_ms >= end_ms):
        raise bad("cursor: is outside of start and end; repeat them unchanged")
