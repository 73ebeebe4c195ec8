"""Subscribers of one process, and waiting for a topic on top of them."""

import logging
from collections.abc import Callable, Iterable, Sequence

from botapi.concurrency import Concurrency, native_lock

ANY_TOPIC = "*"
"""Published when something may have been missed."""

log = logging.getLogger(__name__)


class Topics:
    """Who wants to hear of notifications; every method may be called from any thread."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency
        self._lock = native_lock()
        self._callbacks: tuple[Callable[[str], None], ...] = ()

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have `callback(topic)` called from now on; returns what ends it, any number of times."""

        def heard(topic: str) -> None:
            callback(topic)

        def end() -> None:
            with self._lock:
                self._callbacks = tuple(c for c in self._callbacks if c is not heard)

        with self._lock:
            self._callbacks = (*self._callbacks, heard)
        return end

    def publish(self, topics: Iterable[str]) -> None:
        """Call every subscriber with every topic; one that raises is logged and does no harm."""
        callbacks = self._callbacks
        if not callbacks:
            return
        for topic in topics:
            for callback in callbacks:
                try:
                    callback(topic)
                except Exception:
                    log.exception("a subscriber failed on topic %r", topic)

    def watch(self, topics: Sequence[str], timeout_s: float) -> set[str]:
        """Wait until one of the topics is published; the ones heard by then."""
        exact = {topic for topic in topics if not topic.endswith("*")}
        prefixes = tuple(topic[:-1] for topic in topics if topic.endswith("*"))
        heard: set[str] = set()
        woken = self._concurrency.event()

        def hear(topic: str) -> None:
            if topic == ANY_TOPIC or topic in exact or topic.startswith(prefixes):
                heard.add(topic)
                woken.set()

        end = self.subscribe(hear)
        try:
            woken.wait(timeout_s)
        finally:
            end()
        return set(heard)
