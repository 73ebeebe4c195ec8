"""The end of a task that never ran: the only place where a PENDING task becomes final."""

from dataclasses import replace
from typing import Any

from botapi.domain.completion import end_pending
from botapi.domain.task import Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Txn
from botapi.transactions.counted import count_end
from botapi.transactions.create_task import EXPIRE
from botapi.transactions.follow_up import stage_after_end


def stage_end_pending(
    txn: Txn,
    known: tuple[Task, Doc],
    request: TaskRequest,
    state: TaskState,
    now_ms: int,
    error: str = "",
    **facts: Any,
) -> Task:
    """End it inside somebody's transaction that has read the task as PENDING.

    `facts` are further fields of the task: who is to blame, how late it was.
    """
    task, was = known
    ended = replace(end_pending(task, state, now_ms, error), **facts)
    stage_forget_slice(txn, task, request)
    txn.put(codec.TASK, codec.task_doc(ended, was))
    txn.notify(f"task!{task.task_id}")
    stage_after_end(txn, ended, now_ms)
    count_end(ended)
    return ended


def stage_forget_slice(txn: Txn, task: Task, request: TaskRequest) -> None:
    """Take the current slice out of its queue, with its offer and its timer."""
    txn.delete(codec.PEND, task.pend_key)
    txn.delete(codec.OFFER, codec.task_key(task.task_id))
    due = codec.due_key(request.deadline_ms(task.slice_index), EXPIRE, task.task_id)
    txn.delete(codec.DUE, due)
