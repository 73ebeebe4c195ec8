"""`python -m bench.bigdb`: lists, counts and scheduling on a database of 1,000,000 tasks.

The database is built once, through the store's own interface, below SKEP_BIGDB (default
`~/.cache/skep-bench`), and copied for each measurement: 1,000,000 finished tasks of 30 days
and 10,000 bots.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import bigdb_queries, p1, p2
from bench.fleet import KEY, REPOSITORY, SKEP, Fleet, clean_environ
from bench.report import middle, quantile
from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.domain.names import new_request_id, run_id, task_id
from botapi.domain.task import OutputPosition, Slice, Task, TaskRequest, TaskState
from botapi.settings import Settings
from botapi.store import codec, sqlite_files
from botapi.store.protocol import Doc, Store, Txn

TASKS, BOTS = 1_000_000, 10_000
DAYS = 30
BATCH = 1_000
FORMAT = 3
"""Grows when what is built changes: an older file is built anew."""
POOLS = (("ci", 60), ("default", 30), ("sim", 10))
STATES = (
    (TaskState.COMPLETED, 86),
    (TaskState.TIMED_OUT, 3),
    (TaskState.KILLED, 2),
    (TaskState.CANCELED, 3),
    (TaskState.EXPIRED, 3),
    (TaskState.BOT_DIED, 2),
    (TaskState.NO_RESOURCE, 1),
)
NEVER_RAN = frozenset({TaskState.CANCELED, TaskState.EXPIRED, TaskState.NO_RESOURCE})
LIMIT_MS = 200.0
"""p95 of every query."""
LIMIT_RATE = 0.8
"""Tasks a second beside those of an empty database."""


def _pick(dice: random.Random, shares: Sequence[tuple[str, int]]) -> str:
    return dice.choices([name for name, _ in shares], [share for _, share in shares])[0]


def _tasks(count: int, now_ms: int) -> Iterator[tuple[TaskRequest, Task]]:
    """Finished tasks, the oldest first, evenly spread over the days."""
    dice = random.Random(7)
    step_ms = DAYS * 86_400_000 / count
    for number in range(count):
        created_ms = int(now_ms - DAYS * 86_400_000 + number * step_ms) - 60_000
        yield _task(dice, number, created_ms)


def _task(dice: random.Random, number: int, created_ms: int) -> tuple[TaskRequest, Task]:
    of = task_id(new_request_id(created_ms, number % 65_536))
    pool, state = _pick(dice, POOLS), TaskState(_pick(dice, STATES))
    user = f"user{dice.randrange(50)}@example.com"
    job, os_name = f"job-{dice.randrange(200)}", dice.choice(("Linux", "Mac", "Windows"))
    tags = tuple(
        sorted(
            (
                f"authenticated:user:{user}",
                f"job:{job}",
                "branch:main",
                f"os:{os_name}",
                f"pool:{pool}",
                "priority:100",
                "realm:none",
                "service_account:none",
                "swarming.pool.task_template:none",
                "swarming.pool.version:r1",
                f"user:{user}",
            )
        )
    )
    slice_ = Slice(
        command=("python3", "-u", "main.py", "--shard", str(number % 64)),
        dimensions={"os": (os_name,), "pool": (pool,)},
    )
    request = TaskRequest(
        task_id=of,
        name=f"{job} shard {number % 64}",
        priority=100,
        user=user,
        authenticated=f"user:{user}",
        tags=tags,
        slices=(slice_,),
        created_ms=created_ms,
    )
    ran = state not in NEVER_RAN
    failed = state is TaskState.TIMED_OUT or (state is TaskState.COMPLETED and dice.random() < 0.08)
    bot_id = f"seed-{dice.randrange(BOTS):05}"
    ended_ms = created_ms + 1_000 + dice.randrange(600_000)
    task = Task(
        task_id=of,
        state=state,
        name=request.name,
        user=user,
        pool=pool,
        priority=100,
        tags=tags,
        created_ms=created_ms,
        modified_ms=ended_ms,
        completed_ms=ended_ms,
        abandoned_ms=0 if state is TaskState.COMPLETED else ended_ms,
        started_ms=created_ms + 900 if ran else 0,
        bot_id=bot_id if ran else "",
        bot_dimensions=(f"id:{bot_id}", f"os:{os_name}", f"pool:{pool}") if ran else (),
        bot_version="5" * 64 if ran else "",
        session_id="s" * 20 if ran else "",
        claim_id=f"{bot_id}:{run_id(of)}" if ran else "",
        server_versions=("0.1.0",),
        exit_code=(1 if failed else 0) if ran else None,
        duration_s=12.5 if ran else None,
        failure=failed,
        internal_failure=state is TaskState.BOT_DIED,
        output_bytes=120 if ran else 0,
    )
    return request, task


def build(folder: Path, tasks: int) -> None:
    """The data folder of a server, with the admin's key beside it in `key`."""
    data = folder / "data"
    done = subprocess.run(
        [*SKEP, "init", "--data-dir", str(data)],
        cwd=REPOSITORY,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    found = KEY.search(done.stdout)
    if found is None:
        raise RuntimeError(f"skep init showed no key: {done.stdout} {done.stderr}")
    p2.seed_bots(data, BOTS)
    clock = SystemClock()
    store = engines.open_store(Settings(data_dir=data), Threads(), clock, SystemRng())
    started = time.monotonic()
    times: list[Doc] = []
    try:
        made: list[tuple[str, Doc]] = []
        for number, (request, task) in enumerate(_tasks(tasks, clock.now_ms()), 1):
            made += _documents(request, task)
            if task.started_ms:
                times += [codec.run_time_doc(task, column) for column in codec.RunTime]
            if number % BATCH == 0 or number == tasks:
                _write(store, made)
                made = []
            if number % 100_000 == 0:
                rate = number / (time.monotonic() - started)
                print(f"{number:,} tasks, {rate:,.0f}/s", file=sys.stderr, flush=True)
        # In the order of their keys: one after the other they would touch a page each.
        times.sort(key=lambda doc: doc.key)
        for first in range(0, len(times), BATCH):
            _write(store, [(codec.RUN_TIME, doc) for doc in times[first : first + BATCH]])
    finally:
        store.close()
    (folder / "key").write_text(found[1], encoding="utf-8")


def _documents(request: TaskRequest, task: Task) -> list[tuple[str, Doc]]:
    docs = [(codec.REQ, codec.request_doc(request)), (codec.TASK, codec.task_doc(task))]
    if task.started_ms:
        position = OutputPosition(committed=120, sealed=True)
        docs.append((codec.OUTPOS, codec.output_position_doc(task.task_id, position)))
        docs.append((codec.OUT, codec.output_doc(task.task_id, 0, b"one line of output\n" * 6)))
    return docs


def _write(store: Store, docs: list[tuple[str, Doc]]) -> None:
    def work(txn: Txn) -> None:
        for kind, doc in docs:
            txn.put(kind, doc)

    store.transact(work, label="bench_bigdb", deadline_s=60)


def database(tasks: int) -> Path:
    """The folder of the built database; built now if it is not there."""
    home = Path(os.environ.get("SKEP_BIGDB") or Path.home() / ".cache" / "skep-bench")
    folder = home / f"bigdb-{FORMAT}-{tasks}"
    if not (folder / "key").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"building {folder}", file=sys.stderr, flush=True)
        build(folder, tasks)
    return folder


