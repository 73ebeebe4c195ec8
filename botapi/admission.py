"""Who is let in when a fleet comes back all at once (docs/operations.md).

What is expensive (a handshake, an archive, an enrolment) is done for a bounded number of
callers at a time; a few more wait, for a bounded time; everybody else is turned away with 429
and a time to come back, which is drawn for each of them, before anything is read of the store.
Calls of a bot that is at work are never turned away.

A connection that is new while the process is behind with its work is turned away by its first
line (`turned_away`), before a request is made of it: that costs a tenth, and a herd that does not
listen to `Retry-After` comes back every few seconds.
"""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from botapi import metrics
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency, Event
from botapi.domain.errors import Code, Refusal

AT_ONCE = 16
"""Expensive calls of a process that are worked on."""
MAX_WAITING = 200
"""Expensive calls that wait for one of these places."""
WAIT_S = 1.0
"""Longest that a call waits for its place."""
SPREAD_S = 50
"""Who is turned away is told to come back within so many seconds, evenly spread.

Our bot adds up to a fifth: so all are back within a minute.
"""
BEHIND_S = 0.25
"""A process whose loop is so late turns new connections of bots away."""
QUEUED = 64
"""Connections that wait to be accepted: with more, a process that shares them is behind, though
its own loop may be in time, as it takes a few of them in a turn."""
AT_A_TIME = 64
"""New connections that are let in between two looks at how late the loop is, a tenth of a second.

Else a herd is let in by hundreds before the loop is late.
"""
FEW = 20
"""New connections in a second that are let in even then: a slow machine is no herd.

So many in a second come back soon to a store that could not serve them.
"""
FEW_QUEUED = 5
"""The same while many wait to be accepted: those let in have waited long themselves."""
WAITED_S = 1.0
"""A connection that was accepted so late is turned away too: others wait behind it."""
SAY_EVERY_S = 5.0
BUSY = "too many bots come at once; come back later"
DEFERRED = (
    b"POST /swarming/api/v1/bot/handshake ",
    b"POST /swarming/api/v1/bot/poll ",
    b"POST /swarming/api/v1/bot/rbe/session/",
    b"GET /swarming/api/v1/bot/bot_code",
    b"GET /skep/v1/bot_code/",
    b"GET /bot_code",
    b"GET /bootstrap",
    b"POST /skep/v1/enroll ",
)
"""First words of the requests that a bot without work makes; they may come later as well."""
FIRST_WORDS = max(map(len, DEFERRED))

log = logging.getLogger(__name__)


class _Waiter(NamedTuple):
    has_place: Event


class _InASecond:
    """How many there were in this second."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._number = 0

    def count(self, now_s: float) -> int:
        """One more."""
        if now_s - self._since_s >= 1.0:
            self._number, self._since_s = 0, now_s
        self._number += 1
        return self._number


class Admission:
    """The places of one process. Calls come from greenlets or threads of one loop."""

    def __init__(self, concurrency: Concurrency, clock: Clock, rng: Rng) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._rng = rng
        self._inside = 0
        self._waiting: deque[_Waiter] = deque()
        self._late_s = 0.0
        self._queued = 0
        self._new = 0
        self._come = _InASecond()
        self._outages = _InASecond()
        self._turned_away = 0
        self._say_at = 0.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one expensive call. Raises Refusal RESOURCE_EXHAUSTED with a time."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def note_late(self, seconds: float, queued: int = 0) -> None:
        """How much later than wanted the loop did something just now, and how many connections
        nobody has accepted yet."""
        self._late_s, self._queued, self._new = seconds, queued, 0

    def note_new(self) -> None:
        """One more connection was accepted."""
        self._new += 1

    def is_behind(self) -> bool:
        """Is more asked of this process now than it can do soon?"""
        is_late = self._late_s > BEHIND_S or self._queued > QUEUED
        return is_late or len(self._waiting) >= MAX_WAITING

    def is_too_much(self, waited_s: float) -> bool:
        """Is `turned_away` to be asked of a connection that waited so long?"""
        return self._new > AT_A_TIME or waited_s > WAITED_S or self.is_behind()

    def turned_away(self, first_words: bytes, waited_s: float = 0.0) -> bytes:
        """The whole answer to a request that begins so; empty when it is let in."""
        is_deferred = first_words.startswith(DEFERRED)
        if not self.is_too_much(waited_s) or not is_deferred or self._are_few():
            return b""
        line = f"rpc error: code = {Code.RESOURCE_EXHAUSTED.wire_name} desc = {BUSY}\n".encode()
        head = (
            "HTTP/1.1 429 Too Many Requests\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            f"Retry-After: {self.come_back_s()}\r\n"
            f"Content-Length: {len(line)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + line

    def _are_few(self) -> bool:
        """Count one that came; are there FEW of them in this second?"""
        come = self._come.count(self._clock.monotonic())
        return come <= (FEW_QUEUED if self._queued > QUEUED else FEW)

    def come_back_s(self) -> int:
        """When somebody who is turned away should come back; also counts them."""
        self._turned_away += 1
        metrics.TURNED_AWAY.inc()
        now = self._clock.monotonic()
        if now >= self._say_at:
            self._say_at = now + SAY_EVERY_S
            log.warning(
                "turned away %d calls: more bots come than can be let in", self._turned_away
            )
            self._turned_away = 0
        return self._drawn_s()

    def after_outage_s(self, first_words: bytes, soon_s: int) -> int:
        """When somebody should come back whom the store could not serve: in `soon_s` seconds.

        But for calls that may come later where many are told so: they would keep it down.
        """
        if not first_words.startswith(DEFERRED):
            return soon_s
        return soon_s if self._outages.count(self._clock.monotonic()) <= FEW else self._drawn_s()

    def _drawn_s(self) -> int:
        return 1 + int(self._rng.uniform(0, SPREAD_S))

    def _enter(self) -> None:
        if self._inside < AT_ONCE and not self._waiting:
            self._inside += 1
            return
        if self.is_behind():
            raise self._refusal()
        waiter = _Waiter(self._concurrency.event())
        self._waiting.append(waiter)
        if waiter.has_place.wait(WAIT_S):
            return
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            raise self._refusal()

    def _leave(self) -> None:
        """The place goes to who waits longest."""
        if self._waiting:
            self._waiting.popleft().has_place.set()
        else:
            self._inside -= 1

    def _refusal(self) -> Refusal:
        return Refusal(Code.RESOURCE_EXHAUSTED, BUSY, retry_after_s=self.come_back_s())
