"""Tasks by what is asked of them: one filter for both APIs, the commands and the pages.

Newest first. A page and a count under the same filter agree (prpc-api 10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from botapi.api.parts import MANY, ApiParts
from botapi.concurrency import giving_way
from botapi.domain.names import MAX_REQUEST_ID, TASK_EPOCH_MS, request_key
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.codec import RunTime
from botapi.store.protocol import AnyOf, Key
from botapi.store.walk import key_after

COUNTED = 1_000_000
"""Tasks counted no further."""


class Only(StrEnum):
    """A part of COMPLETED (prpc-api 2.5)."""

    SUCCESS = "success"
    FAILURE = "failure"
    DEDUPED = "deduped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """All of it must hold. `tags` are constraints: each a set of `key:value`, one must be there.

    `states` empty means any. `bots` are those that it ran on: a task that took over another's
    result ran on none. Times are ms of creation, `[start_ms, end_ms)`; 0 is unbounded.
    """

    states: frozenset[TaskState] = frozenset()
    only: Only | None = None
    tags: tuple[AnyOf, ...] = ()
    bots: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    start_ms: int = 0
    end_ms: int = 0


def find_tasks(
    parts: ApiParts, asked: TaskFilter, *, after: Key | None, limit: int
) -> tuple[list[Task], Key | None]:
    """Up to `limit` tasks behind the key `after`, newest first, and where the next page begins.

    Raises TooLarge for more values than a store takes in one query.
    """
    lo, hi = creation_range(asked.start_ms, asked.end_ms)

    def fetch() -> tuple[list[Task], Key | None]:
        page = parts.store.find(codec.TASK, _tags(asked), after=after, limit=limit, lo=lo, hi=hi)
        return [codec.read_task(doc) for doc in giving_way(page.docs)], page.after

    return parts.concurrency.native(fetch) if limit > MANY else fetch()


def count_tasks(parts: ApiParts, asked: TaskFilter) -> int:
    """How many tasks there are, counting no further than `COUNTED`."""
    lo, hi = creation_range(asked.start_ms, asked.end_ms)
    tags = _tags(asked)
    if tags:
        return parts.store.count(codec.TASK, tags, up_to=COUNTED, lo=lo, hi=hi)
    # Each task has exactly one tag of a state: counting these reads no documents.
    counts = (
        parts.store.count(codec.TASK, [frozenset({f"st:{state}"})], up_to=COUNTED, lo=lo, hi=hi)
        for state in TaskState
    )
    return min(sum(counts), COUNTED)


def find_bot_tasks(
    parts: ApiParts,
    bot_id: str,
    column: RunTime,
    *,
    start_ms: int = 0,
    end_ms: int = 0,
    after: Key | None,
    limit: int,
) -> tuple[list[Task], Key | None]:
    """Up to `limit` runs of a bot by this time, latest first, and the key behind a full page.

    Those whose time lies within `[start_ms, end_ms)`, 0 for no bound; none for an empty range,
    none without that time. `after` is a key from here, for the same bot and column. The next
    page may turn out to be empty. A bound between two milliseconds is to be rounded up.
    """
    lo, hi = codec.run_time_range(bot_id, column, start_ms, end_ms)

    def fetch() -> tuple[list[Task], Key | None]:
        found: list[Task] = []
        at = max(lo, key_after(after)) if after else lo
        while len(found) < limit:
            keys = parts.store.scan_keys(codec.RUN_TIME, at, hi, limit=limit - len(found))
            if not keys:
                return found, None
            docs = parts.store.get(codec.TASK, *map(codec.task_key_of_run_time, keys))
            found += [codec.read_task(doc) for doc in giving_way(docs) if doc is not None]
            at = key_after(keys[-1])
        return found, codec.run_time_key(found[-1], column)

    return parts.concurrency.native(fetch) if limit > MANY else fetch()


def creation_range(start_ms: int, end_ms: int) -> tuple[Key, Key | None]:
    """The keys of tasks created within `[start_ms, end_ms)`: the newest has the lowest key."""
    lo, hi = "", None
    if end_ms:
        lo = _lowest_key(end_ms - 1)
    if start_ms > TASK_EPOCH_MS:
        hi = _lowest_key(start_ms - 1)
    return lo, hi


def _lowest_key(created_ms: int) -> Key:
    """What no task created later has as its key, and none of this moment is below."""
    since = created_ms - TASK_EPOCH_MS
    newest = min(max(((since + 1) << 20) - 1, 0), MAX_REQUEST_ID)
    return f"{request_key(newest):016x}"


def _tags(asked: TaskFilter) -> Sequence[AnyOf]:
    found = [frozenset(f"t:{tag}" for tag in alternatives) for alternatives in asked.tags]
    if asked.only is not None:
        found.append(frozenset({f"o:{asked.only}"}))
    is_told = asked.only is not None and asked.states == {TaskState.COMPLETED}
    for prefix, values in (
        ("st", frozenset() if is_told else asked.states),
        ("b", asked.bots),
        ("u", asked.users),
        ("p", asked.pools),
    ):
        if values:
            found.append(frozenset(f"{prefix}:{value}" for value in values))
    return found
