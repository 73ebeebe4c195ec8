"""What an end sets in motion, written down in the same transaction as the end.

Each is a timer that is due at once: it survives every process, and the sweeper that holds
the duty hears of it right after the commit.
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


def stage_after_end(txn: Txn, task: Task, now_ms: int) -> None:
    """What follows when this task has just ended: no children left, perhaps a retry."""
    stage_children(txn, task, now_ms)
    if task.state is not TaskState.BOT_DIED:
        return
    (doc,) = txn.get(codec.REQ, codec.task_key(task.task_id))
    if doc is not None and deserves_retry(task, codec.read_request(doc)):
        stage_now(txn, RETRY, task.task_id, now_ms, {})
