"""The herd: a fleet that comes back all at once after the server was away (docs/operations.md).

Three times with one fleet of simulated bots (`bench.swarm`): it joins anew; it comes back with new
sessions after server and bots were started again; it comes back with the sessions it has after
the server alone was. A few bots have a task meanwhile and speak of it once a second: the calls
that a herd must not hold up.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.fleet import Fleet
from bench.report import quantile
from bench.swarm_log import Made, read_calls
from bench.swarms import Swarm

BOTS, QUICK_BOTS = 10_000, 300
WORKING = 20
AWAY_S = 8.0
"""How long the server is away: by then the bots' own pauses have spread them."""
LIMIT_S = 600.0
JOINS = frozenset({"handshake", "poll", "create", "ask"})


@dataclass(frozen=True, slots=True)
class Return:
    """One return of the herd: every call that was answered, and what the server spent."""

    what: str
    bots: int
    all_back_s: float
    calls: tuple[Made, ...]
    server_cpu_s: float

    def admitted(self) -> list[float]:
        """Seconds of each call that was let in and is not held by intention."""
        return [c.seconds for c in self.calls if c.status == 200 and c.kind in JOINS]

    def reports(self) -> list[float]:
        """Seconds of each good call of the bots with a task."""
        return [c.seconds for c in self.calls if c.status == 200 and c.kind == "report"]

    def waits(self) -> list[int]:
        """What those turned away were told to wait."""
        return [c.retry_after for c in self.calls if c.status == 429]

    def per_s(self) -> float:
        """Handshakes a second, or first calls of old sessions, until nine of ten were let in.

        The last ones come when they were told to, however idle the server is.
        """
        good = [c for c in self.calls if c.status == 200]
        ends = sorted(c.ended for c in good if c.kind == "handshake")
        ends = ends or sorted(c.ended for c in good if c.kind == "ask")
        most = ends[: max(1, len(ends) * 9 // 10)]
        return len(most) / (most[-1] - min(c.began for c in self.calls))

    def statuses(self) -> str:
        """How often each kind of call got each status."""
        found = Counter(f"{c.kind} {c.status}" for c in self.calls)
        return ", ".join(f"{name}: {count}" for name, count in sorted(found.items()))

    def __str__(self) -> str:
        admitted, reports, waits = self.admitted(), self.reports(), self.waits()
        lines = [
            f"{self.what}: {self.bots} bots back after {self.all_back_s:.0f} s, "
            f"{self.per_s():.0f}/s, server {self.server_cpu_s:.1f} CPU s",
            f"  admitted {_told(admitted)}",
            f"  of bots with a task {_told(reports)}" if reports else "",
            f"  {len(waits)} turned away for {min(waits)} to {max(waits)} s" if waits else "",
            f"  {self.statuses()}",
        ]
        return "\n".join(filter(None, lines))


def _told(seconds: list[float]) -> str:
    p50, p99 = quantile(seconds, 0.5), quantile(seconds, 0.99)
    return f"{len(seconds)}: p50 {p50:.3f} s, p99 {p99:.3f} s, longest {max(seconds):.3f} s"


def returns(
    running: Fleet, bots: int, say: Callable[[str], None], away_s: float = AWAY_S
) -> Iterator[Return]:
    """All three, one after the other. The server must be running, and is in the end stopped."""
    working = min(WORKING, bots // 10)
    offer_work(running, working)

    def wait(what: str, swarm: Swarm, since: float) -> Return:
        took = swarm.wait_all(since, LIMIT_S)
        found = Return(what, bots, took, after(swarm.folder, since), running.server_cpu_s())
        say(str(found))
        return found

    with Swarm(running.url, running.folder / "joins", bots, "--working", str(working)) as swarm:
        yield wait("new bots", swarm, time.monotonic())
        running.stop_server()
    with Swarm(running.url, running.folder / "returns", bots) as swarm:
        for what in ("new sessions", "old sessions"):
            processes.pause(away_s)
            since = time.monotonic()
            running.start_server()
            yield wait(what, swarm, since)
            running.stop_server()


def offer_work(running: Fleet, count: int) -> None:
    """A long task for each of the first bots of a swarm."""
    connection = running.connect()
    for number in range(count):
        dimensions = {"pool": ["sim"], "id": [f"sim-swarm-{number}"]}
        body = {"command": ["/bin/true"], "dimensions": dimensions, "wait_for_capacity": True}
        connection.call("POST", "/api/v1/tasks", body)
    connection.close()


def after(folder: Path, moment: float) -> tuple[Made, ...]:
    """Calls that began since and got an answer; nobody answers while the server is away."""
    return tuple(call for call in read_calls(folder) if call.began >= moment and call.status)
