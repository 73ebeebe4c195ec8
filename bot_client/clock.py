"""Time and chance: the only module that reads a clock, waits, or draws random numbers.

Durations are seconds as floats; instants are seconds of the monotonic clock unless a name says
``wall``.  Waiting is done on a pipe, because a signal handler may write to a pipe at any moment.
"""

import os
import random
import select
import threading
import time
import uuid
from contextlib import suppress
from typing import Optional, Protocol

MAX_BACKOFF_S = 300.0


class _Waker:
    """A pipe to sleep on: both ends non-blocking and not inherited."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self.write_fd, b"w")

    def clear(self) -> bool:
        woken = False
        with suppress(BlockingIOError):
            while os.read(self.read_fd, 512):
                woken = True
        return woken


class Patience(Protocol):
    """What it takes to pause between two tries."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number drawn evenly from low to high."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait up to that long; true when the wait was cut short."""
        ...


class Clock:
    """The real clock.  One per process; `wake` may be called from any thread or handler.

    The main thread and one other thread (the poster) may wait: each has its own pipe, so that
    neither takes a wake meant for the other.
    """

    def __init__(self) -> None:
        """Open the two wake pipes."""
        self._main = _Waker()
        self._other = _Waker()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix time; only for what people or other hosts read."""
        return time.time()

    def uniform(self, low: float, high: float) -> float:
        """A number drawn evenly from low to high: spreads a fleet's calls."""
        return random.uniform(low, high)

    def new_id(self) -> str:
        """A fresh random UUID, as text."""
        return str(uuid.uuid4())

    def fileno(self) -> int:
        """The descriptor that becomes readable when `wake` is called, for selectors."""
        return self._main.read_fd

    def wake(self) -> None:
        """End the waits in progress, or the next ones.  Safe in signal handlers."""
        self._main.wake()
        self._other.wake()

    def wake_main(self) -> None:
        """End only the main thread's wait: the other thread has news for it."""
        self._main.wake()

    def clear(self) -> bool:
        """Forget wakes that came so far; true when there was one."""
        return self._waker().clear()

    def wait(self, seconds: float) -> bool:
        """Wait up to that long; true when woken before the time was over."""
        waker = self._waker()
        if seconds > 0:
            select.select([waker.read_fd], [], [], seconds)
        return waker.clear()

    def _waker(self) -> _Waker:
        return self._main if threading.current_thread() is threading.main_thread() else self._other


class Timer:
    """A deadline on a clock; unarmed means never due."""

    def __init__(self, clock: Clock) -> None:
        """Start unarmed."""
        self._clock = clock
        self.due_at: Optional[float] = None

    def arm(self, seconds: float) -> None:
        """Be due that many seconds from now."""
        self.due_at = self._clock.now() + seconds

    def is_due(self) -> bool:
        """Has the deadline passed?"""
        return self.due_at is not None and self._clock.now() >= self.due_at

    def remaining(self) -> float:
        """Seconds to the deadline, not below zero; infinite when unarmed."""
        if self.due_at is None:
            return float("inf")
        return max(0.0, self.due_at - self._clock.now())


class Backoff:
    """Pauses after consecutive failures: 0, then base, base**2, ... with 20 % jitter, capped.

    The jitter stays on at the cap: a fleet that lost its server must not return in step.
    """

    def __init__(self, clock: Clock, base: float, cap_s: float = MAX_BACKOFF_S) -> None:
        """``base`` is 1.4 for poll and lease calls, 2.0 for handshakes and loop errors."""
        self._clock = clock
        self._base = base
        self._cap_s = cap_s
        self.failures = 0

    def succeed(self) -> None:
        """Forget the failures."""
        self.failures = 0

    def fail(self) -> float:
        """Count a failure and return the seconds to wait before the next try."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        exponent = min(self.failures - 1, 64)
        return min(self._base**exponent, self._cap_s) * self._clock.uniform(0.8, 1.2)
