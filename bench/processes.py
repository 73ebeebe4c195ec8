"""What the kernel knows of our processes: who they are and how much CPU they took."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

STOP_LIMIT_S = 40.0


def children_of(pid: int) -> list[int]:
    """Direct children of all threads of a process."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            found += [int(word) for word in text.split()]
    return found


def tree_of(pid: int) -> list[int]:
    """A process and everything below it."""
    return [pid, *(below for child in children_of(pid) for below in tree_of(child))]


def cores_left() -> set[int]:
    """The cores that this process may not use, nor what it starts; all, if it may use all.

    `taskset -c 0 python -m bench herd` keeps the simulated bots off the server's core with it.
    """
    every = set(range(os.cpu_count() or 1))
    return every - os.sched_getaffinity(0) or every


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far, user and system, all threads.

    The processes' CPU clocks, which count nanoseconds, where `/proc/<pid>/stat` counts ticks
    of 10 ms. Children that ended are not in it.
    """
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return _ticks_of(pid) / os.sysconf("SC_CLK_TCK")


def _ticks_of(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(words[11]) + int(words[12])


def memory_mib(pids: Iterable[int]) -> float:
    """Memory of these processes in MiB; what they share is divided among those who share it."""
    return sum(map(_pss_kib, pids)) / 1024


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, of everything below it, and of their ended children."""
    return sum(_cpu_of(member) + _ended_children_s(member) for member in tree_of(pid))


def _ended_children_s(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK")


def load_average() -> tuple[float, float, float]:
    """The three load averages of the machine."""
    return os.getloadavg()


def await_that(what: str, is_so: Callable[[], object], limit_s: float = 60.0) -> None:
    """Wait for a condition. Raises TimeoutError with its name."""
    end = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit_s:g} s")
        pause(0.05)


def pause(seconds: float) -> None:
    """Let others work."""
    threading.Event().wait(seconds)


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to each process by its id, SIGKILL to what is left of the groups they lead."""
    started = list(processes)
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + STOP_LIMIT_S
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, limit - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
