"""Cancel a pending task, kill a running one (bot-api 5.9)."""

from dataclasses import dataclass, replace

from botapi.domain.task import Task, TaskState, check_transition
from botapi.store import codec
from botapi.store.protocol import Store, Txn
from botapi.transactions.create_task import EXPIRE


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
        if task.state is TaskState.PENDING:
            check_transition(task.state, TaskState.CANCELED)
            new = replace(
                task,
                state=TaskState.CANCELED,
                modified_ms=now_ms,
                completed_ms=now_ms,
                abandoned_ms=now_ms,
            )
            deadline = codec.read_request(req).deadline_ms(task.slice_index)
            txn.delete(codec.PEND, task.pend_key)
            txn.delete(codec.OFFER, key)
            txn.delete(codec.DUE, codec.due_key(deadline, EXPIRE, task.task_id))
        elif task.state is TaskState.RUNNING and kill_running and not task.killing:
            new = replace(task, killing=True, abandoned_ms=now_ms, modified_ms=now_ms)
        else:
            return Canceled(canceled=False, was_running=task.state is TaskState.RUNNING, task=task)
        txn.put(codec.TASK, codec.task_doc(new, was))
        txn.notify(f"task!{task.task_id}")
        txn.put(
            codec.AUDIT,
            codec.audit_doc(
                at_ms=now_ms,
                entry_id=actor.entry_id,
                actor=actor.name,
                verb="task.kill" if new.killing else "task.cancel",
                target=f"task {task.task_id}",
                reason=actor.reason,
                before=task.state,
                after=new.state,
            ),
        )
        return Canceled(canceled=True, was_running=new.killing, task=new)

    return store.transact(work, label="cancel_task")
