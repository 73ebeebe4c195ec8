"""Reads by key: those of one kind that are asked for in one moment travel as one statement.

When the held calls of many bots end together, their polls arrive together too, and each would
be a turn of a thread and a round trip of its own.
"""

import _thread
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from botapi.concurrency import Concurrency
from botapi.store.postgres_pool import Job, Lanes, Session
from botapi.store.protocol import Doc, Key

READ_S = 10.0
"""How long a read may take."""
MOST_KEYS = 256
"""In a statement of several callers; who asks for more travels alone."""

Read: TypeAlias = Callable[[Session, Job, str, Sequence[Key]], list[Doc]]


@dataclass(frozen=True, slots=True)
class _Together:
    """One statement; more keys may join it until it is sent."""

    keys: dict[Key, None]
    job: Job


class PointReads:
    """The reads of this process. `read` is one statement, on the thread of a session.

    Those of one thread travel together, which are those of the loop: who has a thread of its own
    asks for one at a time.
    """

    def __init__(self, lanes: Lanes, concurrency: Concurrency, read: Read) -> None:
        self._lanes = lanes
        self._concurrency = concurrency
        self._read = read
        self._open: dict[tuple[str, int], _Together] = {}

    def get(self, kind: str, keys: Sequence[Key]) -> dict[Key, Doc]:
        """These documents as far as they are there, and maybe more. Raises Outage in time."""
        at = kind, _thread.get_native_id()
        together = self._open.get(at)
        is_new = together is None or len(together.keys) + len(keys) > MOST_KEYS
        if together is None or is_new:
            together = self._open[at] = self._begin(kind)
        together.keys.update(dict.fromkeys(keys))
        if is_new:
            self._concurrency.soon(partial(self._send, at, together))
        together.job.wait()
        found: dict[Key, Doc] = together.job.box.get()
        return found

    def _begin(self, kind: str) -> _Together:
        keys: dict[Key, None] = {}

        def work(session: Session, job: Job) -> dict[Key, Doc]:
            return {doc.key: doc for doc in self._read(session, job, kind, list(keys))}

        return _Together(keys, self._lanes.job(work, READ_S))

    def _send(self, at: tuple[str, int], together: _Together) -> None:
        if self._open.get(at) is together:
            del self._open[at]
        self._lanes.put(together.job)
