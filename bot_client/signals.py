"""Signals to the supervisor: the first drains, the second stops the task, the third kills.

The handlers only count and wake; a call that may be cut short says so with `cut_short`.
"""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Optional

from bot_client.clock import Clock
from bot_client.errors import EXIT_CRASH, Interrupted


class Signals:
    """What the outside has asked for so far; lives in the main thread."""

    def __init__(self, clock: Clock) -> None:
        """``on_third`` runs in the handler of the third signal, before the process ends."""
        self._clock = clock
        self._limit: Optional[int] = None
        self.count = 0
        self.leash_lost = False
        self.first_at: Optional[float] = None
        self.on_third: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Take over SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self.first_at is None:
            self.first_at = self._clock.now()
        self._clock.wake()
        if self.count >= 3 and not self.leash_lost:
            self.on_third()
            os._exit(EXIT_CRASH)
        if self._limit is not None and self.count >= self._limit:
            self._limit = None
            raise Interrupted("a signal came")

    def stop_asked(self) -> bool:
        """Is the bot to leave when it is free?"""
        return self.count > 0

    def stop_now(self) -> bool:
        """Is even a running task to be stopped?"""
        return self.count > 1 or self.leash_lost

    @contextmanager
    def cut_short(self, count: int) -> Iterator[None]:
        """Inside, the count-th signal raises Interrupted; at once if it already came."""
        self._limit = count
        try:
            if self.count >= count:
                raise Interrupted("a signal came")
            yield
        finally:
            self._limit = None

    def watch_leash(self, fd: int) -> None:
        """When the starter is gone (end of file on fd), stop as after two signals."""

        def watch() -> None:
            with suppress(OSError):
                while os.read(fd, 64):
                    pass
            self.leash_lost = True
            os.kill(os.getpid(), signal.SIGTERM)
            # The signal may have met another thread than the one that waits.
            self._clock.wake()

        threading.Thread(target=watch, name="leash", daemon=True).start()


def dump_stacks_on_usr1(log: IO[str]) -> None:
    """SIGUSR1 writes the stacks of all threads to the log; the process goes on."""
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, file=log, all_threads=True)
