"""`python -m bench [P1 P2 P3 P4 P6 herd]`: measure, print the table, write the JSON file.

Every benchmark interleaves the system with its yardstick; a figure is the median of the rounds.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import herd, p1, p2, p3, p6
from bench.bare import Bare
from bench.engines import ENGINES, engine
from bench.fleet import Fleet
from bench.report import Figure, Limits, Report, machine_facts, machine_line, middle, quantile

P1_TASKS, P1_QUICK = 2_000, 200
P1_ROUND_S = 30.0
"""Longest round of P1: a slow machine gets fewer tasks, and the output says so."""
P2_SAMPLES, P2_QUICK = 60, 10
P2_BOTS, P2_BOTS_QUICK = 10_000, 1_000
P3_SLICE_S, P3_SLICE_QUICK_S = 24.0, 6.0
P6_BATCHES, P6_QUICK = 8, 1


@dataclass(frozen=True, slots=True)
class Run:
    """One run: where things lie, how much is done, where figures go."""

    folder: Path
    rounds: int
    quick: bool
    report: Report
    store: str = "sqlite"
    bots: int = 0
    """Simulated bots of a herd, or of P3 and P4 instead of their sizes; 0: as each says."""
    workers: int = 1

    @contextmanager
    def settings(self, name: str = "store") -> Iterator[dict[str, str]]:
        """What the servers are told of a store of this name; its PostgreSQL runs meanwhile."""
        told = {"SKEP_WORKERS": str(self.workers)}
        with engine(self.store, self.folder / name) as address:
            yield told | {"SKEP_STORE": address}

    def say(self, text: str) -> None:
        """Progress, for whoever watches."""
        print(text, file=sys.stderr, flush=True)


def run_p1(run: Run) -> None:
    """Tasks a second against children a second."""
    ratios, rates, floors, server, bots = [], [], [], [], []
    with Fleet(run.folder / "p1") as fleet:
        fleet.start_bots(p1.BOTS)
        warm = p1.system_round(fleet, P1_QUICK // 2)
        count = _p1_count(run, warm.per_s)
        for number in range(run.rounds):
            floor = p1.floor_per_s(count)
            found = p1.system_round(fleet, count)
            run.say(f"P1 round {number + 1}: {found.per_s:.1f}/s, floor {floor:.0f}/s")
            ratios.append(found.per_s / floor)
            rates.append(found.per_s)
            floors.append(floor)
            server.append(found.server_cpu_ms)
            bots.append(found.bot_cpu_ms)
    yardstick = f"{middle(floors):.0f} children/s by {p1.FLOOR_THREADS} threads"
    add = run.report.figures.append
    name = f"{count} tasks of /bin/true, {p1.BOTS} bots, {p1.SUBMITTERS} submitters, SQLite FULL"
    limits = Limits(0.10, 0.30, at_least=True)
    add(Figure("P1", name, middle(ratios), "x", yardstick, limits, tuple(ratios)))
    add(Figure("P1", "  tasks a second", middle(rates), "/s", "", rounds=tuple(rates)))
    add(Figure("P1", "  server CPU a task", middle(server), "ms", "", rounds=tuple(server)))
    add(Figure("P1", "  bot and child CPU a task", middle(bots), "ms", "", rounds=tuple(bots)))


def _p1_count(run: Run, per_s: float) -> int:
    """Tasks of a round: as many as the target names, unless that would take too long."""
    wanted = P1_QUICK if run.quick else P1_TASKS
    count = min(wanted, max(P1_QUICK, int(per_s * P1_ROUND_S) // 100 * 100))
    if count < wanted:
        run.report.notes.append(
            f"P1: {count} tasks a round instead of {wanted}, so that a round takes {P1_ROUND_S:g} s"
        )
    return count


def run_p2(run: Run) -> None:
    """Latency on an idle fleet, alone and beside a client that pages through many bots."""
    bots = P2_BOTS_QUICK if run.quick else P2_BOTS
    with Fleet(run.folder / "p2") as fleet:
        _p2_rounds(run, fleet, "idle fleet")
    with (
        Fleet(run.folder / "p2-many", seed=partial(p2.seed_bots, count=bots)) as fleet,
        p2.Pager(fleet) as pager,
    ):
        _p2_rounds(run, fleet, f"while a client pages through {bots:,} bots")
        run.report.notes.append(
            f"P2: the client read {pager.pages()} pages of up to {p2.PAGE} bots"
        )


def _p2_rounds(run: Run, fleet: Fleet, what: str) -> None:
    count = P2_QUICK if run.quick else P2_SAMPLES
    fleet.start_bots(p1.BOTS)
    connection = fleet.connect()
    p2.one_round(connection, p1.BOTS)
    ratios, p50s, p99s, floors, all_system = [], [], [], [], []
    for number in range(run.rounds):
        floor, system = p2.one_round(connection, count)
        ratios.append(middle(system) / middle(floor))
        p50s.append(middle(system))
        p99s.append(quantile(system, 0.99))
        floors.append(middle(floor))
        all_system += system
        run.say(f"P2 {what}, round {number + 1}: p50 {p50s[-1]:.1f} ms, floor {floors[-1]:.2f} ms")
    connection.close()
    yardstick = f"direct start of the same child, p50 {middle(floors):.2f} ms"
    add = run.report.figures.append
    name = f"submit to first instruction, {what}"
    ratio = middle(ratios)
    add(Figure("P2", f"{name}: p50", ratio, "x", yardstick, Limits(6, 4), tuple(ratios)))
    add(Figure("P2", "  p50", middle(p50s), "ms", "", rounds=tuple(p50s)))
    p99 = quantile(all_system, 0.99)
    add(Figure("P2", "  p99 of all samples", p99, "ms", "", Limits(50, 20), tuple(p99s)))


def run_p3(run: Run) -> None:
    """CPU seconds of idle bots, and the memory that they take."""
    _idle_fleets(run, p3.QUICK_FLEETS if run.quick else p3.FLEETS)


def run_p4(run: Run) -> None:
    """The largest fleet alone."""
    _idle_fleets(run, (p3.QUICK_FLEETS if run.quick else p3.FLEETS)[-1:])


def _idle_fleets(run: Run, sizes: tuple[int, ...]) -> None:
    slice_s = P3_SLICE_QUICK_S if run.quick else P3_SLICE_S
    sizes = (run.bots,) if run.bots else sizes
    with (
        run.settings("store-of-none") as of_none,
        Fleet(run.folder / "p3-0", settings=of_none) as empty,
        Bare(run.folder / "p3-bare") as bare,
    ):
        for bots in sizes:
            run.say(f"P3: {bots} bots join, then {run.rounds} slices of {slice_s:g} s")
            folder = run.folder / f"p3-{bots}"
            with run.settings() as settings, Fleet(folder, settings=settings) as server:
                found = p3.measure(empty, server, folder / "swarm", bots, run.rounds, slice_s)
            _note_idle(run, found, p6.bare_poll_ms(bare), is_target=bots == sizes[-1])


def _note_idle(run: Run, found: p3.IdleCost, bare_ms: float, *, is_target: bool) -> None:
    yardstick = f"{bare_ms * p3.CALLS_PER_BOT_MINUTE:.2f} CPU s: as many calls of a bare route"
    add = run.report.figures.append
    name = f"idle cost of 1,000 bot-minutes, {found.bots:,} bots, {run.store}"
    limits = Limits(1.0, 0.6) if is_target else None
    add(Figure("P3", name, found.marginal, "CPU s", yardstick, limits))
    add(Figure("P3", "  with the fixed cost of a server", found.total, "CPU s", ""))
    memory = f"memory of the server with {found.bots:,} idle bots, {run.store}"
    limits = Limits(400, 250) if is_target else None
    empty = f"{found.empty_mib:.0f} MiB without bots"
    add(Figure("P4", memory, found.memory_mib, "MiB", empty, limits))
    run.say(f"P3 {found.bots} bots: {found.marginal:.2f} CPU s, {found.memory_mib:.0f} MiB")


def run_herd(run: Run) -> None:
    """A fleet that comes back all at once."""
    bots = run.bots or (herd.QUICK_BOTS if run.quick else herd.BOTS)
    with (
        Bare(run.folder / "herd-bare") as bare,
        run.settings() as settings,
        Fleet(run.folder / "herd", settings=settings) as fleet,
    ):
        bare_ms = p6.bare_poll_ms(bare)
        for found in herd.returns(fleet, bots, run.say):
            _note_return(run, found, bare_ms)


def _note_return(run: Run, found: herd.Return, bare_ms: float) -> None:
    yardstick = f"bare Flask route {1000 / bare_ms:.0f} requests a CPU second"
    name = f"herd of {found.bots:,}, {found.what}, {run.store}, {run.workers} processes"
    add = run.report.figures.append
    p99 = quantile(found.admitted(), 0.99)
    add(Figure("herd", f"{name}: all back", found.all_back_s, "s", yardstick, Limits(300, 120)))
    add(Figure("herd", "  let in", found.per_s(), "/s", "", Limits(150, 300, at_least=True)))
    add(Figure("herd", "  p99 of those let in", p99, "s", "", Limits(2, 1)))
    add(Figure("herd", "  server CPU a bot", 1000 * found.server_cpu_s / found.bots, "ms", ""))
    if found.reports():
        slow = quantile(found.reports(), 0.99)
        add(Figure("herd", "  p99 of bots with a task", slow, "s", "", Limits(2, 1)))
    run.report.notes.append(str(found))


def run_p6(run: Run) -> None:
    """Requests per CPU second of the handlers."""
    batches = P6_QUICK if run.quick else P6_BATCHES
    with Fleet(run.folder / "p6") as fleet, Bare(run.folder / "p6-bare") as bare:
        costs = p6.CallCosts(fleet, bare)
        costs.round(1)
        rounds = []
        for number in range(run.rounds):
            rounds.append(costs.round(batches))
            told = ", ".join(f"{kind} {rounds[-1].ratio(kind):.2f}" for kind in p6.KINDS)
            run.say(f"P6 round {number + 1}: {told}")
        costs.close()
    for kind in p6.KINDS:
        ratios = tuple(spent.ratio(kind) for spent in rounds)
        ours = middle([spent.ours_ms(kind) for spent in rounds])
        bare_ms = middle([spent.bare_ms(kind) for spent in rounds])
        name = f"{kind}: requests per CPU second ({ours:.2f} ms of CPU each)"
        yardstick = f"bare Flask route, {bare_ms:.2f} ms of CPU each"
        limits = Limits(0.5, 0.7, at_least=True)
        run.report.figures.append(
            Figure("P6", name, middle(ratios), "x", yardstick, limits, ratios)
        )


BENCHMARKS: dict[str, Callable[[Run], None]] = {
    "P1": run_p1,
    "P2": run_p2,
    "P3": run_p3,
    "P4": run_p4,
    "P6": run_p6,
    "herd": run_herd,
}
USUAL = ("P1", "P2", "P3", "P6")
"""Without a name; P3 measures what P4 does, and a herd takes ten minutes."""


def main() -> None:
    """Parse, measure, print. SIGTERM ends it like Ctrl-C: whatever was started is ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="small rounds: a smoke test")
    parser.add_argument("--store", choices=ENGINES, default="sqlite", help="of P3, P4 and herd")
    parser.add_argument("--bots", type=int, default=0, help="of P3, P4 and herd: this many")
    parser.add_argument("--workers", type=int, default=1, help="server processes of those")
    parser.add_argument("--json", type=Path, help="where the JSON file goes")
    options = parser.parse_args()
    unknown = set(options.ids) - set(BENCHMARKS)
    if unknown or options.rounds < 1:
        parser.error(f"unknown: {sorted(unknown)}" if unknown else "--rounds: at least 1")
    chosen = options.ids or list(USUAL)
    report = Report(options.quick, options.rounds, machine_facts())
    print(machine_line(report.machine), flush=True)
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as folder:
        for name in chosen:
            BENCHMARKS[name](
                Run(
                    Path(folder) / name,
                    options.rounds,
                    options.quick,
                    report,
                    options.store,
                    options.bots,
                    options.workers,
                )
            )
    path = options.json or Path(tempfile.mkdtemp(prefix="skep-bench-json-")) / "bench.json"
    report.machine["load_average_at_end"] = machine_facts()["load_average_at_start"]
    report.write(path)
    print(report.as_text())
    print(f"JSON: {path}")


if __name__ == "__main__":
    main()
