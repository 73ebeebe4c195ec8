"""P2, latency: from the submit request to the first instruction of the child, on an idle fleet.

The child is `date`, which prints the wall clock's nanoseconds; so one clock measures both ends.
The floor starts the same child directly. The last rounds run while a client pages through all
bots of a large fleet.
"""

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import fleet, processes
from bench.fleet import Fleet
from bench.wire import Connection
from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.domain.bot import LiveBot
from botapi.domain.bot_event import new_bot
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import Txn

COMMAND = ["/bin/date", "+%s%N"]
WAIT_S = 20
PAUSE_S = 0.02
PAGE = 1_000
SEED_BATCH = 200


def seed_bots(data: Path, count: int) -> None:
    """Store that many bots as if they had just been seen, through the store's own interface."""
    clock, rng = SystemClock(), SystemRng()
    store = engines.open_store(Settings(data_dir=data), Threads(), clock, rng)
    now_ms = clock.now_ms()

    def batch(first: int) -> None:
        def work(txn: Txn) -> None:
            for number in range(first, min(first + SEED_BATCH, count)):
                bot_id = f"seed-{number:05}"
                dims = (f"id:{bot_id}", "os:Debian-12", "os:Linux", "pool:seed", "cores:2")
                txn.put(codec.BOT, codec.bot_doc(new_bot(bot_id, dims, now_ms), None))
                txn.put(codec.LIVE, codec.live_doc(LiveBot(bot_id, now_ms, now_ms)))

        store.transact(work, label="bench_seed")

    try:
        for first in range(0, count, SEED_BATCH):
            batch(first)
    finally:
        store.close()


def floor_ms() -> float:
    """Milliseconds until a directly started child runs."""
    before = time.time_ns()
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, check=True)
    return (int(done.stdout) - before) / 1e6


def system_ms(connection: Connection) -> float:
    """Milliseconds from the submit request until the task's child runs."""
    before = time.time_ns()
    task = connection.call("POST", f"/api/v1/tasks?wait={WAIT_S}", {"command": COMMAND})
    if task["exit_code"] != 0:
        raise RuntimeError(f"the task did not end well: {task}")
    path = f"/api/v1/tasks/{task['task_id']}/output"
    _status, _headers, output = connection.send("GET", path)
    processes.pause(PAUSE_S)
    return (int(output) - before) / 1e6


def one_round(connection: Connection, count: int) -> tuple[list[float], list[float]]:
    """Interleaved samples: the floor's and the system's."""
    pairs = [(floor_ms(), system_ms(connection)) for _ in range(count)]
    return [floor for floor, _ in pairs], [system for _, system in pairs]


class Pager:
    """A client that pages through all bots or tasks, again and again, in a process of its own."""

    def __init__(self, running: Fleet, what: str = "bots") -> None:
        self._fleet = running
        self._what = what
        self._log = running.folder / "logs" / "pager.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environ = fleet.clean_environ() | {"BENCH_URL": self._fleet.url}
        environ["BENCH_KEY"] = self._fleet.key
        command = [sys.executable, "-m", "bench.pager", str(PAGE), self._what]
        self._process = fleet.start(command, self._log, fleet.REPOSITORY, environ)
        processes.await_that("the first pages", lambda: self.pages() > 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            processes.end([self._process])

    def pages(self) -> int:
        """How many pages it has read so far."""
        return self._log.read_bytes().count(b"\n") if self._log.exists() else 0
