"""The store in one SQLite file on a local disk, shared by the processes of one machine.

Reads by key run on the caller's thread, queries on a reader thread, and transactions on
the process's one writer thread (see `sqlite_writer`).  A store belongs to the process that
opened it: open it after the fork.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.store import sqlite_files, sqlite_rows
from botapi.store.documents import (
    MAX_TXN_DOCS,
    check_kind,
    check_limit,
    check_query,
    page_of,
)
from botapi.store.engine import Engine, check_schema
from botapi.store.protocol import (
    AnyOf,
    Capabilities,
    Doc,
    Key,
    Page,
)
from botapi.store.retry import EngineTxn
from botapi.store.sqlite_writer import Writer
from botapi.store.topics import ANY_TOPIC, Topics
from botapi.store.wake import WakeSockets

T = TypeVar("T")


class SqliteStore(Engine):
    """One database in one data directory."""

    def __init__(
        self,
        data_dir: Path,
        concurrency: Concurrency,
        clock: Clock,
        rng: Rng | None = None,
        *,
        max_bytes: int | None = None,
    ) -> None:
        """Open the database, making it if need be; `max_bytes` bounds the size of its file.

        Raises StoreError for an unfit place or SQLite, SchemaMismatch for a newer database.
        """
        super().__init__(concurrency, clock, rng)
        self._silence = _Silence(self.topics)
        path = sqlite_files.prepare(data_dir)
        with ExitStack() as opened:
            turn = sqlite_files.Turn(data_dir)
            opened.callback(turn.close)
            con = _open_writing(path, turn, max_bytes)
            opened.callback(con.close)
            self._wake = WakeSockets(data_dir / sqlite_files.WAKE, concurrency, self._on_datagram)
            opened.callback(self._wake.close)
            self._readers = sqlite_files.Readers(path)
            opened.callback(self._readers.close)
            self._writer = Writer(con, turn, self, self._on_commit, self._on_look)
            opened.callback(self._writer.close)
            self.transact(check_schema, label="check_schema")
            self._opened = opened.pop_all()

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key on the caller's thread; see the protocol."""
        if not keys:
            check_kind(kind)
            return []
        return self._read(lambda con: sqlite_rows.get(con, kind, keys))

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """Documents of a key range; see the protocol."""
        check_limit(limit)
        return self._query(lambda con: sqlite_rows.scan(con, kind, lo, hi, limit, reverse=reverse))

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """Keys of a key range; see the protocol."""
        check_limit(limit)
        return self._query(
            lambda con: sqlite_rows.scan_keys(con, kind, lo, hi, limit, reverse=reverse)
        )

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
        docs = self._query(lambda con: sqlite_rows.find(con, kind, all_of, bounds, limit + 1))
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
        within = (lo, hi)
        return self._query(lambda con: sqlite_rows.count(con, kind, all_of, within, up_to))

    def kinds(self) -> list[str]:
        """The kinds that hold documents, or did; see the protocol."""
        return self._query(sqlite_rows.kinds)

    def attempt(self, fn: Callable[[EngineTxn], T], *, timeout_s: float) -> T:
        """Run fn on the writer's thread and wait for the commit."""
        self.check_open()
        result: T = self._writer.run(fn, timeout_s)
        return result

    def capabilities(self) -> Capabilities:
        """One machine, any number of processes, an fsync behind every commit."""
        return Capabilities(
            engine="sqlite",
            push_wakeup=True,
            shared=True,
            durable=True,
            max_txn_docs=MAX_TXN_DOCS,
            group_commit=True,
        )

    def release(self) -> None:
        """Finish queued transactions and close every connection."""
        self._opened.close()

    def _query(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.check_open()
        return self.concurrency.native(lambda: self._read(work))

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work with a reading connection of its own."""
        self.check_open()
        try:
            with self._readers.one() as con:
                return work(con)
        except sqlite3.Error as error:
            raise sqlite_files.translated(error) from error

    def _on_commit(self, topics: list[str]) -> None:
        self.topics.publish(topics)
        self._wake.send(topics)

    def _on_datagram(self, topics: Iterable[str]) -> None:
        self._silence.heard = True
        self.topics.publish(topics)

    def _on_look(self, version: int) -> None:
        self._wake.catch_up()
        self._silence.look(version)


class _Silence:
    """Notices that another process changed the file and yet sent nothing.

    A datagram follows its commit after a moment, so a change counts as silent only when
    none arrived until the next look.
    """

    def __init__(self, topics: Topics) -> None:
        self.heard = False
        self._topics = topics
        self._version: int | None = None
        self._suspect = False

    def look(self, version: int) -> None:
        """Compare with the last look's version; tell the subscribers about a silent change."""
        changed = self._version is not None and version != self._version
        heard, self.heard = self.heard, False
        if self._suspect and not heard:
            self._topics.publish([ANY_TOPIC])
        self._suspect = changed and not heard
        self._version = version


def _open_writing(path: Path, turn: sqlite_files.Turn, max_bytes: int | None) -> sqlite3.Connection:
    """Open in turn: two processes may be making the database at the same time."""
    try:
        with turn.mine():
            con = sqlite_files.connect(path, writer=True)
        if max_bytes is not None:
            (page_bytes,) = con.execute("PRAGMA page_size").fetchone()
            con.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
    except sqlite3.Error as error:
        raise sqlite_files.translated(error) from error
    return con
