"""The latest value of something that may take long, or may never come."""

from collections.abc import Callable
from typing import Generic, TypeVar

from botapi.clock import Clock
from botapi.concurrency import Concurrency, Event

T = TypeVar("T")


class Latest(Generic[T]):
    """Makes a value when it is asked for, in the background and one at a time.

    A value is kept for `keep_s`, and for `load` times as long as it took to make. Who asks
    waits at most `wait_s` for a new one, and not at all for one that is overdue already.
    """

    def __init__(
        self,
        make: Callable[[], T],
        concurrency: Concurrency,
        clock: Clock,
        *,
        keep_s: float,
        wait_s: float,
        load: float = 0.0,
    ) -> None:
        self._make = make
        self._concurrency = concurrency
        self._clock = clock
        self._keep_s = keep_s
        self._wait_s = wait_s
        self._load = load
        self._value: T | None = None
        self._good_until = float("-inf")
        self._begun = 0.0
        self._under_way: Event | None = None

    def get(self) -> T | None:
        """A value that is fresh enough; None when it does not come in time, or not at all."""
        if self._is_fresh():
            return self._value
        done = self._under_way
        if done is None:
            self._begun = self._clock.monotonic()
            done = self._under_way = self._concurrency.event()
            self._concurrency.spawn(self._run, done)
        left = self._wait_s - (self._clock.monotonic() - self._begun)
        if left > 0:
            done.wait(left)
        return self._value if self._is_fresh() else None

    def _is_fresh(self) -> bool:
        return self._clock.monotonic() < self._good_until

    def _run(self, done: Event) -> None:
        began = self._clock.monotonic()
        try:
            self._value = self._make()
            ended = self._clock.monotonic()
            self._good_until = ended + max(self._keep_s, self._load * (ended - began))
        finally:
            self._under_way = None
            done.set()
