"""Can this process serve? Asked by whoever balances the load, answered from memory or in time.

A server whose clock lies behind the newest stamp in its store would make tasks that seem
older than those that are there, and would hold timers back: it says that it is not ready. So
does one without the key file of secrets that were made elsewhere, as their tasks would fail here.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from botapi import logs, metrics
from botapi.cfg.provider import Provider
from botapi.clock import Clock
from botapi.concurrency import Concurrency
from botapi.domain.names import TASK_EPOCH_MS, request_key
from botapi.scheduler.latest import Latest
from botapi.scheduler.sweeps import DUTY, DUTY_MS
from botapi.store import codec
from botapi.store.protocol import Store, StoreError, join_key
from botapi.store.walk import END
from botapi.transactions.note_clock import note_clock

KEEP_S = 2.0
"""Age of an answer that is given again."""
WAIT_S = 2.0
"""Longest wait for the store; after it the store counts as away."""
CLOCK_EVERY_S = 5.0
"""Between two looks at the newest stamps and the key file, while somebody asks."""
WATCH_EVERY_S = 60.0
"""Between two looks when nobody asks."""
CLOCK_TOLERANCE_MS = 300_000
"""How far the newest stamp of the store may lie in the future."""

log = logging.getLogger(__name__)

CHECKS = ("store", "schema", "clock", "secrets", "bot_archive")


@dataclass(frozen=True, slots=True)
class Found:
    """What fails and keeps the server from serving, and what fails and does not."""

    failing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """May requests come?"""
        return not self.failing


class Readiness:
    """The checks of one process."""

    def __init__(
        self,
        store: Store,
        config: Provider,
        concurrency: Concurrency,
        clock: Clock,
        *,
        load_keys: Callable[[], object],
        archive_problem: Callable[[], str],
        secrets_problem: Callable[[], str],
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._load_keys = load_keys
        self._archive_problem = archive_problem
        self._secrets_problem = secrets_problem
        self._sealed = ""
        self._behind_ms = 0
        self._was_behind = False
        self._next_clock = float("-inf")
        self._next_watch = clock.monotonic() + WATCH_EVERY_S
        self._latest = Latest(self._look, concurrency, clock, keep_s=KEEP_S, wait_s=WAIT_S)

    def found(self) -> Found:
        """What fails now; within `WAIT_S`, whatever the store does."""
        found = self._latest.get() or Found(("store",))
        for check in CHECKS:
            is_good = check not in {*found.failing, *found.warnings}
            metrics.READY.labels(check).set(is_good)
        return found

    def watch(self) -> None:
        """Look at the clock now and then, also when nobody asks. Raises StoreError."""
        if self._clock.monotonic() >= self._next_watch:
            self._next_watch = self._clock.monotonic() + WATCH_EVERY_S
            self._look_at_clock()

    def _look(self) -> Found:
        failing = []
        try:
            numbers = self._store.schema()
            if numbers.active > numbers.known:
                failing.append("schema")
            self._config.cached()
            self._load_keys()
            if self._clock.monotonic() >= self._next_clock:
                self._look_at_clock()
                self._look_at_secrets()
        except StoreError as error:
            log.warning("not ready: the store: %s", error)
            failing.append("store")
        if self._was_behind:
            failing.append("clock")
        if self._sealed:
            failing.append("secrets")
        warnings = ("bot_archive",) if self._archive_problem() else ()
        return Found(tuple(failing), warnings)

    def _look_at_secrets(self) -> None:
        before, self._sealed = self._sealed, self._secrets_problem()
        if self._sealed and self._sealed != before:
            said = logs.event("secrets_cannot_be_opened")
            log.error("secrets cannot be opened here: %s", self._sealed, extra=said)

    def _look_at_clock(self) -> None:
        now_ms = self._clock.now_ms()
        behind_ms = max(0, self._newest_stamp_ms() - now_ms)
        self._next_clock = self._clock.monotonic() + CLOCK_EVERY_S
        metrics.CLOCK_BEHIND.set(behind_ms / 1000)
        is_behind = behind_ms > CLOCK_TOLERANCE_MS
        if is_behind is self._was_behind:
            return
        self._was_behind = is_behind
        if is_behind:
            said = logs.event("clock_behind_store", behind_s=behind_ms // 1000)
            log.error(
                "the newest stamp of the store is %d s after this clock: set the clock",
                behind_ms // 1000,
                extra=said,
            )
            note_clock(self._store, now_ms=now_ms, behind_ms=behind_ms)
        else:
            log.warning(
                "this clock and the store agree again", extra=logs.event("clock_agrees_with_store")
            )

    def _newest_stamp_ms(self) -> int:
        """Of the newest task, change by a person, configuration and duty."""
        newest = self._store.scan_keys(codec.TASK, "", END, limit=1)
        changes = self._store.scan(codec.AUDIT, "", END, limit=1)
        duties = filter(None, self._store.get(codec.DUTY, join_key(DUTY)))
        return max(
            self._config.cached().applied_at_ms,
            *((request_key(int(key, 16)) >> 20) + TASK_EPOCH_MS for key in newest),
            *(int(change.body["at_ms"]) for change in changes),
            *(int(duty.body["until_ms"]) - DUTY_MS for duty in duties),
            0,
        )
