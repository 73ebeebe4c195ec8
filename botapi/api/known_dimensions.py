"""Which dimensions bots have, pool by pool: looked up now and then, kept in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from botapi.clock import Clock
from botapi.concurrency import Concurrency, Event
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.store import codec
from botapi.store.protocol import Store
from botapi.store.walk import find_all

KEEP_S = 120.0
"""Age at which they are looked up again (prpc-api 5.8)."""
WAIT_S = 20.0
"""Longest wait for the look-up of somebody else."""
PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """Flat `key:value` dimensions at one moment: of all bots, and of those of each pool."""

    at_ms: int
    looked_at: float
    of_all: frozenset[str]
    by_pool: Mapping[str, frozenset[str]]


class KnownDimensions:
    """One look-up at a time, on a native thread; dead bots count while they exist."""

    def __init__(self, store: Store, concurrency: Concurrency, clock: Clock) -> None:
        self._store = store
        self._concurrency = concurrency
        self._clock = clock
        self._found: Found | None = None
        self._under_way: Event | None = None

    def found(self) -> Found:
        """The dimensions, less than `KEEP_S` old.

        Raises what the store raises, and Refusal UNAVAILABLE when another call's look-up failed.
        """
        if self._under_way is not None:
            self._under_way.wait(WAIT_S)
        elif not self._is_fresh():
            self._under_way = self._concurrency.event()
            try:
                self._found = self._concurrency.native(self._look)
            finally:
                done, self._under_way = self._under_way, None
                done.set()
        if self._found is None or not self._is_fresh():
            raise Refusal(Code.UNAVAILABLE, "the dimensions could not be looked up")
        return self._found

    def _is_fresh(self) -> bool:
        found = self._found
        return found is not None and self._clock.monotonic() - found.looked_at < KEEP_S

    def _look(self) -> Found:
        at_ms, looked_at = self._clock.now_ms(), self._clock.monotonic()
        of_all: set[str] = set()
        by_pool: dict[str, set[str]] = {}
        for doc in find_all(self._store, codec.BOT, [], limit=PAGE):
            flat = codec.read_bot(doc).dimensions
            of_all.update(flat)
            for pool in unflatten(flat).get("pool", ()):
                by_pool.setdefault(pool, set()).update(flat)
        kept = {pool: frozenset(flat) for pool, flat in by_pool.items()}
        return Found(at_ms, looked_at, frozenset(of_all), kept)
