"""Tasks: made, read, listed, waited for, canceled."""

from collections.abc import Collection, Sequence

import msgspec

from botapi.api import access, queries
from botapi.api.bodies import Body
from botapi.api.new_tasks import make_task
from botapi.api.parts import MANY, ApiParts, Json
from botapi.api.queries import refuse
from botapi.api.task_request import TaskBody, form_of, new_task
from botapi.api.views import request_view, task_view
from botapi.api.why import Reasons
from botapi.concurrency import giving_way
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_request_uuid, parse_task_id
from botapi.domain.new_task import NewTask
from botapi.domain.permissions import Caller, Permission
from botapi.domain.task import OutputPosition, Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc
from botapi.transactions.cancel_task import Actor, cancel_task

MAX_COLLECTED = 1_000


class CollectBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /tasks/collect`."""

    task_ids: list[str]
    wait: float = 0.0
    known_final: int = 0


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /tasks/<id>/cancel`."""

    kill_running: bool = False
    reason: str = ""


TASK_BODY = Body(TaskBody)
COLLECT_BODY = Body(CollectBody)
CANCEL_BODY = Body(CancelBody)


def create(
    parts: ApiParts, caller: Caller, body: TaskBody, idempotency_key: str, wait_s: float = 0.0
) -> tuple[Json, bool]:
    """The task, and whether it is new. Raises Refusal, NoCapacity among them."""
    new = _asked(body, idempotency_key)
    made = make_task(
        parts,
        caller,
        new,
        form=form_of(body),
        check_capacity=lambda request: parts.capacity.check(request.slices),
    )
    if made.task is None or wait_s or not made.is_new or made.task.is_final:
        return read(parts, made.request.task_id, wait_s), made.is_new
    why = Reasons(parts).why(made.task, made.request, None)
    return task_view(made.task, made.request, OutputPosition(), why), True


def dry_run(parts: ApiParts, caller: Caller, body: TaskBody, idempotency_key: str) -> Json:
    """What would be stored, and how many known bots match each slice. Raises Refusal."""
    new = _asked(body, idempotency_key)
    made = make_task(parts, caller, new, form=form_of(body), evaluate_only=True)
    return {
        "request": request_view(made.request),
        "matching_bots": [parts.capacity.matching(slice_) for slice_ in made.request.slices],
    }


def _asked(body: TaskBody, idempotency_key: str) -> NewTask:
    if idempotency_key and not is_request_uuid(idempotency_key):
        raise refuse("Idempotency-Key", "is not 1 to 50 of A-Z a-z 0-9 - _ /")
    return new_task(body, idempotency_key)


def canonical(task_id: str) -> str:
    """The task id in a task or run id. Raises Refusal NOT_FOUND for anything else."""
    try:
        return parse_task_id(task_id)
    except ValueError:
        raise unknown(task_id) from None


def unknown(task_id: str) -> Refusal:
    """There is no such task."""
    return Refusal(Code.NOT_FOUND, f'there is no task "{task_id[:40]}"')


def stored(parts: ApiParts, task_id: str) -> Task:
    """The record of a task as it is now. Raises Refusal NOT_FOUND."""
    (doc,) = parts.store.get(codec.TASK, codec.task_key(task_id))
    if doc is None:
        raise unknown(task_id)
    return codec.read_task(doc)


def read(parts: ApiParts, task_id: str, wait_s: float = 0.0) -> Json:
    """One task, held until it is final or the time is over."""
    task_id = canonical(task_id)
    if wait_s:
        parts.waits.until([task_id], wait_s, lambda _changed: stored(parts, task_id).is_final)
    return views(parts, [stored(parts, task_id)])[0]


def views(parts: ApiParts, tasks: Sequence[Task]) -> list[Json]:
    """The tasks with everything that belongs to them, in the same order."""
    reasons = _reasons(parts, [task for task in tasks if task.state is TaskState.PENDING])

    def build() -> list[Json]:
        keys = [codec.task_key(task.task_id) for task in tasks]
        outputs = [codec.output_position_key(task.output_task_id) for task in tasks]
        requests = parts.store.get(codec.REQ, *keys)
        positions = parts.store.get(codec.OUTPOS, *outputs)
        return [
            task_view(
                task,
                _request(task, doc),
                codec.read_output_position(position),
                reasons.get(task.task_id, ""),
            )
            for task, doc, position in giving_way(zip(tasks, requests, positions, strict=True))
        ]

    return parts.concurrency.native(build) if len(tasks) > MANY else build()


def _reasons(parts: ApiParts, pending: Sequence[Task]) -> dict[str, str]:
    """Why each of these is pending, by task id."""
    reasons = Reasons(parts)
    keys = [codec.task_key(task.task_id) for task in pending]
    requests = parts.store.get(codec.REQ, *keys)
    offers = parts.store.get(codec.OFFER, *keys)
    return {
        task.task_id: reasons.why(task, _request(task, doc), offer)
        for task, doc, offer in zip(pending, requests, offers, strict=True)
    }


def _request(task: Task, doc: Doc | None) -> TaskRequest:
    """None only in the moment in which retention removes the task."""
    if doc is None:
        raise unknown(task.task_id)
    return codec.read_request(doc)


def collect(parts: ApiParts, caller: Caller, body: CollectBody) -> Json:
    """Tasks in the order asked, when more than `known_final` of them are final."""
    if not 1 <= len(body.task_ids) <= MAX_COLLECTED:
        count = len(body.task_ids)
        raise refuse("/task_ids", f"has {count} entries, not from 1 to {MAX_COLLECTED}")
    if not 0 <= body.wait <= queries.MAX_WAIT_S:
        raise refuse("/wait", f"is {body.wait:g}, not from 0 to {queries.MAX_WAIT_S:g}")
    if not 0 <= body.known_final <= MAX_COLLECTED:
        raise refuse("/known_final", f"is {body.known_final}, not from 0 to {MAX_COLLECTED}")
    task_ids = list(dict.fromkeys(canonical(task_id) for task_id in body.task_ids))
    access.check_tasks(parts, caller, Permission.TASKS_GET, task_ids)
    gathering = _Gathering(parts, task_ids)
    enough = min(body.known_final + 1, len(gathering.tasks))
    parts.waits.until(
        list(gathering.tasks), body.wait, lambda changed: gathering.look(changed) >= enough
    )
    found = {view["task_id"]: view for view in views(parts, gathering.known())}
    return {"items": [found[canonical(task_id)] for task_id in body.task_ids]}


class _Gathering:
    """Some tasks and what is known of them; a final one is read once."""

    def __init__(self, parts: ApiParts, task_ids: Collection[str]) -> None:
        self._parts = parts
        self.tasks: dict[str, Task | None] = dict.fromkeys(task_ids)
        self._final: set[str] = set()

    def known(self) -> list[Task]:
        """The tasks as they were when last read."""
        return [task for task in self.tasks.values() if task is not None]

    def look(self, changed: Collection[str]) -> int:
        """Read what may have changed; how many are final."""
        asked = [task_id for task_id in changed if task_id not in self._final]
        docs = self._parts.store.get(codec.TASK, *map(codec.task_key, asked))
        for task_id, doc in zip(asked, docs, strict=True):
            if doc is None:
                raise unknown(task_id)
            task = codec.read_task(doc)
            self.tasks[task_id] = task
            if task.is_final:
                self._final.add(task_id)
        return len(self._final)


def cancel(parts: ApiParts, task_id: str, actor: str, body: CancelBody) -> Json:
    """End a pending task; with `kill_running` also a running one."""
    asking = Actor(actor, queries.reason(body.reason), parts.new_id())
    done = cancel_task(
        parts.store,
        canonical(task_id),
        asking,
        kill_running=body.kill_running,
        now_ms=parts.clock.now_ms(),
    )
    if done is None:
        raise unknown(task_id)
    return {
        "canceled": done.canceled,
        "was_running": done.was_running,
        "task": views(parts, [done.task])[0],
    }
