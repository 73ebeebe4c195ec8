"""The store in Firestore in Datastore mode, shared by any number of processes.

Transactions are those of the service: optimistic or pessimistic, begun by their first read,
and the loser of two that meet is told so at its next read or at the commit.  Whatever reads
by query does so outside of transactions.  No query needs a composite index: equality on
`t`, bounds and order by key only; alternatives are merged here.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby, islice
from typing import TypeVar

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency, native_lock
from botapi.store.datastore_calls import CALL_S, Calls, Until
from botapi.store.datastore_entities import (
    Place,
    key_query,
    kinds_query,
    read_entity,
)
from botapi.store.datastore_heads import Heads
from botapi.store.datastore_txn import (
    MAX_TXN_BYTES,
    Bounds,
    DatastoreTxn,
    bounds_of,
    distinct,
    in_order,
    keys_of,
)
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
    Conflict,
    Doc,
    Key,
    Page,
)
from botapi.store.retry import EngineTxn

T = TypeVar("T")

KEY_PAGE = 300
"""Keys asked for at a time where alternatives are merged."""
CLOSE_S = 5.0
"""How long `close` waits for transactions in hand."""
MAX_KINDS = 1_000

_inside: ContextVar[bool] = ContextVar("_inside", default=False)


class DatastoreStore(Engine):
    """One namespace of one database."""

    def __init__(
        self, place: Place, concurrency: Concurrency, clock: Clock, rng: Rng | None = None
    ) -> None:
        """Connect. Raises StoreError without credentials, SchemaMismatch for a newer database."""
        super().__init__(concurrency, clock, rng)
        self._lock = native_lock()
        self._running = 0
        self._idle = concurrency.event()
        self.heads = Heads(clock, self.rng)
        concurrency.prepare_grpc()
        self.calls = Calls(place, concurrency)
        try:
            self.transact(check_schema, label="check_schema")
        except BaseException:
            self.calls.close()
            raise

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key; see the protocol."""
        check_kind(kind)
        with self._use():
            found, _ = self.calls.lookup(distinct(kind, keys), self._until())
        return in_order(found, keys)

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """Documents of a key range; see the protocol."""
        check_limit(limit)
        check_kind(kind)
        bounds = bounds_of(lo, hi)
        return [] if bounds is None else self._docs(kind, (), bounds, limit, reverse=reverse)

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """Keys of a key range; see the protocol."""
        check_limit(limit)
        check_kind(kind)
        bounds = bounds_of(lo, hi)
        return [] if bounds is None else self._keys(kind, (), bounds, limit, reverse=reverse)

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
        check_kind(kind)
        bounds = bounds_of(lo, hi, after)
        if bounds is None:
            return Page([], None)
        tags, choices = _parted(all_of)
        if not choices:
            return page_of(self._docs(kind, tags, bounds, limit + 1), limit)
        matching = self._matching(kind, tags, choices, bounds, limit + 1)
        keys = list(islice(matching, limit + 1))
        found = [each for each in self.get(kind, *keys[:limit]) if each is not None]
        docs = [each for each in found if all(any_of & each.tags for any_of in all_of)]
        return Page(docs, keys[limit - 1] if len(keys) > limit else None)

    def count(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        up_to: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> int:
        """How many match, by their keys; see the protocol."""
        check_query(all_of)
        check_limit(up_to)
        check_kind(kind)
        bounds = bounds_of(lo, hi)
        if bounds is None:
            return 0
        tags, choices = _parted(all_of)
        if not choices:
            return len(self._keys(kind, tags, bounds, up_to))
        return sum(1 for _ in islice(self._matching(kind, tags, choices, bounds, up_to), up_to))

    def kinds(self) -> list[str]:
        """The kinds that hold documents, or did; see the protocol."""
        with self._use():
            found = keys_of(self.calls, kinds_query(), MAX_KINDS, self._until())
        return sorted(kind for kind in found if not kind.startswith("_"))

    def attempt(self, fn: Callable[[EngineTxn], T], *, timeout_s: float) -> T:
        """Run fn in a transaction of the service and commit."""
        with self._use():
            txn = DatastoreTxn(self.calls, self.heads, Until(self.clock, timeout_s))
            token = _inside.set(True)
            try:
                result = fn(txn)
                txn.end()
                txn.commit()
            except Conflict:
                if txn.took:
                    self.heads.lost()
                raise
            except BaseException:
                txn.rollback()
                raise
            finally:
                txn.end()
                _inside.reset(token)
        if txn.took:
            self.heads.won()
        for kind, writes in txn.writes.items():
            self.heads.written(kind, writes.items())
        self.topics.publish(txn.topics)
        return result

    def capabilities(self) -> Capabilities:
        """Any number of machines; nobody hears of another process's writes."""
        return Capabilities(
            engine="datastore",
            push_wakeup=False,
            shared=True,
            durable=True,
            max_txn_docs=MAX_TXN_DOCS,
            max_txn_bytes=MAX_TXN_BYTES,
        )

    def release(self) -> None:
        """Let what runs come to its end, then close the connections."""
        with self._lock:
            waits = self._running > 0
        if waits:
            self._idle.wait(CLOSE_S)
        self.calls.close()

    def _keys(
        self, kind: str, tags: Iterable[str], bounds: Bounds, limit: int, *, reverse: bool = False
    ) -> list[Key]:
        place = self.calls.place
        query = key_query(place, kind, tags=tags, bounds=bounds, reverse=reverse, keys_only=True)
        with self._use():
            return keys_of(self.calls, query, limit, self._until())

    def _docs(
        self, kind: str, tags: Iterable[str], bounds: Bounds, limit: int, *, reverse: bool = False
    ) -> list[Doc]:
        query = key_query(self.calls.place, kind, tags=tags, bounds=bounds, reverse=reverse)
        with self._use():
            return [read_entity(each) for each in self.calls.query(query, limit, self._until())]

    def _matching(
        self, kind: str, tags: list[str], choices: list[AnyOf], bounds: Bounds, hint: int
    ) -> Iterator[Key]:
        """Keys of what holds all the tags and one of each choice, in order, each once."""

        def one(tag: str) -> Iterator[Key]:
            rest, limit = bounds, min(KEY_PAGE, hint)
            while True:
                keys = self._keys(kind, [*tags, tag], rest, limit)
                yield from keys
                if len(keys) < limit:
                    return
                rest, limit = [(">", keys[-1]), *bounds[1:]], KEY_PAGE

        return _common([_each_once(heapq.merge(*map(one, sorted(c)))) for c in choices])

    def _until(self) -> Until:
        return Until(self.clock, CALL_S)

    @contextmanager
    def _use(self) -> Iterator[None]:
        """Count who works. Raises Outage when closed, RuntimeError inside a transaction."""
        if _inside.get():
            raise RuntimeError("a transaction function must touch nothing but its transaction")
        with self._lock:
            self._running += 1
            self._idle.clear()
        try:
            self.check_open()
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._idle.set()


def _parted(all_of: Sequence[AnyOf]) -> tuple[list[str], list[AnyOf]]:
    """The tags that must all be there, and the real choices, without repetitions."""
    distinct = dict.fromkeys(all_of)
    tags = sorted({tag for any_of in distinct if len(any_of) == 1 for tag in any_of})
    return tags, [any_of for any_of in distinct if len(any_of) > 1 and any_of.isdisjoint(tags)]


def _each_once(keys: Iterable[Key]) -> Iterator[Key]:
    return (key for key, _ in groupby(keys))


def _common(streams: Sequence[Iterator[Key]]) -> Iterator[Key]:
    """What all of these ascending streams hold, in order."""
    firsts = [next(stream, None) for stream in streams]
    while None not in firsts:
        highest = max(key for key in firsts if key is not None)
        if all(key == highest for key in firsts):
            yield highest
            firsts = [next(stream, None) for stream in streams]
        else:
            firsts = [
                next(stream, None) if key is not None and key < highest else key
                for key, stream in zip(firsts, streams, strict=True)
            ]
