"""What an end sets in motion, written down in the same transaction as the end.

Each is a timer: it survives every process. Most are due at once, and the sweeper that holds
the duty hears of them right after the commit. A retry waits until the process that had the
run can run it no more.
"""

from collections.abc import Mapping
from typing import Any

from botapi.domain.completion import deserves_retry
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Txn

CHILDREN = "children"
"""The task has ended or is being killed: its children are to be canceled (bot-api 5.9)."""
RETRY = "retry"
"""The infrastructure failed the task: it is to be made anew."""
CANCEL = "cancel"
"""Somebody wants many tasks canceled."""
TOPIC = "due!"
"""Begins the topic of every timer that is due at once."""


def stage_now(txn: Txn, what: str, task_id: str, now_ms: int, body: Mapping[str, Any]) -> None:
    """A timer that is due at once, and the hint that it is there."""
    txn.put(codec.DUE, Doc(codec.due_key(now_ms, what, task_id), body))
    txn.notify(f"{TOPIC}{what}")


def stage_children(txn: Txn, task: Task, now_ms: int) -> None:
    """Have the children of this task canceled, if it has any."""
    if task.has_children:
        stage_now(txn, CHILDREN, task.task_id, now_ms, {})


def stage_after_end(txn: Txn, task: Task, now_ms: int, may_run_on_s: float = 0.0) -> None:
    """What follows when this task has just ended: no children left, perhaps a retry.

    `may_run_on_s`: its bot may go on with it for so long, and then for its grace period.
    """
    stage_children(txn, task, now_ms)
    if task.state is not TaskState.BOT_DIED:
        return
    (doc,) = txn.get(codec.REQ, codec.task_key(task.task_id))
    request = None if doc is None else codec.read_request(doc)
    if request is None or not deserves_retry(task, request):
        return
    if not may_run_on_s:
        stage_now(txn, RETRY, task.task_id, now_ms, {})
        return
    wait_s = may_run_on_s + request.slices[task.slice_index].grace_period_s
    key = codec.due_key(now_ms + int(wait_s * 1000), RETRY, task.task_id)
    txn.put(codec.DUE, Doc(key, {}))
