"""The store in memory: the verified fake of the unit tests, also good for demos.

It passes the same suite as the engines with a file behind them.  One lock makes every
transaction alone in the world; what is kept of a body is bytes, never the caller's object.
"""

import _thread
import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency, native_lock
from botapi.store.documents import (
    MAX_TXN_DOCS,
    Packed,
    Write,
    WriteBuffer,
    check_kind,
    check_limit,
    check_query,
    unpack,
)
from botapi.store.engine import Engine, check_schema
from botapi.store.protocol import (
    AlreadyExists,
    AnyOf,
    Capabilities,
    Doc,
    Key,
    Outage,
    Page,
)
from botapi.store.retry import EngineTxn

T = TypeVar("T")


class _Kind:
    """The documents of one kind: sorted keys, packed documents, and the keys of every tag."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.packed: dict[Key, Packed] = {}
        self.tagged: dict[str, set[Key]] = {}

    def docs(self, keys: Iterable[Key]) -> list[Doc | None]:
        found = ((key, self.packed.get(key)) for key in keys)
        return [None if packed is None else unpack(key, packed) for key, packed in found]

    def within(self, lo: Key, hi: Key | None) -> tuple[int, int]:
        """The slice of `keys` with lo <= key < hi."""
        start = bisect_left(self.keys, lo)
        end = len(self.keys) if hi is None else bisect_left(self.keys, hi)
        return start, max(start, end)

    def write(self, key: Key, write: Write) -> None:
        before = self.packed.pop(key, None)
        for tag in before.tags if before else ():
            self.tagged[tag].discard(key)
        if write.packed is None:
            if before:
                del self.keys[bisect_left(self.keys, key)]
            return
        if not before:
            insort(self.keys, key)
        self.packed[key] = write.packed
        for tag in write.packed.tags:
            self.tagged.setdefault(tag, set()).add(key)

    def matching(self, all_of: Sequence[AnyOf]) -> Iterable[Key]:
        """The keys that hold a tag of every AnyOf; sorted when there is no AnyOf."""
        if not all_of:
            return self.keys
        sets = [set().union(*(self.tagged.get(tag, ()) for tag in any_of)) for any_of in all_of]
        return set.intersection(*sets)


class _MemoryTxn(WriteBuffer):
    """One attempt; runs while its store's lock is held."""

    def __init__(self, kinds: dict[str, _Kind]) -> None:
        super().__init__()
        self._kinds = kinds

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        self.check_running()
        return self._kind(kind).docs(keys)

    def heads(self, kind: str, ranges: Sequence[tuple[Key, Key]], n: int) -> list[Doc]:
        of_kind = self._kind(kind)
        taken: dict[Key, None] = {}
        for lo, hi in ranges:
            inside = of_kind.keys[slice(*of_kind.within(lo, hi))]
            taken.update(dict.fromkeys(islice((key for key in inside if key not in taken), n)))
        return [unpack(key, of_kind.packed[key]) for key in taken]

    def expired(self, kind: str, now_ms: int, limit: int) -> list[Key]:
        of_kind = self._kind(kind)
        due = (
            key
            for key, packed in of_kind.packed.items()
            if packed.expire_at is not None and packed.expire_at <= now_ms
        )
        return list(islice(due, limit))

    def commit(self) -> None:
        """Check every insert, then apply every write."""
        for kind, writes in self.writes.items():
            present = self._kind(kind).packed
            for key, write in writes.items():
                if write.must_be_new and key in present:
                    raise AlreadyExists(kind, key)
        for kind, writes in self.writes.items():
            of_kind = self._kinds.setdefault(kind, _Kind())
            for key, write in writes.items():
                of_kind.write(key, write)

    def _kind(self, kind: str) -> _Kind:
        check_kind(kind)
        return self._kinds.get(kind) or _Kind()


class MemoryStore(Engine):
    """A database that lives as long as this object."""

    def __init__(self, concurrency: Concurrency, clock: Clock, rng: Rng | None = None) -> None:
        super().__init__(concurrency, clock, rng)
        self._kinds: dict[str, _Kind] = {}
        self._lock = native_lock()
        self._holder: int | None = None
        self.transact(check_schema, label="check_schema")

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key; see the protocol."""
        with self._alone():
            return self._kind(kind).docs(keys)

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """Documents of a key range; see the protocol."""
        with self._alone():
            of_kind = self._kind(kind)
            keys = self._range(of_kind, lo, hi, limit, reverse=reverse)
            return [unpack(key, of_kind.packed[key]) for key in keys]

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """Keys of a key range; see the protocol."""
        with self._alone():
            return self._range(self._kind(kind), lo, hi, limit, reverse=reverse)

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
        with self._alone():
            of_kind = self._kind(kind)
            inside = (
                key
                for key in of_kind.matching(all_of)
                if key >= lo and (after is None or key > after) and (hi is None or key < hi)
            )
            keys = heapq.nsmallest(limit + 1, inside)
            docs = [unpack(key, of_kind.packed[key]) for key in keys[:limit]]
        return Page(docs, docs[-1].key if len(keys) > limit else None)

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
        with self._alone():
            inside = (
                key
                for key in self._kind(kind).matching(all_of)
                if key >= lo and (hi is None or key < hi)
            )
            return sum(1 for _ in islice(inside, up_to))

    def kinds(self) -> list[str]:
        """The kinds that hold documents, or did; see the protocol."""
        with self._alone():
            return sorted(self._kinds)

    def attempt(self, fn: Callable[[EngineTxn], T], *, timeout_s: float) -> T:
        """Run fn alone, then apply its writes."""
        with self._alone(timeout_s):
            txn = _MemoryTxn(self._kinds)
            try:
                result = fn(txn)
            finally:
                txn.end()
            txn.commit()
        self.topics.publish(txn.topics)
        return result

    def capabilities(self) -> Capabilities:
        """One process, no file."""
        return Capabilities(
            engine="memory",
            push_wakeup=False,
            shared=False,
            durable=False,
            max_txn_docs=MAX_TXN_DOCS,
        )

    def release(self) -> None:
        """Nothing is kept anywhere."""

    @contextmanager
    def _alone(self, timeout_s: float = -1) -> Iterator[None]:
        """Hold the lock. Raises Outage when closed, RuntimeError inside a transaction."""
        me = _thread.get_native_id()
        if self._holder == me:
            raise RuntimeError("a transaction function must touch nothing but its transaction")
        if not self._lock.acquire(timeout=timeout_s):
            raise Outage(f"no turn within {timeout_s:.1f} s")
        self._holder = me
        try:
            self.check_open()
            yield
        finally:
            self._holder = None
            self._lock.release()

    def _kind(self, kind: str) -> _Kind:
        check_kind(kind)
        return self._kinds.get(kind) or _Kind()

    @staticmethod
    def _range(of_kind: _Kind, lo: Key, hi: Key, limit: int, *, reverse: bool) -> list[Key]:
        check_limit(limit)
        start, end = of_kind.within(lo, hi)
        if reverse:
            return of_kind.keys[max(start, end - limit) : end][::-1]
        return of_kind.keys[start : min(end, start + limit)]
