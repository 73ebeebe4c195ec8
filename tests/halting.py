"""Halt other processes where they stand, for real.

A signal is only asked for: the threads of a process with much to do stand still up to ten
milliseconds later, and answer what comes meanwhile.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

LIMIT_S = 10.0
HALTED = frozenset("TZX")
"""Stopped, or ended: see proc(5)."""


def halt(*pids: int) -> None:
    """SIGSTOP to these processes; comes back when no thread of theirs runs. Gone is fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + LIMIT_S
    while running := [pid for pid in pids if not _states(pid) <= HALTED]:
        assert time.monotonic() < end, f"processes {running} run on although they were halted"
        os.sched_yield()


def _states(pid: int) -> frozenset[str]:
    """What its threads do, a letter each."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.add(stat.read_text().rpartition(") ")[2][0])
    return frozenset(found)
