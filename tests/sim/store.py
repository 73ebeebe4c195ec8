"""One memory store below all, and each server process's own view of it, with its faults."""

from contextlib import contextmanager, suppress

import greenlet

from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore, _Kind, _MemoryTxn
from botapi.store.protocol import Ambiguous, Conflict, Outage
from botapi.store.retry import Transactions

RECORDED = frozenset(
    {"task", "req", "pend", "offer", "due", "bot", "event", "out", "outpos", "lsession"}
)
"""Kinds whose changes go into the history."""


class Ground(MemoryStore):
    """The database itself: it writes down what every commit changed."""

    def __init__(self, clock, rng, kinds):
        super().__init__(Threads(), clock, rng)
        self._kinds = {name: _copy(kind) for name, kind in kinds.items()}
        self.recorder = None

    def may_claim(self):
        """Does a round of offers claim for bots? As the server decides on this store."""
        return not self.capabilities().shared

    @contextmanager
    def _alone(self, timeout_s=-1):
        """Nobody else can be there: whoever has the turn keeps it until it has done this."""
        if self._holder is not None:
            raise RuntimeError("a transaction function must touch nothing but its transaction")
        yield

    def get(self, kind, *keys):
        if self._holder is not None:
            raise RuntimeError("a transaction function must touch nothing but its transaction")
        return self._kind(kind).docs(keys)

    def attempt(self, fn, *, timeout_s):
        txn = _MemoryTxn(self._kinds)
        self._holder = 1
        try:
            result = fn(txn)
        finally:
            self._holder = None
            txn.end()
        self.applied(fn, txn)
        self.topics.publish(txn.topics)
        return result

    def applied(self, fn, txn):
        """Commit, and write down what that changes."""
        changes = [
            (kind, key, self._packed(kind, key), write.packed)
            for kind, writes in txn.writes.items()
            if kind in RECORDED
            for key, write in writes.items()
        ]
        txn.commit()
        if changes and self.recorder is not None:
            self.recorder(getattr(fn, "label", ""), changes)

    def contents(self):
        """Everything, to begin another store with."""
        return self._kinds

    def _packed(self, kind, key):
        of_kind = self._kinds.get(kind)
        return None if of_kind is None else of_kind.packed.get(key)


def _copy(kind):
    made = _Kind()
    made.keys = list(kind.keys)
    made.packed = dict(kind.packed)
    made.tagged = {tag: set(keys) for tag, keys in kind.tagged.items()}
    return made


class _Rehearsed(Exception):
    """Throws the writes of a rehearsal away."""


class _Labelled:
    def __init__(self, fn, label):
        self.fn = fn
        self.label = label

    def __call__(self, txn):
        return self.fn(txn)


class View(Transactions):
    """The store as one server process has it.

    Between any two operations others may have their turn; commits fail, or succeed and say
    nothing; functions run twice; hints get lost.
    """

    def __init__(self, ground, world, process, faults, history):
        super().__init__(process.concurrency, process.clock, process.rng)
        self._ground = ground
        self._world = world
        self._process = process
        self._faults = faults
        self._history = history
        self._random = world.random.random
        self._ends = []
        self.schema = ground.schema
        self.capabilities = ground.capabilities

    def get(self, kind, *keys):
        self._turn("get")
        return self._ground.get(kind, *keys)

    def scan(self, kind, lo, hi, *, limit, reverse=False):
        self._turn("scan")
        return self._ground.scan(kind, lo, hi, limit=limit, reverse=reverse)

    def scan_keys(self, kind, lo, hi, *, limit, reverse=False):
        self._turn("scan")
        return self._ground.scan_keys(kind, lo, hi, limit=limit, reverse=reverse)

    def find(self, kind, all_of, **more):
        self._turn("find")
        return self._ground.find(kind, all_of, **more)

    def count(self, kind, all_of, *, up_to):
        self._turn("find")
        return self._ground.count(kind, all_of, up_to=up_to)

    def _repeat(self, fn, measured, label, *limits):
        return super()._repeat(_Labelled(fn, label), measured, label, *limits)

    def attempt(self, fn, *, timeout_s):
        self._turn(fn.label)
        faults = self._faults
        if self._hits(faults.slow_commit) and not self._world.is_hub():
            self._note("slow commit", fn.label)
            self._world.sleep(self._random() * 2.0)
        if self._hits(faults.conflict):
            self._note("conflict", fn.label)
            raise Conflict("injected")
        if self._hits(faults.ambiguous):
            self._note("ambiguous before", fn.label)
            raise Ambiguous("injected before the commit")
        if self._hits(faults.twice):
            self._note("run twice", fn.label)
            self._rehearse(fn, timeout_s)
        result = self._ground.attempt(fn, timeout_s=timeout_s)
        if self._hits(faults.ambiguous):
            self._note("ambiguous after", fn.label)
            raise Ambiguous("injected after the commit")
        self._turn(fn.label)
        return result

    def watch(self, topics, timeout_s):
        raise NotImplementedError("nobody in the server watches")

    def subscribe(self, callback):
        def heard(topic):
            if self._hits(self._faults.lose_hint):
                self._note("hint lost", topic)
            elif self._hits(self._faults.late_hint):
                self._world.later(self._world.random.uniform(0.01, 3.0), deliver, topic)
            else:
                callback(topic)

        def deliver(topic):
            if self._process.is_alive:
                callback(topic)

        end = self._ground.subscribe(heard)
        self._ends.append(end)
        return end

    def close(self):
        """The process is gone; the store goes on."""
        for end in self._ends:
            end()

    def _rehearse(self, fn, timeout_s):
        def rehearsal(txn):
            fn(txn)
            raise _Rehearsed

        with suppress(_Rehearsed):
            self._ground.attempt(rehearsal, timeout_s=timeout_s)

    def _turn(self, label):
        """Perhaps others go first; perhaps the store is away."""
        if self._world.is_hub():
            return
        frozen_s = self._process.paused_until - self._world.now
        if frozen_s > 0:
            self._world.sleep(frozen_s)
        if self._hits(self._faults.yields):
            self._world.sleep(self._random() * self._faults.longest_turn_s)
        if self._hits(self._faults.outage):
            self._note("outage", label)
            raise Outage("injected")

    def _hits(self, chance):
        return chance > 0 and self._random() < chance

    def _note(self, name, label):
        self._history.fault(name, (self._process.name, label))


def caller():
    """For whom the present activity works."""
    return getattr(greenlet.getcurrent(), "by", None)
