"""The store in a PostgreSQL database that any number of servers share.

Everything runs on native threads with connections of their own: transactions on WRITERS of
them, point reads and queries on others, so that none holds up the others; one more hears
hints and one sends them.  A store belongs to the process that opened it.
"""

import _thread
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.store import postgres_reads
from botapi.store import postgres_rows as rows
from botapi.store.documents import MAX_TXN_DOCS, check_kind, check_limit, check_query, page_of
from botapi.store.engine import Engine, check_schema
from botapi.store.postgres_listen import Listener, Notifier
from botapi.store.postgres_pool import NO_TABLE, Job, Lanes, Session, monotonic, refusal
from botapi.store.postgres_txn import PostgresTxn, Tables
from botapi.store.postgres_wire import (
    Answer,
    Broken,
    Refused,
    Statement,
    connection_string,
    from_int8,
)
from botapi.store.protocol import (
    AnyOf,
    Capabilities,
    Doc,
    Key,
    Outage,
    Page,
    StoreError,
    UnfitAddress,
)
from botapi.store.retry import EngineTxn

T = TypeVar("T")

WRITERS = 8
"""Transactions of one process at a time."""
POINT_READERS = 4
QUERY_READERS = 4
OPEN_S = 10.0
OLDEST_SERVER = 140_000

log = logging.getLogger(__name__)


