"""A store that is away is not waited for by everybody: after some calls in vain, 503 at once.

Reads and writes are judged apart, since one may work without the other (a full disk, a
paused writer). While a circuit is open one call after each pause goes through as a probe;
its success closes the circuit. A call that the store answers, even with a conflict or
"no space left", is a success.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar
from weakref import WeakSet

from botapi.clock import Clock
from botapi.store.protocol import (
    AnyOf,
    Capabilities,
    Doc,
    Key,
    Outage,
    Page,
    SchemaInfo,
    Store,
    StoreFull,
    Txn,
)

T = TypeVar("T")
P = ParamSpec("P")

FAILURES = 5
"""Calls in a row that must fail before the circuit opens."""
FIRST_PROBE_S = 0.5
LONGEST_PROBE_S = 4.0
"""The pause between two probes doubles from the first to the longest."""

log = logging.getLogger(__name__)


class Circuit:
    """One kind of calls. Any thread may call; a race costs a probe more or less.

    A failure that several callers share, since their reads travelled as one, is one failure.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._failures = 0
        self._counted: WeakSet[Outage] = WeakSet()
        self._pause_s = FIRST_PROBE_S
        self._probe_at = 0.0

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What fn gives. Raises Outage without calling it while the circuit is open."""
        if self._failures >= FAILURES:
            self._admit()
        try:
            result = fn(*args, **kwargs)
        except StoreFull:
            self._answered()
            raise
        except Outage as failure:
            self._failed(failure)
            raise
        except BaseException:
            self._answered()
            raise
        if self._failures:
            self._answered()
        return result

    def _admit(self) -> None:
        """Let the one call through that finds out whether the store is back."""
        now = self._clock.monotonic()
        if now < self._probe_at:
            raise Outage(f"the store did not answer the last {self._name}")
        self._probe_at = now + self._pause_s  # whoever comes while the probe waits is refused
        self._pause_s = min(LONGEST_PROBE_S, 2 * self._pause_s)

    def _failed(self, failure: Outage) -> None:
        if failure in self._counted:
            return
        self._counted.add(failure)
        self._failures += 1
        if self._failures == FAILURES:
            log.error("the store did not answer %d %s: refused from now", FAILURES, self._name)
            self._probe_at = self._clock.monotonic() + self._pause_s

    def _answered(self) -> None:
        if self._failures >= FAILURES:
            log.warning("the store answers %s again", self._name)
        self._failures = 0
        self._pause_s = FIRST_PROBE_S


class Breaker:
    """The store behind two circuits; see the protocol for what each call does."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._reads = Circuit("reads", clock)
        self._writes = Circuit("writes", clock)
        self.watch = store.watch
        self.subscribe = store.subscribe
        self.close = store.close

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A read."""
        return self._reads.call(self._store.get, kind, *keys)

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """A read."""
        return self._reads.call(self._store.scan, kind, lo, hi, limit=limit, reverse=reverse)

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """A read."""
        return self._reads.call(self._store.scan_keys, kind, lo, hi, limit=limit, reverse=reverse)

    def find(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        after: Key | None,
        limit: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> Page:
        """A read."""
        return self._reads.call(
            self._store.find, kind, all_of, after=after, limit=limit, lo=lo, hi=hi
        )

    def count(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        up_to: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> int:
        """A read."""
        return self._reads.call(self._store.count, kind, all_of, up_to=up_to, lo=lo, hi=hi)

    def kinds(self) -> list[str]:
        """A read."""
        return self._reads.call(self._store.kinds)

    def schema(self) -> SchemaInfo:
        """A read."""
        return self._reads.call(self._store.schema)

    def transact(self, fn: Callable[[Txn], T], *, label: str, deadline_s: float = 10.0) -> T:
        """A write."""
        return self._writes.call(self._store.transact, fn, label=label, deadline_s=deadline_s)

    def take(
        self,
        kind: str,
        ranges: Sequence[tuple[Key, Key]],
        n: int,
        fn: Callable[[Txn, list[Doc]], T],
        *,
        label: str,
        deadline_s: float = 10.0,
    ) -> T:
        """A write."""
        return self._writes.call(
            self._store.take, kind, ranges, n, fn, label=label, deadline_s=deadline_s
        )

    def write_many(self, docs: Iterable[tuple[str, Doc]]) -> None:
        """A write."""
        self._writes.call(self._store.write_many, docs)

    def sweep_expired(self, kind: str, now_ms: int, limit: int) -> int:
        """A write."""
        return self._writes.call(self._store.sweep_expired, kind, now_ms, limit)

    def capabilities(self) -> Capabilities:
        """From memory."""
        return self._store.capabilities()
