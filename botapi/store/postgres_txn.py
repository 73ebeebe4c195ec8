"""One attempt at a transaction on PostgreSQL: two-phase locking by hand.

Every key that a transaction reads or writes is held until its end: a row by `FOR UPDATE`, a
key without a row by an advisory lock, which everybody takes who would make that row.  As
reads are by key there are no phantoms, and so this is serializable under READ COMMITTED.
Locks are taken in key order within each step; the writes and the COMMIT are one round trip.
"""

from collections.abc import Callable, Sequence

from botapi.concurrency import native_lock
from botapi.store import postgres_rows as rows
from botapi.store.documents import WriteBuffer
from botapi.store.postgres_pool import NO_TABLE, TAKEN, Job, Session, monotonic, refusal
from botapi.store.postgres_wire import Answer, Broken, Refused, Statement, int8
from botapi.store.protocol import AlreadyExists, Ambiguous, Conflict, Doc, Key, Outage

ROLLBACK_S = 2.0
"""How long a rollback may take before its connection is given up."""

CREATE_LOCK = rows.lock_number()


class Tables:
    """Which kinds have tables, as this process knows; a table once made never goes."""

    def __init__(self, new_session: Callable[[], Session]) -> None:
        self._new_session = new_session
        self._lock = native_lock()
        self._kinds: frozenset[str] = frozenset()

    def load(self, session: Session, deadline: float) -> list[str]:
        """Read which there are."""
        (answer,) = session.run([rows.KINDS], deadline)
        found = sorted(row[0].decode() for row in answer.rows if row[0] is not None)
        with self._lock:
            self._kinds = frozenset(found)
        return found

    def need(self, kind: str, deadline: float) -> None:
        """Have the tables of a kind, on a connection of its own: a rollback must not undo it."""
        rows.sql_of(kind)
        if kind in self._kinds:
            return
        session = self._new_session()
        try:
            self._make(session, kind, deadline)
        finally:
            session.drop()

    def forget(self) -> None:
        """Somebody removed tables: look again at each."""
        with self._lock:
            self._kinds = frozenset()

    def _make(self, session: Session, kind: str, deadline: float) -> None:
        """In turn with every other process that makes tables."""
        lock = Statement(rows.LOCK_KIND, [int8(CREATE_LOCK)])
        session.run([rows.BEGIN, lock], deadline)
        if kind not in self.load(session, deadline):
            session.run(rows.create(kind), deadline)
        session.run([rows.COMMIT], deadline)
        with self._lock:
            self._kinds |= {kind}


