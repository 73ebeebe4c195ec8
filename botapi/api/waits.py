"""Held calls: whoever waits for tasks is woken when one of them changes.

One subscription a process; the waiters stand by task id. A hint of the store may be lost,
so every waiter looks again by itself every `LOOK_AGAIN_S`. Nothing here blocks the loop.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from botapi.clock import Clock
from botapi.concurrency import Concurrency, Event, native_lock
from botapi.store.protocol import Store

LOOK_AGAIN_S = 2.0
FIRST_LOOK_S = 0.001
"""Before the first look, which hardly ever finds an end: whoever waits has just made the task, or
knows that it goes on, and the bot that gets it is to be answered first."""
TOPIC = "task!"

Look = Callable[[Collection[str]], bool]
"""Given the tasks that may have changed, says whether the wait is over."""


@dataclass(slots=True, eq=False)
class _Waiter:
    event: Event
    task_ids: frozenset[str]
    changed: set[str] = field(default_factory=set)


class Waits:
    """The held calls of this process. Any thread may call."""

    def __init__(self, store: Store, concurrency: Concurrency, clock: Clock) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._lock = native_lock()
        self._by_task: dict[str, set[_Waiter]] = {}
        self._closed = False
        self._unsubscribe = store.subscribe(self._hear)

    def until(self, task_ids: Collection[str], timeout_s: float, look: Look) -> bool:
        """Call `look` soon and at every change until it says True; False after `timeout_s`.

        The first call and those after a possibly lost hint are given all the tasks. After
        `close` nobody is held any more: `look` is called once.
        """
        if timeout_s <= 0 or self._closed:
            return look(task_ids)
        waiter = _Waiter(self._concurrency.event(), frozenset(task_ids))
        self._enter(waiter)
        try:
            self._concurrency.sleep(FIRST_LOOK_S)
            return self._wait(waiter, timeout_s, look)
        finally:
            self._leave(waiter)

    def waiting_count(self) -> int:
        """For how many tasks somebody waits."""
        return len(self._by_task)

    def close(self) -> None:
        """Answer every held call now, and hold none any more: the process is stopping."""
        self._closed = True
        self._unsubscribe()
        with self._lock:
            waiters = set().union(*self._by_task.values())
        for waiter in waiters:
            waiter.event.set()

    def _wait(self, waiter: _Waiter, timeout_s: float, look: Look) -> bool:
        end = self._clock.monotonic() + timeout_s
        changed: Collection[str] = waiter.task_ids
        while not look(changed):
            left = end - self._clock.monotonic()
            if left <= 0 or self._closed:
                return False
            woken = waiter.event.wait(min(left, LOOK_AGAIN_S))
            waiter.event.clear()
            if not woken and left <= LOOK_AGAIN_S:
                return look(waiter.task_ids)
            changed = self._changed(waiter) if woken else waiter.task_ids
        return True

    def _changed(self, waiter: _Waiter) -> Collection[str]:
        with self._lock:
            changed, waiter.changed = waiter.changed, set()
        return changed or waiter.task_ids

    def _enter(self, waiter: _Waiter) -> None:
        with self._lock:
            for task_id in waiter.task_ids:
                self._by_task.setdefault(task_id, set()).add(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            for task_id in waiter.task_ids:
                others = self._by_task.get(task_id)
                if others is not None:
                    others.discard(waiter)
                    if not others:
                        del self._by_task[task_id]

    def _hear(self, topic: str) -> None:
        """A commit somewhere changed a task; runs on any thread."""
        if topic == "*":
            with self._lock:
                waiters = set().union(*self._by_task.values())
                for waiter in waiters:
                    waiter.changed |= waiter.task_ids
        elif topic.startswith(TOPIC):
            task_id = topic[len(TOPIC) :]
            with self._lock:
                waiters = set(self._by_task.get(task_id, ()))
                for waiter in waiters:
                    waiter.changed.add(task_id)
        else:
            return
        for waiter in waiters:
            waiter.event.set()
