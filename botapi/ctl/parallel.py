"""Some calls at once. Ctrl-C ends the command at once: nobody waits for calls under way."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """The results in the order of the items, `jobs` under way or waiting to be taken at most.

    An item is taken from `items` only when its turn comes. What the function raises rises here.
    """
    asked: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()

    def work() -> None:
        while (job := asked.get()) is not None:
            future, item = job
            try:
                future.set_result(function(item))
            except BaseException as error:  # noqa: BLE001 - carried over to who waits
                future.set_exception(error)

    for _ in range(jobs):
        threading.Thread(target=work, daemon=True).start()
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(Future())
            asked.put((pending[-1], item))
            if len(pending) >= jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for _ in range(jobs):
            asked.put(None)
