"""Lists of tasks: parameters, the filter `q`, counts, and the tasks of one bot."""

from collections.abc import Mapping
from dataclasses import replace

from botapi.api import access, cursors, filters, queries, task_queries
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.task_queries import TaskFilter, count_tasks, find_tasks
from botapi.api.tasks import views
from botapi.concurrency import giving_way
from botapi.domain.filter_facts import TaskFacts
from botapi.domain.filter_language import passes
from botapi.domain.permissions import Caller, Permission
from botapi.domain.task import Task, TaskState, is_final
from botapi.store import codec
from botapi.store.protocol import Key

STATE_WORDS: Mapping[str, tuple[TaskState, ...]] = {
    "pending": (TaskState.PENDING,),
    "running": (TaskState.RUNNING,),
    "final": tuple(state for state in TaskState if is_final(state)),
} | {str(state): (state,) for state in TaskState}
PARAMETERS = ("q", "state", "tag", "bot", "user", "from", "to", "count", "limit", "cursor")
BOT_PARAMETERS = tuple(name for name in PARAMETERS if name != "bot")


def listed(parts: ApiParts, caller: Caller, query: Query) -> Json:
    """One page of tasks of pools that the caller may list, newest first."""
    queries.check_names(query, PARAMETERS)
    plan = planned(parts, query)
    tags = access.confined(caller, Permission.LIST_TASKS, plan.asked.tags)
    return _page(parts, query, replace(plan, asked=replace(plan.asked, tags=tags)), "tasks")


def of_bot(parts: ApiParts, bot_id: str, query: Query) -> Json:
    """One page of the tasks that a bot ran or runs, newest first."""
    queries.check_names(query, BOT_PARAMETERS)
    asked = replace(asked_by(query), bots=frozenset({bot_id}))
    plan = filters.plan_tasks(asked, query, parts.clock.now_ms())
    return _page(parts, query, plan, f"tasks of {bot_id}")


def planned(parts: ApiParts, query: Query) -> filters.TaskPlan:
    """What `GET /tasks` is asked for, without looking. Raises Refusal."""
    return filters.plan_tasks(asked_by(query), query, parts.clock.now_ms())


def _page(parts: ApiParts, query: Query, plan: filters.TaskPlan, listing: str) -> Json:
    sieve = _sieve(parts, plan) if plan.rest.parts else None
    after = cursors.read_cursor(parts, listing, query)
    limit = queries.page_limit(query)
    counted = filters.count(
        query, sieve, lambda: count_tasks(parts, plan.asked), task_queries.COUNTED
    )
    if sieve is not None:
        tasks, next_after = sieve.page(after, limit)
    else:
        tasks, next_after = find_tasks(parts, plan.asked, after=after, limit=limit)
    found: Json = {
        "items": views(parts, tasks),
        "next_cursor": cursors.next_cursor(parts, listing, query, next_after),
    }
    return found | (counted.as_json() if counted else {})


def _sieve(parts: ApiParts, plan: filters.TaskPlan) -> filters.Sieve[Task]:
    now_ms = parts.clock.now_ms()

    def find(after: Key | None, limit: int) -> tuple[list[Task], Key | None]:
        return find_tasks(parts, plan.asked, after=after, limit=limit)

    def keep(tasks: list[Task]) -> list[Task]:
        def look() -> list[Task]:
            return [
                task for task in giving_way(tasks) if passes(plan.rest, TaskFacts(task, now_ms))
            ]

        return parts.concurrency.native(look)

    return filters.Sieve(find, keep, lambda task: codec.task_key(task.task_id))


def asked_by(query: Query) -> TaskFilter:
    """The filter that the parameters beside `q` make. Raises Refusal."""
    states = queries.given(query, "state")
    for word in states:
        if word not in STATE_WORDS:
            raise refuse("?state", f'"{word[:40]}" is no state; use {", ".join(STATE_WORDS)}')
    tags = queries.given(query, "tag")
    for tag in tags:
        if ":" not in tag:
            raise refuse("?tag", f'"{tag[:80]}" has no colon; write key:value')
    asked = TaskFilter(
        states=frozenset(state for word in states for state in STATE_WORDS[word]),
        tags=tuple(frozenset({tag}) for tag in tags),
        bots=frozenset(queries.given(query, "bot")),
        users=frozenset(queries.given(query, "user")),
        start_ms=queries.time_ms(query, "from"),
        end_ms=queries.time_ms(query, "to"),
    )
    if filters.size_of_tasks(asked) > queries.MAX_ALTERNATIVES:
        raise refuse("the query", f"more than {queries.MAX_ALTERNATIVES} values; ask for fewer")
    return asked
