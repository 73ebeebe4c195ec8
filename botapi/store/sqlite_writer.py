"""The one thread of a process that writes: transactions wait in a queue and commit in groups.

Whoever wants a transaction leaves a job and waits for its box; the thread runs up to
BATCH of the waiting jobs, one after the other, in one SQLite transaction, so that one
fsync makes all of them durable; those that came meanwhile are taken along once.  The jobs
of a batch share its fate: each may have read what an earlier one wrote, so that even a
refusal counts only once the batch is committed.
"""

import _thread
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any, TypeVar

from botapi.concurrency import Box, Event, at_work, native_lock, native_queue, start_native
from botapi.store import sqlite_rows
from botapi.store.documents import WriteBuffer
from botapi.store.protocol import AlreadyExists, Ambiguous, Doc, Key, Outage, StoreError
from botapi.store.retry import EngineTxn, Transactions
from botapi.store.sqlite_files import Turn, translated

T = TypeVar("T")

BATCH = 64
"""Most transactions of one commit: more would make the first of them wait for long."""

LOOK_S = 0.25
"""How often the writer looks whether another process changed the file."""

CLOSE_S = 60.0
"""How long closing waits for the transactions that are queued."""

log = logging.getLogger(__name__)


class SqliteTxn(WriteBuffer):
    """One attempt: it reads through the writer's connection and keeps its writes to itself."""

    def __init__(self, con: sqlite3.Connection, catalog: sqlite_rows.Catalog) -> None:
        super().__init__()
        self._con = con
        self._catalog = catalog
        self._known: dict[tuple[str, Key], Doc | None] = {}

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """The documents in the order of the keys; each is read once, nothing can change it."""
        self.check_running()
        unknown = [key for key in keys if (kind, key) not in self._known]
        if unknown:
            found = (
                sqlite_rows.get(self._con, kind, unknown)
                if self._has(kind)
                else [None] * len(unknown)
            )
            self._known.update(((kind, key), doc) for key, doc in zip(unknown, found, strict=True))
        return [self._known[kind, key] for key in keys]

    def heads(self, kind: str, ranges: Sequence[tuple[Key, Key]], n: int) -> list[Doc]:
        """The lowest documents of each range; this transaction is alone, so nobody has them."""
        return sqlite_rows.heads(self._con, kind, ranges, n) if self._has(kind) else []

    def expired(self, kind: str, now_ms: int, limit: int) -> list[Key]:
        """Keys whose expiry is at or before now."""
        return sqlite_rows.expired(self._con, kind, now_ms, limit) if self._has(kind) else []

    def _has(self, kind: str) -> bool:
        return self._catalog.has(sqlite_rows.sql_of(kind).docs)


class Job:
    """A transaction function on its way through the writer."""

    __slots__ = ("abandoned", "box", "error", "fn", "ready", "result", "topics")

    def __init__(self, fn: Callable[[EngineTxn], Any], ready: Event) -> None:
        self.fn = fn
        self.ready = ready
        self.box: Box[Any] = Box(ready)
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.topics: Iterable[str] = ()

    def settle(self) -> None:
        """Give the waiter what the function returned or raised."""
        if self.error is None:
            self.box.put(self.result)
        else:
            self.box.fail(self.error)


