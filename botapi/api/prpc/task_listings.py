"""Many tasks by what they are: listed, counted, canceled (prpc-api 6.6, 6.8, 6.9, 6.11)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swarmingpb import swarming_pb2 as pb

from botapi.api import access, ending
from botapi.api.parts import MANY
from botapi.api.prpc import paging
from botapi.api.prpc.call import Call
from botapi.api.prpc.paging import bad
from botapi.api.prpc.task_messages import request_message
from botapi.api.prpc.task_reads import results
from botapi.api.prpc.values import timestamp
from botapi.api.task_queries import Only, TaskFilter, count_tasks, find_tasks
from botapi.concurrency import giving_way
from botapi.domain.permissions import Permission
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.protocol import AnyOf, Key

T = TypeVar("T")
S = TaskState
Query = pb.StateQuery

STATES: Mapping[pb.StateQuery.ValueType, tuple[frozenset[TaskState], Only | None]] = {
    Query.QUERY_PENDING: (frozenset({S.PENDING}), None),
    Query.QUERY_RUNNING: (frozenset({S.RUNNING}), None),
    Query.QUERY_PENDING_RUNNING: (frozenset({S.PENDING, S.RUNNING}), None),
    Query.QUERY_COMPLETED: (frozenset({S.COMPLETED}), None),
    Query.QUERY_COMPLETED_SUCCESS: (frozenset({S.COMPLETED}), Only.SUCCESS),
    Query.QUERY_COMPLETED_FAILURE: (frozenset({S.COMPLETED}), Only.FAILURE),
    Query.QUERY_EXPIRED: (frozenset({S.EXPIRED}), None),
    Query.QUERY_TIMED_OUT: (frozenset({S.TIMED_OUT}), None),
    Query.QUERY_BOT_DIED: (frozenset({S.BOT_DIED}), None),
    Query.QUERY_CANCELED: (frozenset({S.CANCELED}), None),
    Query.QUERY_ALL: (frozenset(), None),
    Query.QUERY_DEDUPED: (frozenset({S.COMPLETED}), Only.DEDUPED),
    Query.QUERY_KILLED: (frozenset({S.KILLED}), None),
    Query.QUERY_NO_RESOURCE: (frozenset({S.NO_RESOURCE}), None),
    Query.QUERY_CLIENT_ERROR: (frozenset({S.CLIENT_ERROR}), None),
}
"""What each filter of states selects (prpc-api 2.5)."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """A page that may be had: every check has been passed."""

    asked: TaskFilter
    after: Key | None
    limit: int


def list_tasks(call: Call, asked: pb.TasksWithPerfRequest) -> pb.TaskListResponse:
    """How they stand, newest first (prpc-api 6.8)."""
    listing = _listing(call, asked, "ListTasks")

    def build() -> pb.TaskListResponse:
        tasks = _page(call, listing)
        with_stats = asked.include_performance_stats
        return pb.TaskListResponse(
            cursor=_next(call, "ListTasks", listing, tasks),
            items=results(tasks, with_stats=with_stats),
            now=timestamp(call.parts.clock.now_ms()),
        )

    return _off_loop(call, listing.limit, build)


def list_task_requests(call: Call, asked: pb.TasksRequest) -> pb.TaskRequestsResponse:
    """What was asked for, newest first (prpc-api 6.9)."""
    listing = _listing(call, asked, "ListTaskRequests")

    def build() -> pb.TaskRequestsResponse:
        tasks = _page(call, listing)
        keys = [codec.task_key(task.task_id) for task in tasks]
        docs = call.parts.store.get(codec.REQ, *keys) if keys else []
        return pb.TaskRequestsResponse(
            cursor=_next(call, "ListTaskRequests", listing, tasks),
            items=[
                request_message(codec.read_request(doc))
                for doc in giving_way(docs)
                if doc is not None
            ],
            now=timestamp(call.parts.clock.now_ms()),
        )

    return _off_loop(call, listing.limit, build)


def count_all(call: Call, asked: pb.TasksCountRequest) -> pb.TasksCount:
    """How many there are (prpc-api 6.11)."""
    if not asked.HasField("start"):
        raise bad("start is missing")
    tags = _tags(call, asked.tags, Permission.LIST_TASKS)
    now_ms = call.parts.clock.now_ms()
    start_ms, end_ms = paging.creation_range(asked)
    if not asked.HasField("end"):
        end_ms = now_ms
        if start_ms >= end_ms:
            raise bad("start must be before end, which is now")
    states, only = STATES[asked.state]
    wanted = TaskFilter(states=states, only=only, tags=tags, start_ms=start_ms, end_ms=end_ms)
    return pb.TasksCount(count=count_tasks(call.parts, wanted), now=timestamp(now_ms))


def cancel_tasks(call: Call, asked: pb.TasksCancelRequest) -> pb.TasksCancelResponse:
    """Have one page of pending tasks canceled soon, perhaps of running ones too (prpc-api 6.6)."""
    limit = paging.page_limit(asked.limit)
    if not asked.tags:
        raise bad("tags are missing; say which tasks are meant")
    after = paging.read_cursor(call.parts, "CancelTasks", asked.cursor)
    tags = _tags(call, asked.tags, Permission.CANCEL_TASK)
    start_ms, end_ms = paging.creation_range(asked)
    paging.check_task_cursor(after, start_ms, end_ms)
    done = ending.cancel_many(
        call.parts,
        call.caller,
        TaskFilter(tags=tags, start_ms=start_ms, end_ms=end_ms),
        limit=limit,
        after=after,
        kill_running=asked.kill_running,
        reason="",
    )
    is_full = done.matched == limit
    return pb.TasksCancelResponse(
        cursor=paging.next_cursor(call.parts, "CancelTasks", done.last, is_full),
        now=timestamp(call.parts.clock.now_ms()),
        matched=done.matched,
    )


def _listing(call: Call, asked: pb.TasksWithPerfRequest | pb.TasksRequest, method: str) -> _Listing:
    """The checks in the order of prpc-api 6.8."""
    limit = paging.page_limit(asked.limit)
    if asked.sort != pb.SortQuery.QUERY_CREATED_TS:
        raise bad("sort: tasks are listed by their creation only, QUERY_CREATED_TS")
    after = paging.read_cursor(call.parts, method, asked.cursor)
    tags = _tags(call, asked.tags, Permission.LIST_TASKS)
    start_ms, end_ms = paging.creation_range(asked)
    paging.check_task_cursor(after, start_ms, end_ms)
    states, only = STATES[asked.state]
    wanted = TaskFilter(states=states, only=only, tags=tags, start_ms=start_ms, end_ms=end_ms)
    return _Listing(wanted, after, limit)


def _tags(call: Call, texts: Sequence[str], permission: Permission) -> tuple[AnyOf, ...]:
    """The filter, if the caller may in every pool that it names."""
    tags = paging.tag_constraints(texts)
    access.check_pools(call.caller, permission, paging.pools_of(tags))
    return tags


def _page(call: Call, listing: _Listing) -> list[Task]:
    tasks, _ = find_tasks(call.parts, listing.asked, after=listing.after, limit=listing.limit)
    return tasks


def _next(call: Call, method: str, listing: _Listing, tasks: Sequence[Task]) -> str:
    """The cursor behind a full page."""
    is_full = len(tasks) == listing.limit
    key = codec.task_key(tasks[-1].task_id) if is_full else ""
    return paging.next_cursor(call.parts, method, key, is_full)


def _off_loop(call: Call, items: int, build: Callable[[], T]) -> T:
    return call.parts.concurrency.native(build) if items > MANY else build()
