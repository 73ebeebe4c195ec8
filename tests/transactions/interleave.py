"""Two transactions in every order of their steps: reads one by one, then the commit.

An engine that makes transactions wait for each other shows only two of the orders. Here
each function runs over the engine as an optimistic one would run it (Datastore does): it
reads what is there now, keeps its writes, and commits only if nothing that it read has
changed since; otherwise it runs again. The commit itself is a real transaction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet


class _Changed(Exception):
    """Something read before the commit is not as it was."""


class _Txn:
    """Reads at once, writes later; every read but the first waits for its turn."""

    def __init__(self, inner, turn):
        self._inner, self._turn = inner, turn
        self._reads, self._writes = [], []

    def get(self, kind, *keys):
        if self._reads:
            self._turn("read")
        docs = self._inner.get(kind, *keys)
        self._reads.append((kind, keys, docs))
        return docs

    def heads(self, kind, ranges, n):
        """What `take` gives: read one after the other, as by key."""
        scan = self._inner.scan_keys
        keys = [key for lo, hi in ranges for key in scan(kind, lo, hi, limit=n)]
        return [doc for doc in self.get(kind, *keys) if doc is not None]

    def put(self, kind, doc):
        self._writes.append(lambda txn: txn.put(kind, doc))

    def insert(self, kind, doc):
        self._writes.append(lambda txn: txn.insert(kind, doc))

    def delete(self, kind, key):
        self._writes.append(lambda txn: txn.delete(kind, key))

    def notify(self, topic):
        self._writes.append(lambda txn: txn.notify(topic))

    def commit(self):
        def work(txn):
            for kind, keys, docs in self._reads:
                if txn.get(kind, *keys) != docs:
                    raise _Changed
            for write in self._writes:
                write(txn)

        self._inner.transact(work, label="interleaved")


class Interleaved:
    """The store that the two acts are given: reads pass, transactions go step by step."""

    def __init__(self, inner, turn):
        self._inner, self._turn = inner, turn
        for name in ("get", "scan", "scan_keys", "find", "count"):
            setattr(self, name, getattr(inner, name))

    def take(self, kind, ranges, n, fn, *, label):
        return self.transact(lambda txn: fn(txn, txn.heads(kind, ranges, n)), label=label)

    def transact(self, fn, *, label, deadline_s=10.0):
        while True:
            txn = _Txn(self._inner, self._turn)
            result = fn(txn)
            self._turn("commit")
            try:
                txn.commit()
            except _Changed:
                continue
            return result


@dataclass
class _Run:
    """One order: who goes next is said by `prefix` while that is possible, else the first.

    `branches` are the orders that begin as this one and then give another the turn; `said`
    is what each step left its act with: the next step, or at the end the result.
    """

    store: object
    acts: list[Callable]
    prefix: tuple[int, ...]
    said: list[object] = field(default_factory=list)
    branches: list[tuple[int, ...]] = field(default_factory=list)
    results: dict[int, object] = field(default_factory=dict)

    def play(self):
        chosen = []
        seen = Interleaved(self.store, getcurrent().switch)
        runners = {n: greenlet(lambda act=act: act(seen)) for n, act in enumerate(self.acts)}
        while runners:
            ready, at = sorted(runners), len(chosen)
            who = ready[0]
            if at < len(self.prefix) and self.prefix[at] in runners:
                who = self.prefix[at]
            elif at >= len(self.prefix):
                self.branches += [(*chosen, other) for other in ready[1:]]
            chosen.append(who)
            self.said.append(runners[who].switch())
            if runners[who].dead:
                self.results[who] = self.said[-1]
                del runners[who]
        return [self.results[n] for n in sorted(self.results)]


def every_order(store, begin, acts, check):
    """Play two acts in every order of their steps; how many there were.

    `begin()` makes a fresh situation; each act is called with it and a store. `check` gets
    the situation and the two results.
    """
    todo, count = [()], 0
    while todo:
        run = _play(store, begin, acts, check, todo.pop())
        todo += run.branches
        count += 1
    return count


def every_outcome(store, begin, acts, check):
    """As `every_order`, with one order of each kind that the acts can tell apart.

    What one has read when the other commits is all that an act can see of the other: the
    order of reads among each other is the same to both.
    """
    count = 0
    for first, other in ((0, 1), (1, 0)):
        read = 0
        while True:
            prefix = (other,) * read + (first,) * ENDLESS
            run = _play(store, begin, acts, check, prefix)
            count += 1
            if read and run.said[read - 1] != "read":
                break
            read += 1
    return count


ENDLESS = 1_000
"""More steps than any act has."""


def _play(store, begin, acts, check, prefix):
    situation = begin()
    bound = [lambda seen, act=act: act(situation, seen) for act in acts]
    run = _Run(store, bound, prefix)
    check(situation, run.play())
    return run
