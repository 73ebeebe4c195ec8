"""One call on a thread of its own, while the main thread watches."""

import threading
from collections.abc import Callable
from typing import Optional

from bot_client.clock import Clock


class Chore:
    """Started when it is made; its end wakes the main thread."""

    def __init__(self, act: Callable[[], None], clock: Clock) -> None:
        """``act`` ends early only when it is told to in a way of its own."""
        self._act = act
        self._clock = clock
        self._error: Optional[BaseException] = None
        self._done = False
        threading.Thread(target=self._work, name="files", daemon=True).start()

    def _work(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - it rises again in `result`
            self._error = error
        self._done = True
        self._clock.wake_main()

    def is_done(self) -> bool:
        """Has it ended, well or not?"""
        return self._done

    def result(self) -> None:
        """Raise what it raised."""
        if self._error is not None:
            raise self._error
