"""`swarming.v2.Tasks`: its methods, and those of them that change a single task (prpc-api 6)."""

from collections.abc import Mapping

from swarmingpb import swarming_pb2 as pb

from botapi.api import access
from botapi.api.new_tasks import make_task
from botapi.api.prpc import task_listings, task_reads
from botapi.api.prpc.call import Call, Handler
from botapi.api.prpc.new_task_messages import asked_task
from botapi.api.prpc.task_messages import request_message, result_message
from botapi.domain.errors import Code, Refusal
from botapi.domain.new_task import check_pool
from botapi.domain.permissions import Permission
from botapi.transactions.cancel_task import Actor, cancel_task


def new_task(call: Call, message: pb.NewTaskRequest) -> pb.TaskRequestMetadataResponse:
    """Make a task, or only say what it would be (prpc-api 6.1)."""
    asked = asked_task(message)
    if asked.problem is not None:
        pool = check_pool(asked.new)
        access.check_pools(call.caller, Permission.CREATE_TASK, [pool])
        raise asked.problem
    made = make_task(call.parts, call.caller, asked.new, evaluate_only=message.evaluate_only)
    return pb.TaskRequestMetadataResponse(
        task_id=made.request.task_id,
        request=request_message(made.request),
        task_result=None if made.task is None else result_message(made.task),
    )


def cancel_one(call: Call, asked: pb.TaskCancelRequest) -> pb.CancelResponse:
    """End a pending task; with `kill_running` also a running one (prpc-api 6.5)."""
    task = task_reads.known_task(call, asked.task_id, Permission.TASKS_CANCEL).task
    actor = Actor(call.caller.name, "", call.parts.new_id())
    done = cancel_task(
        call.parts.store,
        task.task_id,
        actor,
        kill_running=asked.kill_running,
        now_ms=call.parts.clock.now_ms(),
    )
    if done is None:
        raise Refusal(Code.NOT_FOUND, "no such task")
    return pb.CancelResponse(canceled=done.canceled, was_running=done.was_running)


METHODS: Mapping[str, Handler] = {
    "NewTask": new_task,
    "GetResult": task_reads.get_result,
    "BatchGetResult": task_reads.batch_get_result,
    "GetRequest": task_reads.get_request,
    "CancelTask": cancel_one,
    "CancelTasks": task_listings.cancel_tasks,
    "GetStdout": task_reads.get_stdout,
    "ListTasks": task_listings.list_tasks,
    "ListTaskRequests": task_listings.list_task_requests,
    "ListTaskStates": task_reads.list_task_states,
    "CountTasks": task_listings.count_all,
}
"""By name on the wire."""
