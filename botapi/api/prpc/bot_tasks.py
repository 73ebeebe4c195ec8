"""`ListBotTasks`: the runs of one bot, by one of three times (prpc-api 5.5)."""

from collections.abc import Mapping

from swarmingpb.swarming_pb2 import BotTasksRequest, SortQuery, StateQuery, TaskListResponse

from botapi.api import access
from botapi.api.parts import MANY
from botapi.api.prpc import paging
from botapi.api.prpc.call import Call
from botapi.api.prpc.paging import bad
from botapi.api.prpc.task_listings import STATES
from botapi.api.prpc.task_reads import results
from botapi.api.prpc.values import timestamp
from botapi.api.task_queries import TaskFilter, find_bot_tasks, find_tasks
from botapi.domain.names import bot_id_problem
from botapi.domain.permissions import Permission
from botapi.domain.task import Task
from botapi.store import codec
from botapi.store.codec import RunTime
from botapi.store.protocol import Key

NEVER_RAN = frozenset(
    {
        StateQuery.QUERY_PENDING,
        StateQuery.QUERY_PENDING_RUNNING,
        StateQuery.QUERY_EXPIRED,
        StateQuery.QUERY_DEDUPED,
        StateQuery.QUERY_NO_RESOURCE,
        StateQuery.QUERY_CANCELED,
    }
)
"""Filters that no run of a bot can match."""
COLUMNS: Mapping[SortQuery.ValueType, RunTime] = {
    SortQuery.QUERY_STARTED_TS: RunTime.STARTED,
    SortQuery.QUERY_COMPLETED_TS: RunTime.COMPLETED,
}


def list_bot_tasks(call: Call, asked: BotTasksRequest) -> TaskListResponse:
    """One page of a bot's runs, latest first; none for a bot nobody knows."""
    if not asked.bot_id:
        raise bad("bot_id is required")
    parts, limit = call.parts, paging.page_limit(asked.limit)
    _check_state_and_sort(asked)
    listing = f"ListBotTasks {asked.sort} {asked.bot_id}"
    after = paging.read_cursor(parts, listing, asked.cursor)
    access.check_bot(parts, call.caller, Permission.LIST_TASKS, asked.bot_id)
    found = TaskListResponse(now=timestamp(parts.clock.now_ms()))
    fetch = _by_run_time if asked.sort in COLUMNS else _by_creation

    def fill() -> None:
        tasks, last = fetch(call, asked, after, limit)
        with_stats = asked.include_performance_stats
        found.items.extend(results(tasks, with_stats=with_stats, with_cost=True))
        found.cursor = paging.next_cursor(parts, listing, last, len(tasks) == limit)

    if limit > MANY:
        parts.concurrency.native(fill)
    else:
        fill()
    return found


def _check_state_and_sort(asked: BotTasksRequest) -> None:
    state, sort = StateQuery.Name(asked.state), SortQuery.Name(asked.sort)
    if asked.state in NEVER_RAN:
        raise bad(f"state {state} matches no task that ran on a bot")
    if asked.sort not in {*COLUMNS, SortQuery.QUERY_CREATED_TS}:
        raise bad(f"sort {sort} is not possible here")
    if asked.sort in COLUMNS and asked.state != StateQuery.QUERY_ALL:
        raise bad(f"sort {sort} is possible with state QUERY_ALL only, not {state}")


def _by_creation(
    call: Call, asked: BotTasksRequest, after: Key | None, limit: int
) -> tuple[list[Task], Key]:
    """The tasks, and the key of the last one."""
    start_ms, end_ms = paging.creation_range(asked)
    paging.check_task_cursor(after, start_ms, end_ms)
    states, only = STATES[asked.state]
    wanted = TaskFilter(
        bots=frozenset({asked.bot_id}),
        states=states,
        only=only,
        start_ms=start_ms,
        end_ms=end_ms,
    )
    tasks, _ = find_tasks(call.parts, wanted, after=after, limit=limit)
    return tasks, codec.task_key(tasks[-1].task_id) if tasks else ""


def _by_run_time(
    call: Call, asked: BotTasksRequest, after: Key | None, limit: int
) -> tuple[list[Task], Key]:
    span = paging.time_range(asked)
    if span is None or bot_id_problem(asked.bot_id):
        return [], ""
    column = COLUMNS[asked.sort]
    tasks, _ = find_bot_tasks(
        call.parts,
        asked.bot_id,
        column,
        start_ms=span[0],
        end_ms=span[1],
        after=after,
        limit=limit,
    )
    return tasks, codec.run_time_key(tasks[-1], column) if tasks else ""
