"""Exit codes of the skep command, and which one wins when several apply."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

TASK_CODE_MAX = 125

_CANCELED = frozenset({"CANCELED", "KILLED"})
_INFRASTRUCTURE = frozenset({"BOT_DIED", "EXPIRED", "NO_RESOURCE"})
_UNFINISHED = frozenset({"PENDING", "RUNNING"})


class Exit(IntEnum):
    """What a command tells the shell; part of the public contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SERVER = 3
    DENIED = 4
    NOT_FOUND = 5
    TIMED_OUT = 6
    NOTHING_MATCHED = 7
    INCOMPLETE = 8
    CONFLICT = 9
    CANCELED = 10
    INFRASTRUCTURE = 11
    INTERRUPTED = 130
    TERMINATED = 143


_WORST_FIRST = (Exit.INFRASTRUCTURE, Exit.CANCELED, Exit.FAILED, Exit.INCOMPLETE)


def is_final(task: Mapping[str, Any]) -> bool:
    """Will the state of this task never change again?"""
    return task["state"] not in _UNFINISHED


def of_task(task: Mapping[str, Any]) -> Exit:
    """The code of one final task; an unfinished one counts as without an answer."""
    state = task["state"]
    if state in _UNFINISHED:
        return Exit.INCOMPLETE
    if state == "COMPLETED" and task.get("exit_code") == 0:
        return Exit.DONE
    if state in _CANCELED:
        return Exit.CANCELED
    if state in _INFRASTRUCTURE or task.get("cause") == "infrastructure":
        return Exit.INFRASTRUCTURE
    return Exit.FAILED


def of_command(task: Mapping[str, Any]) -> int:
    """The task's own exit code, at most 125; the usual code when it did not complete.

    A command that a signal ended has no code from 0 to 125; it counts as 125.
    """
    code = task.get("exit_code")
    if task["state"] != "COMPLETED" or code is None:
        return of_task(task)
    return int(code) if 0 <= code <= TASK_CODE_MAX else TASK_CODE_MAX


def worst(codes: Iterable[Exit]) -> Exit:
    """The code of many tasks: 11 before 10 before 1 before 8; DONE when none of them applies."""
    seen = set(codes)
    return next((code for code in _WORST_FIRST if code in seen), Exit.DONE)
