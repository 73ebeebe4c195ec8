"""One transaction of the Datastore engine."""

from collections.abc import Iterable, Sequence
from itertools import islice

from botapi.store.datastore_calls import Calls, Until
from botapi.store.datastore_entities import (
    MINUTE_MS,
    Pb,
    expiry_query,
    key_of,
    key_query,
    read_entity,
    size_of,
)
from botapi.store.datastore_heads import Heads
from botapi.store.documents import WriteBuffer, check_kind
from botapi.store.protocol import AlreadyExists, Doc, Key, TooLarge

Bounds = list[tuple[str, Key]]

MAX_TXN_BYTES = 9 * 1024 * 1024
"""Most bytes of one commit, counted generously; the service takes 10 MiB."""
MAX_ENTITY_BYTES = 1_048_572
"""Most bytes of one document with its key and tags; the service's own limit, 1 MiB - 4."""
SWEEP_LOOK = 100
"""Documents read at a time by a sweep."""
FIRST_KEY = "\0"
"""No key is below it, and a bound needs a name."""


class DatastoreTxn(WriteBuffer):
    """One attempt. The service's transaction begins with the first read."""

    def __init__(self, calls: Calls, heads: Heads, until: Until) -> None:
        super().__init__()
        self.took = False
        self._calls = calls
        self._heads = heads
        self._until = until
        self._id = b""
        self._seen: dict[tuple[str, Key], bool] = {}

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """The documents in the order of the keys."""
        self.check_running()
        check_kind(kind)
        return self._read(kind, keys)

    def heads(self, kind: str, ranges: Sequence[tuple[Key, Key]], n: int) -> list[Doc]:
        """Up to n documents of each range that are still there in this transaction."""
        check_kind(kind)
        self.took = True

        def ask(lo: Key, hi: Key, limit: int, *, after: bool = False) -> list[Key]:
            bounds = bounds_of(lo, hi, lo if after else None)
            if bounds is None:
                return []
            query = key_query(self._calls.place, kind, bounds=bounds, keys_only=True)
            return keys_of(self._calls, query, limit, self._until)

        sources = [self._heads.candidates(kind, lo, hi, n, ask) for lo, hi in ranges]
        found: list[list[Doc]] = [[] for _ in ranges]
        tried: set[Key] = set()
        unfilled = list(range(len(ranges)))
        while unfilled:
            wanted: dict[int, list[Key]] = {}
            for index in unfilled:
                fresh = (key for key in sources[index] if key not in tried)
                wanted[index] = list(islice(fresh, n - len(found[index])))
                tried.update(wanted[index])
            docs = iter(self._read(kind, [key for keys in wanted.values() for key in keys]))
            for index, keys in wanted.items():
                found[index] += [doc for doc in islice(docs, len(keys)) if doc is not None]
            unfilled = [i for i, keys in wanted.items() if keys and len(found[i]) < n]
        return [doc for docs in found for doc in sorted(docs, key=lambda doc: doc.key)]

    def expired(self, kind: str, now_ms: int, limit: int) -> list[Key]:
        """Keys of what has expired; the last minute's documents are read to know which."""
        check_kind(kind)
        query = expiry_query(kind, now_ms // MINUTE_MS)
        keys = keys_of(self._calls, query, limit + SWEEP_LOOK, self._until)
        expired: list[Key] = []
        while keys and len(expired) < limit:
            found = [doc for doc in self._read(kind, keys[:SWEEP_LOOK]) if doc is not None]
            expired += [d.key for d in found if d.expire_at is not None and d.expire_at <= now_ms]
            keys = keys[SWEEP_LOOK:]
        return expired[:limit]

    def commit(self) -> None:
        """Check every insert, then send every write; without writes just let go."""
        self._check_inserts()
        place = self._calls.place
        writes = [
            (kind, key, write.packed)
            for kind, of_kind in self.writes.items()
            for key, write in of_kind.items()
        ]
        if not writes:
            self.rollback()
            return
        sizes = [size_of(key, packed) for _, key, packed in writes]
        if max(sizes) > MAX_ENTITY_BYTES:
            raise TooLarge(f"{max(sizes)} bytes in one entity, the limit is {MAX_ENTITY_BYTES}")
        if sum(sizes) > MAX_TXN_BYTES:
            raise TooLarge(f"{sum(sizes)} bytes in one transaction, the limit is {MAX_TXN_BYTES}")
        mutations = [place.mutation(*write) for write in writes]
        begun, self._id = self._id, b""
        self._calls.commit(mutations, begun, self._until)

    def rollback(self) -> None:
        """Release what the service holds for this transaction, if it is open."""
        begun, self._id = self._id, b""
        if begun:
            self._calls.rollback(begun, self._until)

    def _check_inserts(self) -> None:
        new = [
            (kind, key)
            for kind, of_kind in self.writes.items()
            for key, write in of_kind.items()
            if write.must_be_new
        ]
        unknown = [place for place in new if place not in self._seen]
        if unknown:
            found = self._lookup(unknown)
            there = {(each.key.path[0].kind, key_of(each)) for each in found}
            self._seen.update((place, place in there) for place in unknown)
        for place in new:
            if self._seen[place]:
                raise AlreadyExists(*place)

    def _read(self, kind: str, keys: Sequence[Key]) -> list[Doc | None]:
        docs = in_order(self._lookup(distinct(kind, keys)), keys)
        self._seen.update(
            ((kind, key), doc is not None) for key, doc in zip(keys, docs, strict=True)
        )
        return docs

    def _lookup(self, places: Sequence[tuple[str, Key]]) -> list[Pb]:
        found, self._id = self._calls.lookup(places, self._until, self._id)
        return found


def distinct(kind: str, keys: Iterable[Key]) -> list[tuple[str, Key]]:
    """Each key once, with its kind."""
    return [(kind, key) for key in dict.fromkeys(keys)]


def in_order(found_now: Iterable[Pb], keys: Sequence[Key]) -> list[Doc | None]:
    """The documents of the keys; every one is unpacked for itself."""
    found = {key_of(each): each for each in found_now}
    return [read_entity(found[key]) if key in found else None for key in keys]


def bounds_of(lo: Key, hi: Key | None, after: Key | None = None) -> Bounds | None:
    """Bounds of a query, the lower one first; None when nothing lies between them."""
    lower = (">", after) if after is not None and after >= lo else (">=", lo or FIRST_KEY)
    if hi is not None and hi <= lower[1]:
        return None
    return [lower] if hi is None else [lower, ("<", hi)]


def keys_of(calls: Calls, query: Pb, limit: int, until: Until) -> list[Key]:
    """The keys that a query for keys gives."""
    return [key_of(each) for each in calls.query(query, limit, until)]
