"""A real engine below the simulated processes, with the memory store beside it as its double.

Whoever has the turn waits for the engine without giving the turn away. Every answer of the
engine is compared with that of the double, and so is everything in it at the end; `Differs`
is the end of the run.
"""

import uuid
from contextlib import closing, contextmanager, suppress

from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store.documents import pack, unpack
from botapi.store.engine import check_schema
from botapi.store.memory import _MemoryTxn
from botapi.store.protocol import AlreadyExists
from tests.engines.schemas import END, clear, fresh_schema
from tests.sim.store import Ground

PAGE = 1_000
LIMIT_S = 30.0


class Differs(AssertionError):
    """The engine says or holds something else than the memory store."""


class Beside(_MemoryTxn):
    """A transaction of the double that does all that the engine's does, and compares."""

    def __init__(self, kinds, txn):
        super().__init__(kinds)
        self._txn = txn

    def get(self, kind, *keys):
        return _same("get", self._txn.get(kind, *keys), super().get(kind, *keys), kind, keys)

    def heads(self, kind, ranges, n):
        found = self._txn.heads(kind, ranges, n)
        return _same("heads", found, super().heads(kind, ranges, n), kind, ranges, n)

    def expired(self, kind, now_ms, limit):
        return self._txn.expired(kind, now_ms, limit)

    def put(self, kind, doc):
        super().put(kind, doc)
        self._txn.put(kind, doc)

    def insert(self, kind, doc):
        super().insert(kind, doc)
        self._txn.insert(kind, doc)

    def delete(self, kind, key):
        super().delete(kind, key)
        self._txn.delete(kind, key)

    def notify(self, topic):
        super().notify(topic)
        self._txn.notify(topic)


class EngineGround(Ground):
    """The database is an engine; what `Ground` itself holds is the double."""

    _engine = None

    def __init__(self, clock, rng, kinds, engine):
        super().__init__(clock, rng, kinds)
        super().attempt(check_schema, timeout_s=LIMIT_S)  # as the engine did when it was opened
        engine.write_many(
            (name, unpack(key, packed))
            for name, kind in self._kinds.items()
            for key, packed in kind.packed.items()
        )
        self._engine = engine

    def may_claim(self):
        """As the server decides on this engine."""
        return self._engine.capabilities().group_commit

    def attempt(self, fn, *, timeout_s):
        if self._engine is None:
            return super().attempt(fn, timeout_s=timeout_s)
        double = None

        def work(txn):
            nonlocal double
            double = Beside(self._kinds, txn)
            return fn(double)

        self._holder = 1
        try:
            result = self._engine.attempt(work, timeout_s=LIMIT_S)
        except AlreadyExists as error:
            with suppress(AlreadyExists):
                double.commit()
                raise Differs("the engine alone says that it exists") from error
            raise
        finally:
            self._holder = None
        self.applied(fn, double)
        self.topics.publish(double.topics)
        return result

    def get(self, kind, *keys):
        return self._both("get", kind, *keys)

    def scan(self, kind, lo, hi, **more):
        return self._both("scan", kind, lo, hi, **more)

    def scan_keys(self, kind, lo, hi, **more):
        return self._both("scan_keys", kind, lo, hi, **more)

    def find(self, kind, all_of, **more):
        return self._both("find", kind, all_of, **more)

    def count(self, kind, all_of, **more):
        return self._both("count", kind, all_of, **more)

    def check_same(self):
        """Fail unless the engine holds exactly what the double does."""
        for kind in sorted({*self._kinds, *self._engine.kinds()}):
            stored, lo = {}, "\x01"
            while docs := self._engine.scan(kind, lo, END, limit=PAGE):
                stored.update((doc.key, pack(doc)) for doc in docs)
                lo = docs[-1].key + "\x01"
            double = self._kinds[kind].packed if kind in self._kinds else {}
            wrong = {key for key in stored | double if stored.get(key) != double.get(key)}
            if wrong:
                some = [(key, stored.get(key), double.get(key)) for key in sorted(wrong)[:5]]
                raise Differs(f"{kind}: {some}")

    def _both(self, what, kind, *args, **more):
        expected = getattr(super(), what)(kind, *args, **more)
        if self._engine is None:
            return expected
        found = getattr(self._engine, what)(kind, *args, **more)
        return _same(what, found, expected, kind, args, more)


def _same(what, found, expected, *asked):
    if found != expected:
        raise Differs(f"{what} {asked}: {found}, not {expected}")
    return found


class Databases:
    """Empty databases of one engine, one after the other, below one address.

    `sqlite:FOLDER`: a folder each; `datastore://…`: a namespace each; `postgresql://…`: one
    schema of this process that is emptied each time, for its tables take long to make.
    """

    def __init__(self, base):
        self._base = base
        self._kept = None

    @contextmanager
    def empty(self):
        """The engine on a database that holds nothing."""
        name = f"sim{uuid.uuid4().hex}"
        if self._base.startswith("postgresql:"):
            if self._kept is None:
                self._kept = self.open(fresh_schema(self._base, name))
            yield self._kept
            clear(self._kept)
            return
        is_file = self._base.startswith("sqlite:")
        place = self._base.partition("?")[0]
        with closing(
            self.open(f"{place}/{name}" if is_file else f"{place}?namespace={name}")
        ) as it:
            yield it

    def open(self, address):
        """The engine at an address."""
        return engines.open_address(address, Settings(), Threads(), SystemClock(), SystemRng())

    def close(self):
        """No seed comes any more."""
        if self._kept is not None:
            self._kept.close()