class Writer:
    """Owns the writing connection and the thread that uses it."""

    def __init__(
        self,
        con: sqlite3.Connection,
        turn: Turn,
        owner: Transactions,
        on_commit: Callable[[list[str]], None],
        on_look: Callable[[int], None],
    ) -> None:
        """`on_commit(topics)` and `on_look(data_version)` are called on the writer's thread."""
        self._con = con
        self._turn = turn
        self._concurrency = owner.concurrency
        self._clock = owner.clock
        self._on_commit = on_commit
        self._on_look = on_look
        self._looked_at = self._clock.monotonic()
        self._catalog = sqlite_rows.Catalog(con)
        self._queue = native_queue()
        self._gate = native_lock()
        self._closed = False
        self._ended = self._concurrency.event()
        self._thread_id = 0
        start_native(self._work)

    def run(self, fn: Callable[[EngineTxn], T], timeout_s: float) -> T:
        """Queue fn, wait for its commit, and return its result.

        Raises Ambiguous after the timeout, RuntimeError inside a transaction function.
        """
        if _thread.get_native_id() == self._thread_id:
            raise RuntimeError("a transaction function must touch nothing but its transaction")
        job = Job(fn, self._concurrency.event())
        with self._gate:
            if self._closed:
                raise Outage("the store is closed")
            self._queue.put(job)
        if not job.ready.wait(timeout_s):
            job.abandoned = True
            raise Ambiguous(f"not committed within {timeout_s:.1f} s")
        result: T = job.box.get()
        return result

    def close(self) -> None:
        """Finish the jobs that are queued, end the thread, close its connection. Idempotent."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if not self._ended.wait(CLOSE_S):
            raise Outage(f"the writer did not end within {CLOSE_S} s")

    def _work(self) -> None:
        self._thread_id = _thread.get_native_id()
        self._on_look(self._version())  # what changes from now on is news
        going = True
        while going:
            jobs, going = self._next_jobs()
            at_work.writer = bool(jobs)
            try:
                self._commit(jobs)
                self._look(silent=not jobs)
            except Exception:
                log.exception("the writer stumbled after a commit")
            at_work.writer = False
        self._con.close()
        self._ended.set()

    def _next_jobs(self) -> tuple[list[Job], bool]:
        """Wait for a job, take the others that wait too; False when it is time to end."""
        try:
            job = self._queue.get(timeout=LOOK_S)
        except Empty:
            return [], True
        if job is None:
            return [], False
        return [job, *self._waiting(BATCH - 1)], True

    def _waiting(self, most: int) -> list[Job]:
        """Those that wait now; the word to end stays for the next look."""
        jobs: list[Job] = []
        with suppress(Empty):
            while len(jobs) < most:
                job = self._queue.get_nowait()
                if job is None:
                    self._queue.put(None)
                    break
                jobs.append(job)
        return jobs

    def _commit(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            with self._turn.mine():
                try:
                    self._run_all(jobs)
                except BaseException:
                    self._undo()
                    raise
        except sqlite3.Error as error:
            self._fail(jobs, error)
        except BaseException as error:
            log.exception("a batch of transactions failed in an unforeseen way")
            self._fail(jobs, error)
        for job in reversed(jobs):  # the latest may be what came of the first
            job.settle()
        topics = {topic: None for job in jobs if job.error is None for topic in job.topics}
        if topics:
            self._on_commit(list(topics))

    def _run_all(self, jobs: list[Job]) -> None:
        self._con.execute("BEGIN IMMEDIATE")
        self._catalog.refresh()
        self._run_each(jobs)
        late = self._waiting(BATCH - len(jobs))
        jobs += late  # before they run: whatever happens, they are answered
        self._run_each(late)
        self._con.execute("COMMIT")

    def _run_each(self, jobs: list[Job]) -> None:
        for job in jobs:
            if not job.abandoned:
                self._run_one(job)

    def _run_one(self, job: Job) -> None:
        txn = SqliteTxn(self._con, self._catalog)
        try:
            job.result = job.fn(txn)
        except sqlite3.Error as error:
            if not self._con.in_transaction:
                raise  # SQLite has rolled back: what earlier jobs wrote is gone too
            job.error = translated(error)
            return
        except BaseException as error:  # noqa: BLE001 - rises in the thread that waits for it
            job.error = error
            return
        finally:
            txn.end()
        try:
            sqlite_rows.apply(self._con, self._catalog, txn.writes)
        except AlreadyExists as error:
            job.error = error
        job.topics = txn.topics

    def _undo(self) -> None:
        """Roll back, unless SQLite has done so by itself, as it does when the disk is full."""
        self._catalog.forget()
        try:
            if self._con.in_transaction:
                self._con.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("a batch could not be rolled back")

    @staticmethod
    def _fail(jobs: list[Job], error: BaseException) -> None:
        for job in jobs:
            fault: StoreError
            if isinstance(error, sqlite3.Error):
                fault = translated(error)
            else:
                fault = Outage(f"the commit failed: {error!r}")
            fault.__cause__ = error
            job.error = fault

    def _look(self, *, silent: bool) -> None:
        """Tell which version of the file this connection sees: it leaves out its own commits."""
        now = self._clock.monotonic()
        if silent or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._on_look(self._version())

    def _version(self) -> int:
        return int(self._con.execute("PRAGMA data_version").fetchone()[0])
