"""A final task made anew because a person wants it: another task, that names the first."""

from dataclasses import replace

import msgspec

from botapi.api import access, queries, tasks
from botapi.api.bodies import Body
from botapi.api.new_tasks import Again, make_task
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import refuse
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_request_uuid
from botapi.domain.new_task import Form, NewTask, TemplateChoice
from botapi.domain.permissions import Caller, Permission
from botapi.domain.service_accounts import NONE
from botapi.domain.task import Slice, Task, TaskRequest
from botapi.domain.task_tags import all_tags

AS_IT_WAS = Form(min_timeout_s=1, may_be_unlimited=True)
"""What either API took once is taken again."""
VERSION_TAG = "swarming.pool.version:"


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /tasks/<id>/retry`."""

    same_bot: bool = False
    reason: str = ""


RETRY_BODY = Body(RetryBody)


def retry(
    parts: ApiParts, caller: Caller, task_id: str, body: RetryBody, idempotency_key: str
) -> tuple[Json, bool]:
    """The new task, and whether it is new; the caller makes it, with all checks of a new task.

    Raises Refusal: FAILED_PRECONDITION for a task that goes on or never had a bot, NOT_FOUND,
    and whatever a new task is refused for.
    """
    if not is_request_uuid(idempotency_key):
        raise refuse("Idempotency-Key", "is not 1 to 50 of A-Z a-z 0-9 - _ /")
    reason = queries.reason(body.reason)
    task = tasks.stored(parts, tasks.canonical(task_id))
    request = access.stored_request(parts, task_id)
    if request.slices[0].pool:
        access.check_pools(caller, Permission.CREATE_TASK, [request.slices[0].pool])
    _check(task, request, same_bot=body.same_bot)
    made = make_task(
        parts,
        caller,
        replace(
            new_task_of(request, task.bot_id if body.same_bot else ""), request_uuid=idempotency_key
        ),
        form=AS_IT_WAS,
        again=Again(task.task_id, request.secret_bytes_ref, reason),
    )
    return tasks.read(parts, made.request.task_id), made.is_new


def _check(task: Task, request: TaskRequest, *, same_bot: bool) -> None:
    if request.is_termination:
        said = "is a termination task; ask for another with POST /bots/<id>/terminate"
    elif not task.is_final:
        said = f"is {task.state}; only a task that has ended is tried again"
    elif same_bot and not task.bot_id:
        said = "never had a bot; leave same_bot out"
    else:
        return
    raise Refusal(Code.FAILED_PRECONDITION, f"task {task.task_id} {said}")


def new_task_of(request: TaskRequest, bot_id: str = "") -> NewTask:
    """What was asked for, to be asked again; with a bot id only that bot may have it.

    What the server had added is left out, for it is added again. It runs in any case, also
    when an earlier result could stand for it, and it has no parent: that one has moved on.
    """
    return NewTask(
        name=request.name,
        slices=tuple(_slice_again(slice_, bot_id) for slice_ in request.slices),
        priority=request.priority,
        tags=_own_tags(request),
        user=request.user,
        service_account="" if request.service_account == NONE else request.service_account,
        realm=request.realm,
        pubsub_topic=request.pubsub_topic,
        pubsub_auth_token=request.pubsub_auth_token,
        pubsub_userdata=request.pubsub_userdata,
        bot_ping_tolerance_s=request.bot_ping_tolerance_s,
        template=TemplateChoice.SKIP,
        secrets=request.secrets,
        max_retries=request.max_retries,
    )


def _slice_again(slice_: Slice, bot_id: str) -> Slice:
    dimensions = {**slice_.dimensions, "id": (bot_id,)} if bot_id else slice_.dimensions
    return replace(slice_, dimensions=dimensions, idempotent=False, properties_hash="")


def _own_tags(request: TaskRequest) -> tuple[str, ...]:
    """The tags that its author gave it."""
    added = set(all_tags(replace(request, tags=()), ""))
    return tuple(
        tag for tag in request.tags if tag not in added and not tag.startswith(VERSION_TAG)
    )
