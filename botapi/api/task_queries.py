"""Tasks by what is asked of them: one filter for both APIs, the commands and the pages.

Newest first. A page and a count under the same filter agree (prpc-api 10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from botapi.api.parts import ApiParts
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.protocol import AnyOf, Key

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

    `states` empty means any. Times are ms of creation, `[start_ms, end_ms)`; 0 is unbounded.
    """

    states: frozenset[TaskState] = frozenset()
    only: Only | None = None
    tags: tuple[AnyOf, ...] = ()
    bots: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    start_ms: int = 0
    end_ms: int = 0


def find_tasks(
    parts: ApiParts, asked: TaskFilter, *, after: Key | None, limit: int
) -> tuple[list[Task], Key | None]:
    """Up to `limit` tasks behind the key `after`, newest first, and where the next page begins."""
    page = parts.store.find(codec.TASK, _tags(asked), after=after, limit=limit)
    return [codec.read_task(doc) for doc in page.docs], page.after


def count_tasks(parts: ApiParts, asked: TaskFilter) -> int:
    """How many tasks there are, counting no further than `COUNTED`."""
    return parts.store.count(codec.TASK, _tags(asked), up_to=COUNTED)


def _tags(asked: TaskFilter) -> Sequence[AnyOf]:
    found = [frozenset(f"t:{tag}" for tag in alternatives) for alternatives in asked.tags]
    for prefix, values in (("st", asked.states), ("b", asked.bots), ("u", asked.users)):
        if values:
            found.append(frozenset(f"{prefix}:{value}" for value in values))
    return found
