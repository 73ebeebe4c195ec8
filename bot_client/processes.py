"""What the operating system knows of processes: subreaper, children, kills.

Linux does it all; elsewhere the functions do less and never raise at import.
"""

import ctypes
import os
import signal
from contextlib import suppress

from bot_client.clock import Clock

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process, so that they can be found and killed."""
    return _prctl(_PR_SET_CHILD_SUBREAPER)


def forbid_new_privileges() -> bool:
    """No setuid program below this process gains rights.  Inherited, cannot be undone."""
    return _prctl(_PR_SET_NO_NEW_PRIVS)


def _prctl(option: int) -> bool:
    with suppress(OSError, AttributeError, TypeError):
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, 1, 0, 0, 0) == 0)
    return False


def children_of(pid: int) -> list[int]:
    """Direct children, zombies included; empty where /proc does not tell."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        return found
    return [child for child in _all_pids() if parent_of(child) == pid]


def descendants_of(pid: int) -> list[int]:
    """Children and theirs, as far as /proc tells."""
    found = children_of(pid)
    for child in found:  # it grows meanwhile
        found += children_of(child)
    return found


def parent_of(pid: int) -> int:
    """Parent's pid, 0 when the process is gone or cannot be read."""
    with suppress(ValueError, IndexError):
        return int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    return 0


def name_of(pid: int) -> str:
    """The command's short name, for messages."""
    return _read(f"/proc/{pid}/comm").strip() or "?"


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _all_pids() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def pids_with_environment(marker: bytes) -> list[int]:
    """Processes of ours (not this one) whose environment holds the marker; a slow scan."""
    found = []
    for pid in _all_pids():
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if marker in file.read() and pid != os.getpid():
                found.append(pid)
    return found


def signal_group(group: int, number: int) -> bool:
    """Signal a process group; false when nothing is left in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


def signal_process(pid: int, number: int) -> None:
    """Signal one process; gone is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended, as (pid, exit code); never blocks."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def has_children() -> bool:
    """Is any child of this process left, running or not yet reaped?"""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def kill_descendants(clock: Clock, limit_s: float = 10.0, mercy_s: float = 0.0) -> list[int]:
    """End every child, and theirs as they become ours; returns who is still there at the limit.

    For the first ``mercy_s`` seconds they may end by themselves.  Needs a subreaper to find
    grandchildren.
    """
    started = clock.now()
    while True:
        reap()
        if not has_children():
            return []
        waited = clock.now() - started
        if waited >= limit_s + mercy_s:
            return children_of(os.getpid())
        if waited >= mercy_s:
            for pid in children_of(os.getpid()):
                signal_process(pid, SIGKILL)
        clock.wait(0.02)
