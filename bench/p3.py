"""P3, idle cost: server CPU seconds for 1,000 idle bot-minutes.

Simulated bots with real timings: calls that the server holds for 40 to 45 s, and a poll every
120 s. A server without bots runs in the same window, and what it costs is taken off. The window
is cut into slices of equal length; the figures are the medians of the slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench import processes
from bench.fleet import Fleet
from bench.simulated import IdleFleet

FLEETS = (4, 100)
HOLD_S = 42.5
POLL_S = 120.0
CALLS_PER_BOT_MINUTE = 60 / HOLD_S + 60 / POLL_S


@dataclass(frozen=True, slots=True)
class IdleCost:
    """CPU seconds for 1,000 idle bot-minutes with `bots` bots, medians of the slices."""

    bots: int
    total: float
    marginal: float
    calls: int


def measure(
    empty: Fleet, fleets: Sequence[tuple[Fleet, int]], slices: int, slice_s: float
) -> list[IdleCost]:
    """Run all bots at once, each fleet on its server, and read the CPU at every slice's end."""
    bots = [IdleFleet(server.url, count, POLL_S, HOLD_S) for server, count in fleets]
    try:
        for idle in bots:
            idle.start(0.0)
        processes.pause(min(HOLD_S, 2 * slice_s))
        readings = _read_slices([empty, *(server for server, _ in fleets)], slices, slice_s)
        errors = [error for idle in bots for error in idle.errors]
        if errors:
            raise RuntimeError(f"{len(errors)} simulated bots failed: {errors[0]}")
    finally:
        for idle in bots:
            idle.stop()
    found = []
    for column, ((_server, count), idle) in enumerate(zip(fleets, bots, strict=True), start=1):
        per = 1000 / (count * slice_s / 60)
        totals = [row[column] * per for row in readings]
        margins = [(row[column] - row[0]) * per for row in readings]
        found.append(IdleCost(count, median(totals), median(margins), sum(idle.calls.values())))
    return found


def _read_slices(servers: Sequence[Fleet], slices: int, slice_s: float) -> list[list[float]]:
    """For each slice the CPU seconds of each server."""
    rows = []
    before = [server.server_cpu_s() for server in servers]
    for _ in range(slices):
        processes.pause(slice_s)
        after = [server.server_cpu_s() for server in servers]
        rows.append([now - then for now, then in zip(after, before, strict=True)])
        before = after
    return rows
