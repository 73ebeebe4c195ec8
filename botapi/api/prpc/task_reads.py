"""Single tasks: how they stand, what was asked for, what they printed (prpc-api 6.2 to 6.10)."""

from collections.abc import Sequence
from dataclasses import dataclass

from swarmingpb import swarming_pb2 as pb
from swarmingpb.status_pb2 import Status

from botapi.api import access
from botapi.api.outputs import stored_output
from botapi.api.parts import MANY
from botapi.api.prpc.call import Call
from botapi.api.prpc.errors import INSTEAD, NUMBERS
from botapi.api.prpc.paging import bad
from botapi.api.prpc.task_messages import STATES, request_message, result_message
from botapi.concurrency import giving_way
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.permissions import Permission
from botapi.domain.task import Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, StoreError

MAX_IDS = 1_000
"""Most tasks of one `BatchGetResult` or `ListTaskStates`."""
MAX_OUTPUT = 16_384_000
"""Most bytes of one `GetStdout` (bot-api 5.4)."""
REPORTED = frozenset(
    {TaskState.COMPLETED, TaskState.TIMED_OUT, TaskState.KILLED, TaskState.CLIENT_ERROR}
)
"""The states whose end a bot reported: only these have statistics (prpc-api 4)."""


@dataclass(frozen=True, slots=True)
class Known:
    """A task that is there, and what was asked for."""

    task: Task
    request: TaskRequest


def get_result(call: Call, asked: pb.TaskIdWithPerfRequest) -> pb.TaskResultResponse:
    """How a task stands (prpc-api 6.2)."""
    task = known_task(call, asked.task_id, Permission.TASKS_GET).task
    (reply,) = results([task], with_stats=asked.include_performance_stats)
    return reply


def get_request(call: Call, asked: pb.TaskIdRequest) -> pb.TaskRequestResponse:
    """What was asked for (prpc-api 6.4)."""
    return request_message(known_task(call, asked.task_id, Permission.TASKS_GET).request)


def batch_get_result(call: Call, asked: pb.BatchGetResultRequest) -> pb.BatchGetResultResponse:
    """Many at once, each with a result or an error of its own (prpc-api 6.3)."""
    task_ids = _distinct(asked.task_ids)

    def build() -> pb.BatchGetResultResponse:
        found = _outcomes(call, task_ids)
        tasks = [each.task for each in found if isinstance(each, Known)]
        replies = iter(results(tasks, with_stats=asked.include_performance_stats))
        item = pb.BatchGetResultResponse.ResultOrError
        return pb.BatchGetResultResponse(
            results=[
                item(task_id=text, result=next(replies))
                if isinstance(each, Known)
                else item(task_id=text, error=_status(each))
                for text, each in zip(asked.task_ids, found, strict=True)
            ]
        )

    return call.parts.concurrency.native(build) if len(task_ids) > MANY else build()


def list_task_states(call: Call, asked: pb.TaskStatesRequest) -> pb.TaskStates:
    """The states alone; the first that fails, fails the call (prpc-api 6.10)."""
    task_ids = _distinct(asked.task_id)

    def build() -> pb.TaskStates:
        states = []
        for text, each in zip(asked.task_id, _outcomes(call, task_ids), strict=True):
            if isinstance(each, Refusal):
                raise Refusal(each.code, f"{text}: {each.message}")
            states.append(STATES[each.task.state])
        return pb.TaskStates(states=states)

    return call.parts.concurrency.native(build) if len(task_ids) > MANY else build()


def get_stdout(call: Call, asked: pb.TaskIdWithOffsetRequest) -> pb.TaskOutputResponse:
    """What a task printed, from any byte on: as much of the length asked for as there is.

    The state is read before the output: with a final state come the last bytes (prpc-api 6.7).
    """
    if not asked.task_id:
        raise bad("task_id is missing")
    if asked.offset < 0 or asked.length < 0:
        raise bad("offset and length must not be negative")
    task = known_task(call, asked.task_id, Permission.TASKS_GET).task
    printed_by = parse_task_id(task.deduped_from or task.task_id)
    length = min(asked.length or MAX_OUTPUT, MAX_OUTPUT)
    output = call.parts.concurrency.native(
        lambda: stored_output(call.parts, printed_by, asked.offset, length)
    )
    return pb.TaskOutputResponse(output=output, state=STATES[task.state])


def known_task(call: Call, text: str, permission: Permission) -> Known:
    """The task of this id, if the caller may (prpc-api 2.1).

    Raises Refusal: INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, in this order.
    """
    key = codec.task_key(_canonical(text))
    (task,), (request,) = (call.parts.store.get(kind, key) for kind in (codec.TASK, codec.REQ))
    found = _outcome(call, task, request, permission)
    if isinstance(found, Refusal):
        raise found
    return found


def results(
    tasks: Sequence[Task], *, with_stats: bool, with_cost: bool = False
) -> list[pb.TaskResultResponse]:
    """The tasks as messages, in the same order; `with_cost` as in `result_message`."""
    return [
        result_message(
            task,
            task.performance if with_stats and task.state in REPORTED else None,
            with_cost=with_cost,
        )
        for task in giving_way(tasks)
    ]


def _distinct(texts: Sequence[str]) -> list[str]:
    """The task ids in a list. Raises Refusal for none, too many, a bad one, or one twice."""
    if not 1 <= len(texts) <= MAX_IDS:
        raise bad(f"task ids: {len(texts)} are given, not from 1 to {MAX_IDS}")
    seen: dict[str, None] = {}
    for text in texts:
        task_id = _canonical(text)
        if task_id in seen:
            raise bad(f"task ids: {text} is given twice")
        seen[task_id] = None
    return list(seen)


def _canonical(text: str) -> str:
    if not text:
        raise bad("task_id is missing")
    try:
        return parse_task_id(text)
    except ValueError:
        raise bad(f'"{text[:40]}" is no task id') from None


def _outcomes(call: Call, task_ids: Sequence[str]) -> list[Known | Refusal]:
    """Of each what can be told of it; trouble of the store is that of every one."""
    keys = [codec.task_key(task_id) for task_id in task_ids]
    try:
        tasks = call.parts.store.get(codec.TASK, *keys)
        requests = call.parts.store.get(codec.REQ, *keys)
    except StoreError as error:
        return [Refusal(Code.INTERNAL, f"the store: {error}")] * len(keys)
    pairs = zip(tasks, requests, strict=True)
    return [
        _outcome(call, task, request, Permission.TASKS_GET) for task, request in giving_way(pairs)
    ]


def _outcome(
    call: Call, task: Doc | None, request: Doc | None, permission: Permission
) -> Known | Refusal:
    if task is None or request is None:
        return Refusal(Code.NOT_FOUND, "no such task")
    known = Known(codec.read_task(task), codec.read_request(request))
    try:
        access.check_task(call.parts, call.caller, permission, known.request)
    except Refusal as refusal:
        return refusal
    return known


def _status(refusal: Refusal) -> Status:
    message = INSTEAD.get(refusal.code, refusal.message)
    return Status(code=NUMBERS[refusal.code], message=message)
