"""Waiting for tasks: the server holds each call, so that a wait costs few of them.

The first calls are short, so that a person soon sees why a task is pending; later ones are
held as long as the server allows.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from botapi.ctl.exits import is_final
from botapi.ctl.http import WAIT_MAX_S, Client, segment

Json = dict[str, Any]

COLLECT_MAX = 1000
OUTPUT_PIECE_BYTES = 1 << 20
FIRST_HOLD_S = 1.0
PAUSE_S = 0.5


class OutOfTime(Exception):
    """The time that the caller allowed is over."""


@dataclass(slots=True)
class Patience:
    """How long the next call may be held: 1, 2, 4 ... 20 s, within the time allowed."""

    allowed_s: float | None
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = lambda seconds: threading.Event().wait(seconds)
    _hold_s: float = FIRST_HOLD_S
    _asked_at: float = field(init=False)
    _end_at: float | None = field(init=False)

    def __post_init__(self) -> None:
        self._asked_at = self.now()
        self._end_at = None if self.allowed_s is None else self._asked_at + self.allowed_s

    @property
    def is_over(self) -> bool:
        """Is the time that was allowed over?"""
        return self._end_at is not None and self.now() >= self._end_at

    def next_hold_s(self) -> int:
        """Whole seconds to ask the server for; 0 in the last moment."""
        left = WAIT_MAX_S if self._end_at is None else max(0.0, self._end_at - self.now())
        hold = min(self._hold_s, WAIT_MAX_S, ceil(left))
        self._hold_s *= 2
        self._asked_at = self.now()
        return int(hold)

    def was_vain(self) -> None:
        """The last call brought nothing: OutOfTime at the end, and no hurry before it.

        A server that does not hold its answers is not asked more than twice a second.
        """
        if self.is_over:
            raise OutOfTime
        if self.now() - self._asked_at < PAUSE_S:
            self.pause(PAUSE_S)


def until_final(
    client: Client, task_id: str, patience: Patience, saw: Callable[[Json], None]
) -> Json:
    """The task once it is final; `saw` gets every answer. OutOfTime when patience ends."""
    while True:
        task = read_task(client, task_id, patience.next_hold_s())
        saw(task)
        if is_final(task):
            return task
        patience.was_vain()


def read_task(client: Client, task_id: str, wait_s: int = 0) -> Json:
    """The task as it is now, or after `wait_s` seconds unless it is final earlier."""
    return client.get(f"task {task_id}", f"/tasks/{segment(task_id)}", wait_s=wait_s)


def collect(client: Client, task_ids: Sequence[str], known_final: int, wait_s: int) -> list[Json]:
    """Up to 1,000 tasks in the order asked, when more than `known_final` of them are final."""
    body = {"task_ids": list(task_ids), "wait": wait_s, "known_final": known_final}
    items: list[Json] = client.ask("collect", "/tasks/collect", body, wait_s)["items"]
    return items


def output_pieces(
    client: Client,
    task_id: str,
    patience: Patience | None,
    idle: Callable[[str], None],
    offset: int = 0,
) -> Iterator[bytes]:
    """A task's output from `offset` on, piece by piece.

    With `patience` until the task is final (OutOfTime before), else what is there now.
    `idle` gets the task's state when a call brought nothing.
    """
    while True:
        hold_s = patience.next_hold_s() if patience else 0
        answer = client.read(
            f"output of {task_id}",
            f"/tasks/{segment(task_id)}/output",
            [("offset", offset), ("limit", OUTPUT_PIECE_BYTES)],
            hold_s,
        )
        offset = int(answer.headers.get("X-Skep-Next-Offset", offset + len(answer.body)))
        state = answer.headers.get("X-Skep-Task-State", "")
        if answer.body:
            yield answer.body
        if answer.headers.get("X-Skep-Final") == "1":
            return
        if patience is None:
            if not answer.body or (_is_short(answer.body) and not is_final({"state": state})):
                return
        elif not answer.body:
            idle(state)
            patience.was_vain()


def _is_short(piece: bytes) -> bool:
    """Was that all there was? Of a running task more may follow at any time."""
    return len(piece) < OUTPUT_PIECE_BYTES
