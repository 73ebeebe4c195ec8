"""What ends and wishes of many set in motion: children, retries, cancellations in numbers.

Each item is written down as a timer (`transactions.follow_up`); it is done in steps that
may be repeated, and only then is the timer removed.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from botapi.clock import Rng
from botapi.domain.names import MAX_DRAWS, new_request_id, run_id, task_id
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Store, split_key
from botapi.store.walk import find_all
from botapi.transactions.cancel_task import (
    Actor,
    cancel_child,
    cancel_task,
    read_cancel_batch,
)
from botapi.transactions.create_task import TaskIdTaken
from botapi.transactions.delete_task import forget_due
from botapi.transactions.follow_up import CANCEL, CHILDREN, RETRY
from botapi.transactions.retry_task import retry_task

CHILDREN_AT_ONCE = 300
"""Children looked up at a time (bot-api 5.9)."""

_ACTIVE = frozenset({f"st:{TaskState.PENDING}", f"st:{TaskState.RUNNING}"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FollowUps:
    """Does what is due. What raises is done again in a later round: its timer stays."""

    store: Store
    rng: Rng
    now_ms: Callable[[], int]

    def act(self, due: Doc) -> bool:
        """Do one timer; False when it is of another kind. StoreError leaves it for later."""
        what = split_key(due.key)[2]
        if what == CHILDREN:
            self._cancel_children(due)
        elif what == RETRY:
            self._retry(due)
        elif what.startswith(f"{CANCEL}-"):
            self._cancel_many(due)
        else:
            return False
        return True

    def _cancel_children(self, due: Doc) -> None:
        parent = run_id(split_key(due.key)[3])
        for child in list(self._children(parent)):
            done = cancel_child(self.store, child.task_id, parent, self.now_ms())
            if done is not None and done.canceled:
                log.info("task %s: canceled because %s has ended", child.task_id, parent)
        forget_due(self.store, due.key)

    def _children(self, parent: str) -> Iterator[Task]:
        tags = [frozenset({f"t:parent_task_id:{parent}"}), _ACTIVE]
        found = find_all(self.store, codec.TASK, tags, limit=CHILDREN_AT_ONCE)
        return map(codec.read_task, found)

    def _retry(self, due: Doc) -> None:
        of = split_key(due.key)[3]
        for _ in range(MAX_DRAWS):
            now_ms = self.now_ms()
            new_id = task_id(new_request_id(now_ms, self.rng.randbits(16)))
            try:
                made = retry_task(self.store, of, new_id, due.key, now_ms)
            except TaskIdTaken:
                continue
            if made is not None:
                log.info("task %s: tried again as %s", of, made.task_id)
            return

    def _cancel_many(self, due: Doc) -> None:
        batch = read_cancel_batch(due, split_key(due.key))
        for number, of in enumerate(batch.task_ids):
            actor = Actor(batch.actor, batch.reason, f"{batch.entry_id}-{number}")
            cancel_task(
                self.store, of, actor, kill_running=batch.kill_running, now_ms=self.now_ms()
            )
        forget_due(self.store, due.key)
