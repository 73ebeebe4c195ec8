"""What every engine has in common: its subscribers, its schema number, and its end."""

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from botapi import metrics
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency, native_lock
from botapi.store import schema
from botapi.store.documents import SCHEMA_KEY, SCHEMA_KIND
from botapi.store.protocol import (
    SCHEMA_NUMBER,
    Doc,
    Key,
    Outage,
    SchemaInfo,
    SchemaMismatch,
    Txn,
)
from botapi.store.retry import Transactions
from botapi.store.topics import ANY_TOPIC, Topics

READS = ("get", "scan", "scan_keys", "find", "count")


class Engine(Transactions):
    """A store that belongs to the process that opened it.

    An engine adds `attempt`, the reads, `capabilities` and `release`, calls
    `transact(check_schema, …)` once it is open, and `topics.publish` after each commit.
    Its reads are timed.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in READS:
            if name in cls.__dict__:
                setattr(cls, name, _timed(name, cls.__dict__[name]))

    def __init__(self, concurrency: Concurrency, clock: Clock, rng: Rng | None = None) -> None:
        super().__init__(concurrency, clock, rng)
        self.topics = Topics(concurrency)
        self._pid = os.getpid()
        self._gate = native_lock()
        self._closed = False

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key; see the protocol."""
        raise NotImplementedError

    def release(self) -> None:
        """Finish what is in hand and give everything back; called once."""
        raise NotImplementedError

    def watch(self, topics: Sequence[str], timeout_s: float) -> set[str]:
        """Wait for a topic; see the protocol."""
        self.check_open()
        return self.topics.watch(topics, timeout_s)

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Hear of every topic; see the protocol."""
        self.check_open()
        return self.topics.subscribe(callback)

    def schema(self) -> SchemaInfo:
        """The schema numbers in force."""
        (doc,) = self.get(SCHEMA_KIND, SCHEMA_KEY)
        return SchemaInfo(doc.body["number"] if doc else SCHEMA_NUMBER, SCHEMA_NUMBER)

    def close(self) -> None:
        """Finish, release, wake everybody who watches. In a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        with self._gate:
            if self._closed:
                return
            self._closed = True
        self.release()
        self.topics.publish([ANY_TOPIC])

    def check_open(self) -> None:
        """Raise Outage when closed, RuntimeError in a process forked after the opening."""
        if os.getpid() != self._pid:
            raise RuntimeError("this store was opened before the fork; open it in the child")
        if self._closed:
            raise Outage("the store is closed")


def _timed(op: str, read: Callable[..., Any]) -> Callable[..., Any]:
    """The read, its time noted whatever comes of it."""
    observe = metrics.STORE_SECONDS.labels(op).observe

    @wraps(read)
    def timed(self: Engine, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as the read
        began = self.clock.monotonic()
        try:
            return read(self, *args, **more)
        finally:
            observe(self.clock.monotonic() - began)

    return timed


def check_schema(txn: Txn) -> None:
    """Write the schema number into a new database; refuse one that is too new or too old."""
    (doc,) = txn.get(SCHEMA_KIND, SCHEMA_KEY)
    if doc is None:
        txn.insert(SCHEMA_KIND, Doc(SCHEMA_KEY, {"number": SCHEMA_NUMBER}))
    elif doc.body["number"] > SCHEMA_NUMBER:
        raise SchemaMismatch(
            f"the database needs schema {doc.body['number']}; "
            f"this Skep knows schema {SCHEMA_NUMBER} and older ones"
        )
    elif doc.body["number"] < schema.OLDEST_READ:
        raise SchemaMismatch(
            f"the database has schema {doc.body['number']}, this Skep needs at least "
            f"{schema.OLDEST_READ}: run an older release and skep store upgrade first"
        )
