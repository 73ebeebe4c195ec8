"""How long a run may go on at all: what holds when a bot does not keep its task to its limits."""

from botapi.domain.task import Slice, Task

EXTRA_S = 3_600
"""Inputs are fetched and outputs stored outside of the hard timeout; so much is left for it."""
LEAST_GRACE_S = 30
"""A bot waits at least so long, twice over, before it kills (bot-api 4.4, 5.3)."""


def is_overdue(task: Task, chosen: Slice, now_ms: int) -> bool:
    """Should the bot have ended this run long ago, by the clock of the server?"""
    if not chosen.hard_timeout_s:
        return False
    most_s = chosen.hard_timeout_s + chosen.grace_period_s + EXTRA_S
    return now_ms - task.started_ms > most_s * 1000


def stop_grace_s(chosen: Slice) -> float:
    """How long a bot that was told to stop may take for it."""
    return 2.0 * max(chosen.grace_period_s, LEAST_GRACE_S)