class BigFleet(Fleet):
    """A server over a copy of the big database."""

    def __init__(self, folder: Path, source: Path) -> None:
        super().__init__(folder)
        self._source = source
        self.environ["SKEP_ANONYMOUS_READ"] = "1"

    def _init(self) -> None:
        command = ["cp", "--reflink=auto", "-a", str(self._source / "data"), str(self.data)]
        subprocess.run(command, check=True)
        # Else the first checkpoint waits until the system has written the whole copy out.
        subprocess.run(["sync", str(self.data / sqlite_files.DATABASE)], check=True)
        self.key = (self._source / "key").read_text(encoding="utf-8")
        self._write_config()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure against its limit."""

    name: str
    figure: str
    held: bool


def measure_queries(fleet: Fleet, rounds: int) -> list[Verdict]:
    """p50 and p95 of every query, each asked `rounds` times."""
    verdicts = []
    for name, times in bigdb_queries.measure(fleet, rounds):
        p95 = quantile(times, 0.95)
        figure = f"p50 {middle(times):.0f} ms, p95 {p95:.0f} ms"
        verdicts.append(Verdict(name, figure, p95 < LIMIT_MS))
        print(f"{figure}  {name}", file=sys.stderr, flush=True)
    return verdicts


def measure_rates(folder: Path, source: Path, rounds: int) -> Verdict:
    """Tasks a second on the big database and on an empty one, interleaved."""
    with Fleet(folder / "empty") as empty, BigFleet(folder / "big", source) as big:
        for fleet in (empty, big):
            fleet.start_bots(p1.BOTS)
            p1.system_round(fleet, 100)
        pairs = [
            (p1.system_round(empty, 300).per_s, p1.system_round(big, 300).per_s)
            for _ in range(rounds)
        ]
    ratio = middle([ours / theirs for theirs, ours in pairs])
    figure = f"{ratio:.2f} of an empty database ({middle([b for _, b in pairs]):.0f}/s)"
    return Verdict("scheduling rate", figure, ratio >= LIMIT_RATE)


def measure_latency(folder: Path, source: Path, rounds: int) -> Verdict:
    """P2 on the big database while a client pages through its tasks and bots."""
    with BigFleet(folder / "latency", source) as fleet:
        fleet.start_bots(p1.BOTS)
        connection = fleet.connect()
        p2.one_round(connection, p1.BOTS)
        with p2.Pager(fleet, "tasks"):
            found = [p2.one_round(connection, 20) for _ in range(rounds)]
        connection.close()
    floor = middle([sample for floors, _ in found for sample in floors])
    system = [sample for _, samples in found for sample in samples]
    times, p99 = middle(system) / floor, quantile(system, 0.99)
    figure = f"p50 {middle(system):.1f} ms ({times:.2f} times the floor), p99 {p99:.0f} ms"
    return Verdict("P2 while a client pages", figure, times <= 6 and p99 <= 50)


def main() -> int:
    """Build, measure, print; 1 when a limit does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.bigdb", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("queries", "rate", "latency"))
    options = parser.parse_args()
    source = database(options.tasks)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="skep-bigdb-", dir=source.parent) as name:
        folder = Path(name)
        if options.only in {None, "queries"}:
            with BigFleet(folder / "queries", source) as fleet:
                verdicts += measure_queries(fleet, 4 * options.rounds)
        parts: dict[str, Callable[[Path, Path, int], Verdict]] = {
            "rate": measure_rates,
            "latency": measure_latency,
        }
        for part, measure in parts.items():
            if options.only in {None, part}:
                verdicts.append(measure(folder, source, options.rounds))
    width = max(len(verdict.name) for verdict in verdicts)
    for verdict in verdicts:
        word = "holds" if verdict.held else "MISSED"
        print(f"{verdict.name:<{width}}  {word:6}  {verdict.figure}")
    return 0 if all(verdict.held for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
