"""Showing a person what a task does while it is watched."""

from collections.abc import Callable
from typing import Any

from botapi.ctl import output, waiting
from botapi.ctl.command import Invocation


class WhyPending:
    """Notes why a task is pending, each reason once."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._said = ""

    def __call__(self, task: dict[str, Any]) -> None:
        """Look at the newest answer."""
        why = task.get("why") if task["state"] == "PENDING" else None
        if why and why != self._said:
            self._call.note(f"pending: {why}")
            self._said = why


def follow_output(
    call: Invocation,
    task_id: str,
    patience: waiting.Patience,
    write: Callable[[bytes], None] = output.write_bytes,
    offset: int = 0,
) -> None:
    """Write a task's output to stdout until it is final; OutOfTime when patience ends."""
    pending = WhyPending(call)

    def idle(state: str) -> None:
        if state == "PENDING":
            pending(waiting.read_task(call.client, task_id))

    for piece in waiting.output_pieces(call.client, task_id, patience, idle, offset):
        write(piece)