class PostgresStore(Engine):
    """One database, and in it the schema that `search_path` names first."""

    def __init__(
        self, dsn: str, concurrency: Concurrency, clock: Clock, rng: Rng | None = None
    ) -> None:
        """Open the database; `dsn` as libpq takes it. The tables are made when they are needed.

        Raises UnfitAddress, StoreError for an unfit server, Outage when there is none,
        SchemaMismatch for a newer database.
        """
        super().__init__(concurrency, clock, rng)
        try:
            address = partial(connection_string, dsn)
            writing, reading, hinting = address("writer"), address("reader"), address("hints")
        except ValueError as error:
            raise UnfitAddress(f"this is no address of a PostgreSQL database: {error}") from error
        self._tables = Tables(lambda: Session(writing))
        self._inside: set[int] = set()
        with ExitStack() as opened:
            self._writers = Lanes(writing, WRITERS, concurrency)
            opened.callback(self._writers.close)
            points = Lanes(reading, POINT_READERS, concurrency)
            opened.callback(points.close)
            self._points = postgres_reads.PointReads(points, concurrency, _documents)
            self._queries = Lanes(reading, QUERY_READERS, concurrency)
            opened.callback(self._queries.close)
            channel = self._queries.run(self._look, OPEN_S)
            sender = self.rng.token(9)
            listen = partial(Listener, hinting, channel, sender, self.topics.publish)
            opened.callback(concurrency.outside(lambda: listen(concurrency, self.rng)).close)
            self._notifier = Notifier(hinting, channel, sender, concurrency)
            opened.callback(self._notifier.close)
            self.transact(check_schema, label="check_schema")
            self._opened = opened.pop_all()

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key; see the protocol."""
        check_kind(kind)
        self._check_usable()
        found = self._points.get(kind, keys) if keys else {}
        return [found.get(key) for key in keys]

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """Documents of a key range; see the protocol."""
        check_limit(limit)
        return self._read(_docs, rows.scan(kind, lo, hi, limit, reverse=reverse))

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """Keys of a key range; see the protocol."""
        check_limit(limit)
        answer = self._ask(rows.scan_keys(kind, lo, hi, limit, reverse=reverse))
        return [row[0].decode() for row in answer.rows if row[0] is not None]

    def find(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        after: Key | None,
        limit: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> Page:
        """One page of the documents that match; see the protocol."""
        check_query(all_of)
        check_limit(limit)
        bounds = (after, lo, hi)
        ordered = self._rarest_first(kind, all_of, bounds)
        docs = self._read(_docs, rows.find(kind, ordered, bounds, limit + 1))
        return page_of(docs, limit)

    def count(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        up_to: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> int:
        """How many match; see the protocol."""
        check_query(all_of)
        check_limit(up_to)
        bounds = (None, lo, hi)
        ordered = self._rarest_first(kind, all_of, bounds)
        answer = self._ask(rows.count(kind, ordered, bounds, up_to))
        return from_int8(answer.rows[0][0]) or 0 if answer.rows else 0

    def kinds(self) -> list[str]:
        """The kinds that hold documents, or did; see the protocol."""
        answer = self._ask(rows.KINDS)
        return sorted(row[0].decode() for row in answer.rows if row[0] is not None)

    def attempt(self, fn: Callable[[EngineTxn], T], *, timeout_s: float) -> T:
        """Run fn on a writer's thread and wait for the commit."""
        self._check_usable()
        return self._writers.run(
            lambda session, job: self._transaction(fn, session, job), timeout_s
        )

    def capabilities(self) -> Capabilities:
        """Any number of servers; a commit is on the disk of the database."""
        return Capabilities(
            engine="postgres",
            push_wakeup=True,
            shared=True,
            durable=True,
            max_txn_docs=MAX_TXN_DOCS,
        )

    def release(self) -> None:
        """Finish queued work and close every connection."""
        self._opened.close()

    def _transaction(self, fn: Callable[[EngineTxn], T], session: Session, job: Job) -> T:
        """One attempt, on the thread of the session."""
        txn = PostgresTxn(session, job, self._tables)
        me = _thread.get_native_id()
        try:
            self._inside.add(me)
            try:
                result = fn(txn)
            finally:
                self._inside.discard(me)
                txn.end()
            txn.commit()
        except BaseException:
            txn.rollback()
            raise
        if txn.topics:
            job.after = partial(self._tell, list(txn.topics))
        return result

    def _tell(self, topics: list[str]) -> None:
        self.topics.publish(topics)
        self._notifier.send(topics)

    def _rarest_first(self, kind: str, all_of: Sequence[AnyOf], bounds: rows.Bounds) -> list[AnyOf]:
        """The AnyOf with the fewest rows within the bounds first, as far as that is cheap."""
        if len(all_of) < 2:
            return list(all_of)
        answer = self._ask(rows.estimate(kind, all_of, bounds))
        if not answer.rows:
            return list(all_of)
        counted = zip(map(from_int8, answer.rows[0]), range(len(all_of)), strict=True)
        return [all_of[index] for _, index in sorted((number or 0, at) for number, at in counted)]

    def _ask(self, statement: Statement) -> Answer:
        return self._read(lambda answer: answer, statement)

    def _read(self, made: Callable[[Answer], T], statement: Statement) -> T:
        """What is made of the answer, on the thread that read it."""
        self._check_usable()

        def work(session: Session, job: Job) -> T:
            return made(_answer(session, statement, job.deadline))

        return self._queries.run(work, postgres_reads.READ_S)

    def _look(self, session: Session, job: Job) -> str:
        """Is this server fit, which kinds are there, and what is the channel of their hints?"""
        version = session.connected(job.deadline).server_version
        if version < OLDEST_SERVER:
            raise StoreError(f"PostgreSQL {version // 10_000} is too old: 14 or newer is needed")
        row = _answer(session, rows.CHANNEL, job.deadline).rows[0]
        schema, commits = ((value or b"").decode() for value in row)
        if not schema:
            raise StoreError("the search_path of this role names no schema that there is")
        if commits == "off":
            raise StoreError(
                "synchronous_commit is off: acknowledged work would be lost; "
                "ALTER ROLE … SET synchronous_commit = on"
            )
        self._tables.load(session, job.deadline)
        return f"skep_{schema}"

    def _check_usable(self) -> None:
        self.check_open()
        if _thread.get_native_id() in self._inside:
            raise RuntimeError("a transaction function must touch nothing but its transaction")


def _docs(answer: Answer) -> list[Doc]:
    return [rows.to_doc(row) for row in answer.rows]


def _documents(session: Session, job: Job, kind: str, keys: Sequence[Key]) -> list[Doc]:
    return _docs(_answer(session, rows.get(kind, keys), job.deadline))


def _answer(session: Session, statement: Statement, deadline: float) -> Answer:
    """What a read gives; once more on a new connection when the old one had ended.

    Nothing when the table was never made, for a kind is made by its first write.
    """
    trouble: Broken | None = None
    for _ in range(2):
        try:
            return session.run([statement], deadline)[0]
        except Refused as error:
            if error.sqlstate == NO_TABLE:
                return Answer()
            raise refusal(error) from error
        except Broken as error:
            trouble = error
            if monotonic() >= deadline:
                break
    raise Outage(f"PostgreSQL did not answer: {trouble}") from trouble
