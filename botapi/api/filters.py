"""Lists by `q`: what the store's index can answer goes there, the rest is looked at one by one.

A page looks at `MAX_LOOKED` documents at most. It may come back short, or empty, with a
cursor: there may be more behind it. A list is over when there is no cursor.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from botapi.api.bot_queries import BotFilter
from botapi.api.parts import Json, Query
from botapi.api.queries import MAX_ALTERNATIVES, last, refuse
from botapi.api.task_queries import Only, TaskFilter
from botapi.domain.bot import BotStatus
from botapi.domain.filter_facts import (
    BOT_WORDS,
    PARENT_TAG,
    STATES_OF_WORD,
    TASK_WORDS,
    task_and_run,
)
from botapi.domain.filter_language import (
    All,
    Compares,
    Expression,
    FilterError,
    Has,
    Vocabulary,
    parse,
)
from botapi.domain.task import TaskState
from botapi.store.protocol import AnyOf, Key

MAX_LOOKED = 1_000
"""Documents that one page looks at, when the index alone cannot answer."""
MAX_COUNT_LOOKED = 10_000
"""Documents that an exact count looks at."""
SAMPLE = 1_000
"""Documents that an estimate looks at."""
CHUNK = 250

T = TypeVar("T")
Find = Callable[[Key | None, int], tuple[list[T], Key | None]]
"""Up to so many things behind a key, and where the next ones begin."""


class CountKind(StrEnum):
    """How good a count is."""

    EXACT = "exact"
    ESTIMATE = "estimate"
    AT_LEAST = "at_least"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are."""

    count: int
    kind: CountKind

    def as_json(self) -> Json:
        """The members of a list that say it."""
        return {"count": self.count, "count_kind": str(self.kind)}


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What the index is asked, and what must hold besides."""

    asked: TaskFilter
    rest: All


@dataclass(frozen=True, slots=True)
class BotPlan:
    """As `TaskPlan`, for bots."""

    asked: BotFilter
    rest: All


def expression(query: Query, words: Vocabulary) -> All:
    """What `q` says. Raises Refusal with the offending part."""
    try:
        return parse(last(query, "q"), words)
    except FilterError as error:
        raise refuse("?q", str(error)) from None


def plan_tasks(asked: TaskFilter, query: Query, now_ms: int) -> TaskPlan:
    """The parameters of a list of tasks and its `q` together. Raises Refusal."""
    rest: list[Expression] = []
    for part in _conjuncts(expression(query, TASK_WORDS)):
        narrowed = _narrow_tasks(asked, part, now_ms)
        if narrowed is None or size_of_tasks(narrowed) > MAX_ALTERNATIVES:
            rest.append(part)
        else:
            asked = narrowed
    return TaskPlan(asked, All(tuple(rest)))


def plan_bots(asked: BotFilter, query: Query) -> BotPlan:
    """The parameters of a list of bots and its `q` together. Raises Refusal."""
    rest: list[Expression] = []
    for part in _conjuncts(expression(query, BOT_WORDS)):
        narrowed = _narrow_bots(asked, part)
        if narrowed is None or size_of_bots(narrowed) > MAX_ALTERNATIVES:
            rest.append(part)
        else:
            asked = narrowed
    return BotPlan(asked, All(tuple(rest)))


def _conjuncts(found: All) -> Iterator[Expression]:
    """What must all hold, brackets around it opened."""
    for part in found.parts:
        if isinstance(part, All):
            yield from _conjuncts(part)
        else:
            yield part


def _narrow_tasks(asked: TaskFilter, part: Expression, now_ms: int) -> TaskFilter | None:
    """The filter that says this too; None when no index knows it."""
    if isinstance(part, Compares):
        return _narrow_times(asked, part, now_ms) if part.key == "created" else None
    if not isinstance(part, Has) or not part.values:
        return None
    if part.key == "state":
        return _narrow_states(asked, part.values)
    if part.key == "parent":
        ids = task_and_run(part.values)
        return _with_tags(asked, [f"{PARENT_TAG}:{value}" for value in ids])
    if part.key.startswith("tag."):
        name = part.key.removeprefix("tag.")
        return _with_tags(asked, [f"{name}:{value}" for value in part.values])
    field = {"bot": "bots", "user": "users", "pool": "pools"}.get(part.key)
    if field is None or getattr(asked, field):
        return None
    change: dict[str, Any] = {field: frozenset(part.values)}
    return replace(asked, **change)


def _with_tags(asked: TaskFilter, tags: Sequence[str]) -> TaskFilter:
    return replace(asked, tags=(*asked.tags, frozenset(tags)))


def _narrow_states(asked: TaskFilter, words: Sequence[str]) -> TaskFilter | None:
    if len(words) == 1 and words[0] in set(Only):
        return None if asked.only else replace(asked, only=Only(words[0]))
    if asked.states or any(word not in STATES_OF_WORD for word in words):
        return None
    states = frozenset[TaskState]().union(*(STATES_OF_WORD[word] for word in words))
    return replace(asked, states=states)


def _narrow_times(asked: TaskFilter, part: Compares, now_ms: int) -> TaskFilter:
    """An age as bounds of the time of creation, `[start_ms, end_ms)`."""
    at_ms = max(1, now_ms - round(part.number * 1000))
    if part.operator.startswith("<"):
        start_ms = at_ms if part.operator == "<=" else at_ms + 1
        return replace(asked, start_ms=max(asked.start_ms, start_ms))
    end_ms = at_ms + 1 if part.operator == ">=" else at_ms
    return replace(asked, end_ms=min(asked.end_ms or end_ms, end_ms))


def _narrow_bots(asked: BotFilter, part: Expression) -> BotFilter | None:
    if not isinstance(part, Has) or not part.values:
        return None
    if part.key == "status":
        statuses = frozenset(map(BotStatus, part.values))
        return None if asked.statuses else replace(asked, statuses=statuses)
    is_dimension = part.key.startswith("dimension.")
    if not is_dimension and part.key != "id":
        return None
    name = part.key.removeprefix("dimension.")
    flat = frozenset(f"{name}:{value}" for value in part.values)
    return replace(asked, dimensions=(*asked.dimensions, flat))


def size_of_tasks(asked: TaskFilter) -> int:
    """Alternatives that the index would be asked for."""
    named = (asked.states, asked.bots, asked.users, asked.pools)
    return _alternatives(asked.tags) + sum(map(len, named))


def size_of_bots(asked: BotFilter) -> int:
    """As `size_of_tasks`."""
    return _alternatives(asked.dimensions) + len(asked.statuses)


def _alternatives(constraints: Sequence[AnyOf]) -> int:
    return sum(map(len, constraints))


@dataclass(frozen=True, slots=True)
class Sieve(Generic[T]):
    """How the rest is looked at: `keep` takes some things and gives those that pass."""

    find: Find[T]
    keep: Callable[[list[T]], list[T]]
    key_of: Callable[[T], Key]

    def page(self, after: Key | None, limit: int) -> tuple[list[T], Key | None]:
        """Up to `limit` things that pass, and where to go on."""
        kept: list[T] = []
        looked = 0
        while looked < MAX_LOOKED:
            found, next_after = self.find(after, CHUNK)
            looked += len(found)
            kept += self.keep(found)
            if len(kept) >= limit:
                is_all = len(kept) == limit and next_after is None
                return kept[:limit], None if is_all else self.key_of(kept[limit - 1])
            after = next_after
            if after is None:
                break
        return kept, after

    def count(self, most: int) -> tuple[int, int, bool]:
        """How many passed of how many looked at, and were those all?"""
        passed = looked = 0
        after: Key | None = None
        while looked < most:
            found, after = self.find(after, CHUNK)
            looked += len(found)
            passed += len(self.keep(found))
            if after is None:
                return passed, looked, True
        return passed, looked, False


def count(
    query: Query, sieve: Sieve[T] | None, indexed: Callable[[], int], most: int
) -> Counted | None:
    """What `count=` asks for; None when it is not given. `indexed` counts up to `most`."""
    wanted = last(query, "count")
    if not wanted:
        return None
    if wanted not in {CountKind.EXACT, CountKind.ESTIMATE}:
        raise refuse("?count", f'"{wanted[:40]}" is neither exact nor estimate')
    if sieve is None:
        number = indexed()
        return Counted(number, CountKind.AT_LEAST if number >= most else CountKind.EXACT)
    limit = MAX_COUNT_LOOKED if wanted == CountKind.EXACT else SAMPLE
    passed, looked, is_all = sieve.count(limit)
    if is_all:
        return Counted(passed, CountKind.EXACT)
    if wanted == CountKind.EXACT:
        return Counted(passed, CountKind.AT_LEAST)
    return Counted(round(indexed() * passed / looked), CountKind.ESTIMATE)
