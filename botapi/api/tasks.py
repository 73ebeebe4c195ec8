"""Tasks: made, read, listed, waited for, canceled."""

from collections.abc import Collection, Sequence

import msgspec

from botapi.api import queries
from botapi.api.bodies import Body
from botapi.api.capacity import NoCapacity
from botapi.api.parts import MANY, ApiParts, Json
from botapi.api.queries import refuse
from botapi.api.task_request import TaskBody, task_request
from botapi.api.views import task_view
from botapi.api.why import Reasons
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_request_uuid, new_request_id, parse_task_id
from botapi.domain.names import task_id as name_of
from botapi.domain.pool_rules import under_pool_rules
from botapi.domain.service_accounts import settled
from botapi.domain.task import OutputPosition, Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.create_task import Also, Created, TaskIdTaken, create_task, created_before

MAX_COLLECTED = 1_000
MAX_DRAWS = 50
"""Ids drawn before giving up: 65,536 are there for each millisecond."""


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
    parts: ApiParts, actor: str, body: TaskBody, idempotency_key: str, wait_s: float = 0.0
) -> tuple[Json, bool]:
    """The task, and whether it is new. Raises Refusal, NoCapacity among them."""
    if idempotency_key and not is_request_uuid(idempotency_key):
        raise refuse("Idempotency-Key", "is not 1 to 50 of A-Z a-z 0-9 - _ /")
    made, request = _create(parts, actor, body, idempotency_key)
    if wait_s or not made.is_new:
        return read(parts, made.task.task_id, wait_s), made.is_new
    why = Reasons(parts).why(made.task, request, None)
    return task_view(made.task, request, OutputPosition(), why), True


def _create(
    parts: ApiParts, actor: str, body: TaskBody, idempotency_key: str
) -> tuple[Created, TaskRequest]:
    """What became of it, and the request as it was stored if it is new."""
    for draw in range(MAX_DRAWS):
        now_ms = parts.clock.now_ms()
        task_id = name_of(new_request_id(now_ms, parts.rng.randbits(16)))
        request = task_request(body, task_id, actor, now_ms)
        pools = parts.config.cached().pools
        request = under_pool_rules(settled(request, pools), pools)
        before = _check_capacity(parts, request, idempotency_key) if draw == 0 else None
        if before is not None:
            return Created(before, is_new=False), request
        entry_id = parts.new_id()
        try:
            made = create_task(
                parts.store,
                request,
                request_uuid=idempotency_key,
                nonce=entry_id,
                also=_audit(request, actor, entry_id),
            )
        except TaskIdTaken:
            continue
        return made, request
    raise Refusal(Code.RESOURCE_EXHAUSTED, "no free task id in this moment; try again")


def _check_capacity(parts: ApiParts, request: TaskRequest, idempotency_key: str) -> Task | None:
    """Raise NoCapacity, unless this key has made a task before, when there were bots."""
    try:
        parts.capacity.check(request.slices)
    except NoCapacity:
        made = (request.authenticated, idempotency_key, request.created_ms)
        before = created_before(parts.store, *made)
        if before is None:
            raise
        return before
    return None


def _audit(request: TaskRequest, actor: str, entry_id: str) -> Also:
    entry = codec.audit_doc(
        at_ms=request.created_ms,
        entry_id=entry_id,
        actor=actor,
        verb="task.create",
        target=f"task {request.task_id}",
        reason="",
        before="",
        after=TaskState.PENDING,
    )
    return lambda txn: txn.put(codec.AUDIT, entry)


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
        outputs = [codec.output_position_key(task.task_id) for task in tasks]
        requests = parts.store.get(codec.REQ, *keys)
        positions = parts.store.get(codec.OUTPOS, *outputs)
        return [
            task_view(
                task,
                _request(task, doc),
                codec.read_output_position(position),
                reasons.get(task.task_id, ""),
            )
            for task, doc, position in zip(tasks, requests, positions, strict=True)
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


def collect(parts: ApiParts, body: CollectBody) -> Json:
    """Tasks in the order asked, when more than `known_final` of them are final."""
    if not 1 <= len(body.task_ids) <= MAX_COLLECTED:
        count = len(body.task_ids)
        raise refuse("/task_ids", f"has {count} entries, not from 1 to {MAX_COLLECTED}")
    if not 0 <= body.wait <= queries.MAX_WAIT_S:
        raise refuse("/wait", f"is {body.wait:g}, not from 0 to {queries.MAX_WAIT_S:g}")
    if not 0 <= body.known_final <= MAX_COLLECTED:
        raise refuse("/known_final", f"is {body.known_final}, not from 0 to {MAX_COLLECTED}")
    gathering = _Gathering(parts, [canonical(task_id) for task_id in body.task_ids])
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
