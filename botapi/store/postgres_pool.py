"""Connections to PostgreSQL, each with a native thread of its own that does one job at a time.

Under gevent the server's loop waits for an event while a thread waits for the network.
Whoever asked waits no longer than it said: then its job is abandoned, and what is under way
ends by the deadline that it carries.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from botapi.clock import SystemClock
from botapi.concurrency import Box, Concurrency, Event, native_lock, native_queue, start_native
from botapi.store.postgres_wire import Answer, Broken, Connection, Refused, Statement
from botapi.store.protocol import Ambiguous, Conflict, Outage, StoreError, StoreFull

T = TypeVar("T")

CLOSE_S = 20.0
"""How long closing waits for the jobs that are queued."""

LOST_RACE = frozenset({"40001", "40P01", "55P03", "25P02"})
"""Serialization, deadlock, a lock not had in time, and what follows from them."""
NO_TABLE = "42P01"
TAKEN = "23505"
READ_ONLY = "25006"
FULL = "53100"

log = logging.getLogger(__name__)
monotonic = SystemClock().monotonic


class Session:
    """The connection of one thread, made when it is needed and again when it broke."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None

    def connected(self, deadline: float) -> Connection:
        """The connection. Raises Outage when there is none to be had."""
        if self._connection is None:
            try:
                self._connection = Connection(self._conninfo, deadline)
            except Broken as error:
                raise Outage(f"PostgreSQL cannot be reached: {error}") from error
        return self._connection

    def run(self, statements: list[Statement], deadline: float) -> list[Answer]:
        """One round trip. Raises Refused or Broken; a broken connection is dropped."""
        connection = self.connected(deadline)
        try:
            return connection.run(statements, deadline)
        except Broken:
            self.drop()
            raise
        except Refused as error:
            if error.sqlstate == READ_ONLY:  # a standby by now: look for the new primary
                self.drop()
            raise

    @property
    def is_connected(self) -> bool:
        """Is there a connection, as far as we know?"""
        return self._connection is not None

    @property
    def in_transaction(self) -> bool:
        """Does the connection hold a transaction open, failed or not?"""
        return self._connection is not None and self._connection.in_transaction

    def drop(self) -> None:
        """End the connection; the next use makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Job:
    """Work on its way through a thread; `deadline` in monotonic seconds."""

    def __init__(
        self, work: Callable[[Session, "Job"], Any], ready: Event, timeout_s: float
    ) -> None:
        self.work = work
        self.deadline = monotonic() + timeout_s
        self.box: Box[Any] = Box(ready)
        self._ready = ready
        self.after: Callable[[], None] | None = None
        """Called on the thread once whoever asked has its answer."""
        self._lock = native_lock()
        self._abandoned = False
        self._committing = False

    def wait(self) -> None:
        """Until the box is filled. Raises Outage or Ambiguous after the deadline."""
        if not self._ready.wait(max(0.0, self.deadline - monotonic())):
            raise self.abandon()

    @property
    def is_abandoned(self) -> bool:
        """Does nobody wait for it any more?"""
        return self._abandoned

    def begin_commit(self) -> None:
        """From here on the outcome may be unknown. Raises Outage when nobody waits any more."""
        with self._lock:
            if self._abandoned:
                raise Outage("given up before the commit")
            self._committing = True

    def abandon(self) -> StoreError:
        """Wait no longer; what to tell the one who did."""
        with self._lock:
            self._abandoned = True
            if self._committing:
                return Ambiguous("PostgreSQL did not answer the commit in time")
        return Outage("PostgreSQL did not answer in time")


class Lanes:
    """Up to `size` threads, started when there is more to do than there are threads."""

    def __init__(self, conninfo: str, size: int, concurrency: Concurrency) -> None:
        self._conninfo = conninfo
        self._size = size
        self._concurrency = concurrency
        self._queue = native_queue()
        self._gate = native_lock()
        self._ended = concurrency.event()
        self._closed = False
        self._threads = 0
        self._jobs = 0

    def run(self, work: Callable[[Session, Job], T], timeout_s: float) -> T:
        """What work gives. Raises Outage or Ambiguous after the timeout."""
        job = self.job(work, timeout_s)
        self.put(job)
        job.wait()
        result: T = job.box.get()
        return result

    def job(self, work: Callable[[Session, Job], Any], timeout_s: float) -> Job:
        """One to be put here, within `timeout_s` to be done."""
        return Job(work, self._concurrency.event(), timeout_s)

    def put(self, job: Job) -> None:
        """Have it done; waits for nothing."""
        with self._gate:
            if self._closed:
                job.box.fail(Outage("the store is closed"))
                return
            self._jobs += 1
            starts = self._jobs > self._threads < self._size
            self._threads += starts
            self._queue.put(job)
        if starts:
            start_native(self._work)

    def close(self) -> None:
        """Finish the jobs that are queued, end the threads and their connections."""
        with self._gate:
            self._closed = True
            for _ in range(self._threads):
                self._queue.put(None)
            if not self._threads:
                self._ended.set()
        if not self._ended.wait(CLOSE_S):
            log.warning("connections to PostgreSQL did not end within %s s", CLOSE_S)

    def _work(self) -> None:
        session = Session(self._conninfo)
        while (job := self._queue.get()) is not None:
            if not job.is_abandoned:
                self._do(session, job)
            with self._gate:
                self._jobs -= 1
        session.drop()
        with self._gate:
            self._threads -= 1
            if not self._threads:
                self._ended.set()

    @staticmethod
    def _do(session: Session, job: Job) -> None:
        try:
            job.box.put(job.work(session, job))
        except BaseException as error:  # noqa: BLE001 - rises in the thread that waits for it
            job.box.fail(error)
        if job.after is not None:
            try:
                job.after()
            except Exception:
                log.exception("something stumbled after a commit")


def refusal(error: Refused) -> StoreError:
    """A refusal of the server as an error of the protocol."""
    if error.sqlstate in LOST_RACE:
        return Conflict(f"PostgreSQL: {error}")
    if error.sqlstate == FULL:
        return StoreFull(f"PostgreSQL has no space left: {error}")
    return Outage(f"PostgreSQL refused ({error.sqlstate}): {error}")