class PostgresTxn(WriteBuffer):
    """Reads at once, under locks; keeps its writes until `commit`."""

    def __init__(self, session: Session, job: Job, tables: Tables) -> None:
        super().__init__()
        self._session = session
        self._job = job
        self._tables = tables
        self._begun = False
        self._known: dict[tuple[str, Key], Doc | None] = {}
        self._held: set[tuple[str, Key]] = set()

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """The documents in the order of the keys; each is read once, nothing can change it."""
        self.check_running()
        return self._load(kind, keys)

    def _load(self, kind: str, keys: Sequence[Key]) -> list[Doc | None]:
        unknown = {key for key in keys if (kind, key) not in self._known}
        if unknown or not keys:
            self._need(kind)
        if unknown:
            absent = self._read(kind, unknown, [])
            if absent:
                absent = self._read(kind, absent, rows.lock_absent(kind, sorted(absent)))
                self._known.update(((kind, key), None) for key in absent)
        return [self._known[kind, key] for key in keys]

    def heads(self, kind: str, ranges: Sequence[tuple[Key, Key]], n: int) -> list[Doc]:
        """Up to n documents of each range that no other transaction holds, locked."""
        if not ranges:
            return []
        self._need(kind)
        taken: dict[Key, Doc] = {}
        step = 1 if _overlap(ranges) else len(ranges)
        for start in range(0, len(ranges), step):
            asked = [
                rows.heads(kind, lo, hi, n, list(taken)) for lo, hi in ranges[start : start + step]
            ]
            for answer in self._ask(asked):
                docs = map(rows.to_doc, answer.rows)
                taken.update((doc.key, doc) for doc in docs)
        self._known.update(((kind, key), doc) for key, doc in taken.items())
        return list(taken.values())

    def expired(self, kind: str, now_ms: int, limit: int) -> list[Key]:
        """Keys whose expiry is at or before now and that nobody else holds, locked."""
        self._need(kind)
        (answer,) = self._ask([rows.expired(kind, now_ms, limit)])
        keys = [row[0].decode() for row in answer.rows if row[0] is not None]
        self._held.update((kind, key) for key in keys)
        return keys

    def commit(self) -> None:
        """Write everything and commit. Raises AlreadyExists, Conflict, Ambiguous or an Outage."""
        if not self.writes:
            self._leave()
            return
        self._check_inserts()
        statements = self._statements()
        self._job.begin_commit()
        try:
            last = self._ask_plain([*statements, rows.COMMIT])[-1]
        except Broken as error:
            raise Ambiguous(f"the connection broke at the commit: {error}") from error
        except Refused as error:
            self._session_rollback()
            if error.sqlstate == TAKEN:
                raise self._taken() from error
            raise self._refusal(error) from error
        if last.tag != b"COMMIT":
            raise Conflict(f"PostgreSQL answered COMMIT with {last.tag.decode()}")

    def rollback(self) -> None:
        """Undo everything; a connection that cannot is given up."""
        self._session_rollback()

    def _need(self, kind: str) -> None:
        try:
            self._tables.need(kind, self._job.deadline)
        except Broken as error:
            raise self._broken(error) from error
        except Refused as error:
            raise self._refusal(error) from error

    def _read(self, kind: str, keys: set[Key], before: list[Statement]) -> set[Key]:
        """Read and hold the rows there are; the keys that have none."""
        answer = self._ask([*before, rows.get(kind, sorted(keys), locked=True)])[-1]
        found = {doc.key: doc for doc in map(rows.to_doc, answer.rows)}
        self._known.update(((kind, key), doc) for key, doc in found.items())
        return keys - found.keys()

    def _ask(self, statements: list[Statement]) -> list[Answer]:
        try:
            return self._ask_plain(statements)
        except Broken as error:
            raise self._broken(error) from error
        except Refused as error:
            raise self._refusal(error) from error

    def _ask_plain(self, statements: list[Statement]) -> list[Answer]:
        """One round trip, the first of all with the BEGIN before it."""
        if self._begun:
            if not self._session.is_connected:
                raise Broken("the connection broke before")
            return self._session.run(statements, self._job.deadline)
        self._begun = True
        return self._session.run([rows.BEGIN, *statements], self._job.deadline)[1:]

    def _statements(self) -> list[Statement]:
        """First every lock that is not held yet, kind by kind, then the writes."""
        locks: list[Statement] = []
        writes: list[Statement] = []
        is_blind = not self._known and not self._held  # reads lock in the order of their caller
        last = max(self.writes)
        for kind, of_kind in sorted(self.writes.items()):
            self._need(kind)
            known = {key: self._known[kind, key] for key in of_kind if (kind, key) in self._known}
            free = [key for key in of_kind if key not in known and (kind, key) not in self._held]
            if free:
                puts = [key for key in free if of_kind[key].packed]
                deletes = [key for key in free if not of_kind[key].packed]
                waits_on = is_blind and (kind != last or len(free) > 1)
                locks += rows.lock_written(kind, puts, deletes, waits_on=waits_on)
            absent = {key for key, doc in known.items() if doc is None}
            writes += rows.write(kind, of_kind, absent)
        return locks + writes

    def _check_inserts(self) -> None:
        """Refuse the inserts that are known to fail; find out about those that end in a delete."""
        for kind, of_kind in self.writes.items():
            for key, write in of_kind.items():
                if not write.must_be_new:
                    continue
                if write.packed is None:
                    self._load(kind, [key])
                if self._known.get((kind, key)) is not None:
                    raise AlreadyExists(kind, key)

    def _taken(self) -> Exception:
        """Which insert it was that met a row, as far as it is still to be found."""
        for kind, of_kind in self.writes.items():
            keys = [key for key, write in of_kind.items() if write.must_be_new]
            if keys:
                try:
                    (answer,) = self._session.run([rows.get(kind, keys)], self._job.deadline)
                except (Broken, Refused) as error:
                    return Conflict(f"an insert met a document, and then: {error}")
                if answer.rows:
                    return AlreadyExists(kind, rows.to_doc(answer.rows[0]).key)
        return Conflict("an insert met a document that is gone by now")

    def _leave(self) -> None:
        """Give the locks back; nothing was written, so how that ends matters to nobody."""
        self._session_rollback()

    def _session_rollback(self) -> None:
        if not self._session.in_transaction:
            return
        try:
            self._session.run([rows.ROLLBACK], monotonic() + ROLLBACK_S)
        except (Broken, Refused):
            self._session.drop()

    def _broken(self, error: Broken) -> Exception:
        """Before the commit nothing is written: try again while there is time."""
        if monotonic() >= self._job.deadline:
            return Outage(f"PostgreSQL did not answer in time: {error}")
        return Conflict(f"the connection to PostgreSQL broke: {error}")

    def _refusal(self, error: Refused) -> Exception:
        if error.sqlstate == NO_TABLE:
            self._tables.forget()
            return Conflict(f"PostgreSQL: {error}")
        return refusal(error)


def _overlap(ranges: Sequence[tuple[Key, Key]]) -> bool:
    reach = ""
    for lo, hi in sorted(ranges):
        if lo < reach:
            return True
        reach = max(reach, hi)
    return False
