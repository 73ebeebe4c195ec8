"""P3 and P4, idle fleets: CPU seconds for 1,000 idle bot-minutes, and memory.

Simulated bots with real timings: calls that the server holds for 40 to 45 s, and a poll every
120 s. One fleet after the other, each on a server of its own; a server without bots runs all the
time, and what it costs is taken off. The window is cut into slices of equal length; the figures
are the medians of the slices.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import processes
from bench.fleet import Fleet
from bench.swarm_log import read_calls
from bench.swarms import Swarm

FLEETS = (100, 1_000, 10_000)
QUICK_FLEETS = (10, 100)
HOLD_S = 42.5
POLL_S = 120.0
JOIN_LIMIT_S = 900.0
CALLS_PER_BOT_MINUTE = 60 / HOLD_S + 60 / POLL_S


@dataclass(frozen=True, slots=True)
class IdleCost:
    """CPU seconds for 1,000 idle bot-minutes, medians of the slices; MiB of the server."""

    bots: int
    total: float
    marginal: float
    memory_mib: float
    empty_mib: float
    calls: int


def measure(
    empty: Fleet, server: Fleet, folder: Path, bots: int, slices: int, slice_s: float
) -> IdleCost:
    """Let the fleet join and settle, then read the CPU at every slice's end."""
    options = ("--spread", str(HOLD_S), "--poll", str(POLL_S))
    with Swarm(server.url, folder, bots, *options) as swarm:
        swarm.wait_all(time.monotonic(), JOIN_LIMIT_S)
        processes.pause(min(HOLD_S, 2 * slice_s))
        began = time.monotonic()
        readings = _read_slices([empty, server], slices, slice_s)
        swarm.check()
        calls = [call for call in read_calls(swarm.folder) if call.ended >= began]
        wrong = [call for call in calls if call.status != 200]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(calls)} idle calls failed: {wrong[0]}")
        per = 1000 / (bots * slice_s / 60)
        return IdleCost(
            bots,
            median(row[1] * per for row in readings),
            median((row[1] - row[0]) * per for row in readings),
            server.server_memory_mib(),
            empty.server_memory_mib(),
            len(calls),
        )


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
