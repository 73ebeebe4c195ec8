"""Exactly once: many tasks, many simulated bots, several server processes on one store.

`python -m bench.claims --engine sqlite|postgres|emulator [--tasks N] [--bots N] [--servers 4]`.
The tasks are there before the bots come; each bot claims one, ends it, and asks for the next.
What was claimed is counted by the bots: the answers `run` that they got. The run fails when a
task was not claimed, or twice, or when more than one claim of a hundred was skipped.
"""

import argparse
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.engines import ENGINES, engine
from bench.fleet import REPOSITORY, clean_environ
from bench.report import machine_facts, machine_line
from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store.protocol import Outage
from botapi.transactions.create_task import create_task
from tests.e2e.fleet import Fleet
from tests.factories import make_request, make_slice

FULL = {"sqlite": (20_000, 64), "postgres": (20_000, 64), "emulator": (500, 8)}
"""Tasks and bots of the whole run."""
SERVERS = 4
CLIENTS = 2
"""Processes that the bots share."""
CREATORS, EMULATOR_CREATORS = 16, 2
CREATE_TRIES = 5
SKIPPED = 0.01
"""Highest share of claims that another bot had made before."""
SETTINGS = {
    "SKEP_RATE_BOT": "0",
    "SKEP_RATE_ADDRESS": "0",
    "SKEP_LOG_LEVEL": "warning",
    "SKEP_HOLD_MIN_S": "20",
    "SKEP_HOLD_MAX_S": "25",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the bots counted. `seconds`: from the first claim to the last."""

    tasks: int
    claimed: Counter[str]
    skipped: int
    errors: tuple[str, ...]
    seconds: float
    created_s: float
    server_cpu_s: float

    @property
    def per_s(self) -> float:
        """Claims a second."""
        return self.claimed.total() / max(self.seconds, 1e-9)

    @property
    def skipped_share(self) -> float:
        """Of all claims that were answered."""
        return self.skipped / max(1, self.skipped + self.claimed.total())

    def wrong(self) -> list[str]:
        """What must not be."""
        doubled = [task for task, times in self.claimed.items() if times > 1]
        found = [f"claimed twice: {doubled[:5]}"] if doubled else []
        if len(self.claimed) != self.tasks:
            found.append(f"{len(self.claimed)} of {self.tasks} tasks were claimed")
        if self.skipped_share > SKIPPED:
            found.append(f"{self.skipped} skipped claims, {self.skipped_share:.1%}")
        return found + list(self.errors[:5])

    def line(self) -> str:
        """The figures in one line."""
        cpu_ms = 1000 * self.server_cpu_s / max(1, self.claimed.total())
        return (
            f"{self.claimed.total()} claims of {self.tasks} tasks in {self.seconds:.1f} s: "
            f"{self.per_s:.0f} claims/s, {self.skipped} skipped ({self.skipped_share:.2%}), "
            f"{cpu_ms:.2f} ms of server CPU each; tasks made in {self.created_s:.1f} s"
        )


def measure(
    address: str, folder: Path, tasks: int, bots: int, *, servers: int = SERVERS
) -> Outcome:
    """Serve the store by that many processes and let the bots claim every task."""
    with ExitStack() as stack:
        fleet = Fleet(folder, SKEP_STORE=address, **SETTINGS)
        stack.callback(fleet.end)
        fleet.start()
        for _ in range(servers - 1):
            fleet.add_server().start()
        began = time.monotonic()
        place = f"sqlite:{fleet.server.data}" if address == "sqlite" else address
        create(place, tasks)
        created_s = time.monotonic() - began
        urls = [server.url for server in fleet.servers]
        pids = [pid for each in fleet.servers for pid in processes.tree_of(each.pid)]
        cpu_s = processes.cpu_s(pids)
        claimed, skipped, errors, seconds = _claimed(stack, urls, tasks, bots)
        cpu_s = processes.cpu_s(pids) - cpu_s
    return Outcome(tasks, claimed, skipped, tuple(errors), seconds, created_s, cpu_s)


def create(address: str, tasks: int) -> None:
    """Queue tasks for simulated bots, through the store's own interface."""
    clock = SystemClock()
    store = engines.open_address(address, Settings(), Threads(), clock, SystemRng())
    now_ms = clock.now_ms()

    def one(number: int) -> None:
        wanted = make_slice(dimensions={"pool": ("sim",)}, expiration_s=86_400)
        request = make_request(number, now_ms, [wanted])
        for _ in range(CREATE_TRIES - 1):
            with suppress(Outage):
                create_task(store, request, request_uuid=f"claims-{number}")
                return
        create_task(store, request, request_uuid=f"claims-{number}")

    one(0)  # alone, since it makes the queue that all of them share
    creators = EMULATOR_CREATORS if address.startswith("datastore:") else CREATORS
    with ThreadPoolExecutor(creators) as pool:
        list(pool.map(one, range(1, tasks)))
    store.close()


def _claimed(
    stack: ExitStack, urls: Sequence[str], tasks: int, bots: int
) -> tuple[Counter[str], int, list[str], float]:
    """Let the bots work until every task is claimed, or nothing happens for a while."""
    said: queue.Queue[str] = queue.Queue()
    clients = []
    for number in range(CLIENTS):
        share = range(number, bots, CLIENTS)
        command = [sys.executable, "-m", "bench.claimers", str(1_000 * number), str(len(share))]
        client = stack.enter_context(
            subprocess.Popen(
                [*command, *urls],
                cwd=REPOSITORY,
                env=clean_environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(processes.end, [client])
        clients.append(client)
    for client in clients:
        assert client.stdout is not None
        if client.stdout.readline() != "ready\n":
            raise RuntimeError("a client did not get its bots connected")
        threading.Thread(target=_hear, args=(client.stdout, said), daemon=True).start()
    for client in clients:
        _tell(client)
    found = _count(said, tasks)
    for client in clients:
        assert client.stdin is not None
        client.stdin.close()
    return found


def _tell(client: subprocess.Popen[str]) -> None:
    assert client.stdin is not None
    client.stdin.write("go\n")
    client.stdin.flush()


def _hear(lines: Iterator[str], said: "queue.Queue[str]") -> None:
    for line in lines:
        said.put(line.rstrip("\n"))


QUIET_S = 30.0
"""Without a word for that long the bots have nothing to do, or hang."""
AFTER_S = 1.0
"""How long to listen for a claim too many when every task is claimed."""


def _count(said: "queue.Queue[str]", tasks: int) -> tuple[Counter[str], int, list[str], float]:
    claimed: Counter[str] = Counter()
    skipped, errors, times = 0, [], []
    with suppress(queue.Empty):
        while True:
            line = said.get(timeout=AFTER_S if len(claimed) >= tasks else QUIET_S)
            what, _, rest = line.partition(" ")
            if what == "run":
                run_id, at = rest.split()
                claimed[run_id[:-1]] += 1
                times.append(float(at))
            elif what == "skip":
                skipped += 1
            else:
                errors.append(line)
    seconds = max(times) - min(times) if times else 0.0
    return claimed, skipped, errors, seconds


def main() -> int:
    """One run; 1 when something was wrong. SIGTERM ends what was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m bench.claims", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default="sqlite")
    parser.add_argument("--tasks", type=int, default=0, help="20000, on the emulator 500")
    parser.add_argument("--bots", type=int, default=0, help="64, on the emulator 8")
    parser.add_argument("--servers", type=int, default=SERVERS)
    given = parser.parse_args()
    tasks, bots = FULL[given.engine]
    print(machine_line(machine_facts()), flush=True)
    with tempfile.TemporaryDirectory(prefix="skep-claims-") as folder:
        home = Path(folder)
        with engine(given.engine, home) as address:
            outcome = measure(
                address,
                home,
                given.tasks or tasks,
                given.bots or bots,
                servers=given.servers,
            )
    print(f"{given.engine}, {given.servers} servers, {given.bots or bots} bots: {outcome.line()}")
    for text in outcome.wrong():
        print(f"WRONG: {text}")
    return 1 if outcome.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
