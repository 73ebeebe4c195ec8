"""Running a transaction function until it commits, in one place for all engines.

An engine makes one attempt; `Transactions` repeats it and builds on it everything that
is a transaction of a fixed shape.  Wrappers that inject faults stand between the two.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from botapi import metrics
from botapi.clock import Clock, Rng, SystemRng
from botapi.concurrency import Concurrency
from botapi.store.documents import check_limit, parts
from botapi.store.protocol import Ambiguous, Conflict, Doc, Key, Outage, Txn

T = TypeVar("T")

FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.5
DEADLINE_S = 10.0
WRITE_MANY_PART = 500
WRITE_MANY_BYTES = 3 * 1024 * 1024
"""Bodies of one part; what the smallest engine takes in one commit."""

log = logging.getLogger(__name__)


class EngineTxn(Txn, Protocol):
    """What an engine offers inside an attempt beyond `Txn`: bounded reads of its own."""

    def heads(self, kind: str, ranges: Sequence[tuple[Key, Key]], n: int) -> list[Doc]:
        """Up to n documents of each range, lowest keys first, that nobody else is taking.

        A document that lies in two ranges is given once.
        """
        ...

    def expired(self, kind: str, now_ms: int, limit: int) -> list[Key]:
        """Keys of at most `limit` documents whose `expire_at` is at or before now."""
        ...


class Transactions(ABC):
    """The transactions of a store, for an engine that can make one attempt."""

    def __init__(self, concurrency: Concurrency, clock: Clock, rng: Rng | None = None) -> None:
        self.concurrency = concurrency
        self.clock = clock
        self.rng = rng or SystemRng()

    @abstractmethod
    def attempt(self, fn: Callable[[EngineTxn], T], *, timeout_s: float) -> T:
        """Run fn once and commit.

        Raises Conflict (nothing written, try again), Ambiguous (perhaps written, try
        again; also after `timeout_s` seconds), another StoreError, or what fn raised.
        """

    def transact(self, fn: Callable[[Txn], T], *, label: str, deadline_s: float = DEADLINE_S) -> T:
        """Run fn and commit; see the protocol."""
        return self.until_done(fn, label, deadline_s)

    def take(
        self,
        kind: str,
        ranges: Sequence[tuple[Key, Key]],
        n: int,
        fn: Callable[[Txn, list[Doc]], T],
        *,
        label: str,
        deadline_s: float = DEADLINE_S,
    ) -> T:
        """Give fn the heads of the ranges; see the protocol."""
        check_limit(n)
        return self.until_done(lambda txn: fn(txn, txn.heads(kind, ranges, n)), label, deadline_s)

    def write_many(self, docs: Iterable[tuple[str, Doc]]) -> None:
        """Put the documents in parts of WRITE_MANY_PART, or fewer when they are large."""
        for part in parts(docs, WRITE_MANY_PART, WRITE_MANY_BYTES):
            self.until_done(partial(_put_all, part), "write_many", DEADLINE_S)

    def sweep_expired(self, kind: str, now_ms: int, limit: int) -> int:
        """Delete expired documents; see the protocol."""
        check_limit(limit)

        def sweep(txn: EngineTxn) -> int:
            keys = txn.expired(kind, now_ms, limit)
            for key in keys:
                txn.delete(kind, key)
            return len(keys)

        return self.until_done(sweep, "sweep_expired", DEADLINE_S)

    def until_done(self, fn: Callable[[EngineTxn], T], label: str, deadline_s: float) -> T:
        """Attempt fn until it commits, fails in a final way, or the deadline is over."""
        began = self.clock.monotonic()
        staged, measured = metrics.Staged(fn), metrics.operation(label)
        try:
            result = self._repeat(staged, measured, label, deadline_s)
        finally:
            measured.seconds.observe(self.clock.monotonic() - began)
        measured.committed.inc()
        staged.committed()
        return result

    def _repeat(
        self,
        fn: Callable[[EngineTxn], T],
        measured: metrics.Operation,
        label: str,
        deadline_s: float,
    ) -> T:
        end = self.clock.monotonic() + deadline_s
        tries = 0
        unknown: Ambiguous | None = None
        while True:
            tries += 1
            try:
                return self.attempt(fn, timeout_s=max(0.0, end - self.clock.monotonic()))
            except Exception as error:
                measured.lost(_outcome(error))
                unknown = error if isinstance(error, Ambiguous) else unknown
                left = end - self.clock.monotonic()
                may_again = isinstance(error, (Conflict, Ambiguous))
                if may_again and left <= 0:
                    error.add_note(f"{label}: gave up after {tries} tries in {deadline_s} s")
                if not may_again or left <= 0:
                    _keep_unknown(error, unknown)
                    raise
                log.debug("%s: try %d ended with %r", label, tries, error)
                self.concurrency.sleep(min(left, self._pause_s(tries)))

    def _pause_s(self, tries: int) -> float:
        """Full jitter: anything up to a bound that doubles, so that rivals spread out."""
        return self.rng.uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries, 10)))


def _keep_unknown(error: Exception, unknown: Ambiguous | None) -> None:
    """Raise Ambiguous for a last error that would say that no try has written anything."""
    if unknown not in {None, error} and isinstance(error, (Conflict, Outage)):
        raise Ambiguous(f"{unknown}; tried again: {error}") from error


def _outcome(error: Exception) -> str:
    """How a try ended that did not commit, in one word of few."""
    if isinstance(error, Conflict):
        return "conflict"
    if isinstance(error, Ambiguous):
        return "ambiguous"
    return "outage" if isinstance(error, Outage) else "failed"


def _put_all(docs: list[tuple[str, Doc]], txn: Txn) -> None:
    for kind, doc in docs:
        txn.put(kind, doc)
