"""How many bots and tasks there are, for the metrics: counted when they are read.

Nobody who reads them, no cost. The answer is kept for a while, longer where it took long.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from botapi import metrics
from botapi.cfg import releases
from botapi.cfg.provider import Provider
from botapi.cfg.releases import Releases
from botapi.clock import Clock
from botapi.concurrency import Concurrency
from botapi.domain.bot import SWAP_WINDOW_MS, SWAPS_TO_QUARANTINE, BotStatus
from botapi.domain.names import task_created_ms
from botapi.domain.task import TaskState
from botapi.scheduler.latest import Latest
from botapi.store import codec
from botapi.store.protocol import Store, StoreError, split_key
from botapi.store.walk import END, find_all

KEEP_S = 10.0
"""Age of a count that is given again."""
WAIT_S = 3.0
"""Longest wait of a reader for a new count; after it the last one is given."""
LOAD = 20.0
"""A count of one second is kept for so many seconds."""
COUNT_UP_TO = 100_000
"""Bots or tasks of one pool and state beyond which is not counted."""
MAX_VERSIONS = 30
"""Versions of bots that are counted each by itself, the newest; the rest is `other`."""
VERSION_CHARS = 12
MAX_LOOKS = 1_000
"""Looks at the heads of queues for the oldest slice; a fleet with more queues shows some."""
MAX_QUARANTINED = 2_000
"""Quarantined bots that are looked at for two processes with one id."""
ACTIVE = (TaskState.PENDING, TaskState.RUNNING)

Counts = dict[tuple[str, ...], float]


@dataclass(slots=True)
class _Count:
    bots: Counts = field(default_factory=dict)
    versions: Counts = field(default_factory=dict)
    tasks: Counts = field(default_factory=dict)
    oldest: Counts = field(default_factory=dict)
    conflicts: int = 0


class FleetCounts:
    """The counter of one process."""

    def __init__(
        self,
        store: Store,
        config: Provider,
        archives: Releases,
        concurrency: Concurrency,
        clock: Clock,
        data_dir: Path,
    ) -> None:
        self._store = store
        self._config = config
        self._archives = archives
        self._concurrency = concurrency
        self._clock = clock
        self._data_dir = data_dir
        self._latest = Latest(
            self._refresh, concurrency, clock, keep_s=KEEP_S, wait_s=WAIT_S, load=LOAD
        )

    def refresh(self) -> None:
        """Bring the gauges up to date, if that can be done in time; else they stay."""
        self._latest.get()

    def _refresh(self) -> bool:
        try:
            self._concurrency.outside(self._look_at_disk)
            self._show(self._count())
        except StoreError:
            return False  # /readyz says it
        return True

    def _look_at_disk(self) -> None:
        try:
            metrics.DISK_FREE.set(shutil.disk_usage(self._data_dir).free)
        except OSError:
            metrics.DISK_FREE.set(float("nan"))

    def _count(self) -> _Count:
        found = _Count(conflicts=self._conflicts(), oldest=dict(self._oldest()))
        for pool in self._pools():
            for status in BotStatus:
                tags = [frozenset({f"d:pool:{pool}"}), frozenset({f"st:{status}"})]
                count = self._store.count(codec.BOT, tags, up_to=COUNT_UP_TO)
                found.bots[pool, status] = count
            for state in ACTIVE:
                tags = [frozenset({f"p:{pool}"}), frozenset({f"st:{state}"})]
                count = self._store.count(codec.TASK, tags, up_to=COUNT_UP_TO)
                found.tasks[pool, state] = count
        found.versions = self._versions()
        return found

    def _pools(self) -> list[str]:
        """Those that the configuration names."""
        snapshot = self._config.cached()
        named = set(snapshot.pools.pools)
        for group in snapshot.bots.groups:
            named.update(group.dimensions.get("pool", ()))
        return sorted(named)[: metrics.MAX_POOLS]

    def _versions(self) -> Counts:
        stored = self._store.get(releases.KIND, releases.VERSIONS_KEY)
        known = sorted(releases.read_versions(stored[0]).items(), key=lambda item: -item[1][1])
        served = self._archives.served()
        found: Counts = {}
        for version, (release, _) in known[:MAX_VERSIONS]:
            tags = [frozenset({f"v:{version}"})]
            count = self._store.count(codec.BOT, tags, up_to=COUNT_UP_TO)
            if count:
                key = version[:VERSION_CHARS], "yes" if release in served else "no"
                found[key] = found.get(key, 0) + count
        rest = self._store.count(codec.BOT, [], up_to=COUNT_UP_TO) - sum(found.values())
        if rest > 0:
            found[metrics.OTHER, "no"] = rest
        return found

    def _conflicts(self) -> int:
        """Bot ids that processes keep taking from each other."""
        since_ms = self._clock.now_ms() - SWAP_WINDOW_MS
        found = 0
        quarantined = find_all(self._store, codec.BOT, [frozenset({"s:quarantined"})])
        for bot in map(codec.read_bot, islice(quarantined, MAX_QUARANTINED)):
            recent = sum(swap.at_ms > since_ms for swap in bot.swaps)
            found += recent >= SWAPS_TO_QUARANTINE
        return found

    def _oldest(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Age of the oldest waiting slice of each pool, from the ends of its queues.

        Within one priority of a queue the oldest stands first, or last in pools that take
        the newest first.
        """
        oldest: dict[str, int] = {}
        lo = ""
        for _ in range(MAX_LOOKS):
            first = self._store.scan_keys(codec.PEND, lo, END, limit=1)
            if not first:
                break
            head = first[0].rsplit("!", 2)[0]
            lo = head + '"'
            last = self._store.scan_keys(codec.PEND, head + "!", lo, limit=1, reverse=True)
            pool = split_key(head)[0]
            for key in (*first, *last):
                created_ms = task_created_ms(split_key(key)[-1])
                oldest[pool] = min(created_ms, oldest.get(pool, created_ms))
        now_ms = self._clock.now_ms()
        for pool, at_ms in oldest.items():
            yield (metrics.pool_label(pool),), max(0.0, (now_ms - at_ms) / 1000)

    def _show(self, found: _Count) -> None:
        """Without a pause, so that nobody sees half of it."""
        for gauge, counts in (
            (metrics.BOTS, found.bots),
            (metrics.BOTS_VERSION, found.versions),
            (metrics.TASKS, found.tasks),
            (metrics.OLDEST_PENDING, found.oldest),
        ):
            gauge.clear()
            for labels, value in counts.items():
                gauge.labels(*labels).set(value)
        metrics.IDENTITY_CONFLICTS.set(found.conflicts)
        metrics.CONFIG_REVISION.set(self._config.cached().rev)
        metrics.ROLLOUT_STAGE.clear()
        rollout = self._archives.deployed().rollout
        if rollout is not None:
            release = rollout.candidate[:VERSION_CHARS]
            metrics.ROLLOUT_STAGE.labels(release, str(rollout.stage)).set(1)
        metrics.FLEET_COUNTED.set(self._clock.now_ms() / 1000)
