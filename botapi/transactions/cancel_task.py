"""Cancel a pending task, kill a running one (bot-api 5.9)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from botapi.domain.task import Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Key, Store, Txn
from botapi.transactions.end_pending import stage_end_pending
from botapi.transactions.follow_up import CANCEL, stage_children, stage_now

PARENT_ENDED = "its parent task has ended"


@dataclass(frozen=True, slots=True)
class Canceled:
    """The two flags of bot-api 5.9, and the task as it is now."""

    canceled: bool
    was_running: bool
    task: Task


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, why, and the id of the audit entry that says so."""

    name: str
    reason: str
    entry_id: str


def cancel_task(
    store: Store, task_id: str, actor: Actor, *, kill_running: bool, now_ms: int
) -> Canceled | None:
    """A pending task ends at once; a running one is told to stop. None: no such task."""
    key = codec.task_key(task_id)
    audit_key = codec.audit_key(now_ms, actor.entry_id)

    def work(txn: Txn) -> Canceled | None:
        was, req, done = (
            *txn.get(codec.TASK, key),
            *txn.get(codec.REQ, key),
            *txn.get(codec.AUDIT, audit_key),
        )
        if was is None or req is None:
            return None
        task = codec.read_task(was)
        if done is not None:
            return Canceled(canceled=True, was_running=bool(task.started_ms), task=task)
        known = task, was
        after = _stage_cancel(txn, known, codec.read_request(req), now_ms, kill=kill_running)
        if after.canceled:
            _stage_audit(txn, actor, task, after.task, now_ms)
        return after

    return store.transact(work, label="cancel_task")


def cancel_child(store: Store, task_id: str, parent_run_id: str, now_ms: int) -> Canceled | None:
    """Cancel or kill a task because its parent has ended; None when it is not its child."""
    key = codec.task_key(task_id)

    def work(txn: Txn) -> Canceled | None:
        was, req = (*txn.get(codec.TASK, key), *txn.get(codec.REQ, key))
        if was is None or req is None:
            return None
        request = codec.read_request(req)
        if request.parent_task_id != parent_run_id:
            return None
        known = codec.read_task(was), was
        return _stage_cancel(txn, known, request, now_ms, kill=True, policy=PARENT_ENDED)

    return store.transact(work, label="cancel_child")


def kill_run(store: Store, task_id: str, started_ms: int, now_ms: int, why: str) -> bool:
    """Tell a run to stop because of a rule of ours; False when it is not going on, or told."""
    key = codec.task_key(task_id)

    def work(txn: Txn) -> bool:
        was, req = (*txn.get(codec.TASK, key), *txn.get(codec.REQ, key))
        if was is None or req is None or codec.read_task(was).started_ms != started_ms:
            return False
        known = codec.read_task(was), was
        request = codec.read_request(req)
        return _stage_cancel(txn, known, request, now_ms, kill=True, policy=why).canceled

    return store.transact(work, label="kill_run")


def _stage_cancel(
    txn: Txn,
    known: tuple[Task, Doc],
    request: TaskRequest,
    now_ms: int,
    *,
    kill: bool,
    policy: str = "",
) -> Canceled:
    """The table of bot-api 5.9. `policy` is the rule that asks, empty when a person does."""
    task, was = known
    if task.state is TaskState.PENDING:
        state, by_policy = TaskState.CANCELED, bool(policy)
        ended = stage_end_pending(
            txn, known, request, state, now_ms, policy, stopped_by_policy=by_policy
        )
        return Canceled(canceled=True, was_running=False, task=ended)
    is_running = task.state is TaskState.RUNNING
    if not is_running or not kill or task.killing:
        return Canceled(canceled=False, was_running=is_running, task=task)
    killed = replace(
        task,
        killing=True,
        abandoned_ms=now_ms,
        modified_ms=now_ms,
        stopped_by_policy=bool(policy),
        error=policy,
    )
    txn.put(codec.TASK, codec.task_doc(killed, was))
    txn.notify(f"task!{task.task_id}")
    stage_children(txn, killed, now_ms)
    return Canceled(canceled=True, was_running=True, task=killed)


def _stage_audit(txn: Txn, actor: Actor, before: Task, after: Task, now_ms: int) -> None:
    entry = codec.audit_doc(
        at_ms=now_ms,
        entry_id=actor.entry_id,
        actor=actor.name,
        verb="task.kill" if after.killing else "task.cancel",
        target=f"task {after.task_id}",
        reason=actor.reason,
        before=before.state,
        after=after.state,
    )
    txn.put(codec.AUDIT, entry)


@dataclass(frozen=True, slots=True)
class CancelBatch:
    """Cancellations that somebody asked for at once, as they wait in the queue."""

    task_ids: tuple[str, ...]
    kill_running: bool
    actor: str
    reason: str
    entry_id: str
    asked_ms: int


def queue_cancels(store: Store, batch: CancelBatch) -> None:
    """Have these tasks canceled soon, whatever becomes of this process (prpc-api 6.6).

    The wish is audited here, each task that is really canceled again when it is.
    """
    audit = codec.audit_doc(
        at_ms=batch.asked_ms,
        entry_id=batch.entry_id,
        actor=batch.actor,
        verb="tasks.kill" if batch.kill_running else "tasks.cancel",
        target=f"{len(batch.task_ids)} tasks",
        reason=batch.reason,
        before="",
        after="",
    )
    first = batch.task_ids[0]

    def work(txn: Txn) -> None:
        (done,) = txn.get(codec.AUDIT, audit.key)
        if done is not None:
            return
        txn.put(codec.AUDIT, audit)
        body = {
            "tasks": list(batch.task_ids),
            "kill_running": batch.kill_running,
            "actor": batch.actor,
            "reason": batch.reason,
            "entry_id": batch.entry_id,
        }
        stage_now(txn, f"{CANCEL}-{batch.entry_id}", first, batch.asked_ms, body)

    store.transact(work, label="queue_cancels")


def read_cancel_batch(due: Doc, key_parts: Sequence[Key]) -> CancelBatch:
    """The batch in a timer of `queue_cancels`; `key_parts` are the components of its key."""
    body = due.body
    return CancelBatch(
        task_ids=tuple(body["tasks"]),
        kill_running=body["kill_running"],
        actor=body["actor"],
        reason=body["reason"],
        entry_id=body["entry_id"],
        asked_ms=int(key_parts[1]),
    )
