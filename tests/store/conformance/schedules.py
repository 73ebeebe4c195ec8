"""Two transactions that meet at a chosen moment: the cases, and the orders they are forced into.

A case has two acts. Each reads, says where it stands by `pause(moment)`, writes, and returns
what it saw; `is_right` judges both results and what is stored in the end. The same cases run
on two threads (`isolation.py`) and in two processes (`processes.py`).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from botapi.store.protocol import AlreadyExists
from tests.store.conformance.support import doc, together

KIND = "schedule"


@dataclass(frozen=True)
class Case:
    """`before`: what is stored, `acts`: called with (txn, pause); keys are below a prefix."""

    acts: tuple[Callable, Callable]
    is_right: Callable
    before: tuple = ()
    moments: tuple[str, ...] = ("after",)


@dataclass(frozen=True)
class Schedule:
    """At `moment` both meet, or (`overtaken` 0 or 1) that one lets the other come and go."""

    moment: str
    overtaken: int | None

    def __str__(self):
        return f"{self.moment}:{'meet' if self.overtaken is None else self.overtaken}"


def schedules(case):
    return [Schedule(moment, who) for moment in case.moments for who in (None, 0, 1)]


class Prefixed:
    """A transaction whose keys begin with the name of a run, so that runs share a database."""

    def __init__(self, txn, prefix):
        self._txn = txn
        self._prefix = prefix

    def get(self, *keys):
        return self._txn.get(KIND, *(self._prefix + key for key in keys))

    def put(self, key, **body):
        self._txn.put(KIND, doc(self._prefix + key, **body))

    def insert(self, key, **body):
        self._txn.insert(KIND, doc(self._prefix + key, **body))

    def delete(self, key):
        self._txn.delete(KIND, self._prefix + key)


def lost_update(me):
    def act(txn, pause):
        (found,) = txn.get("count")
        pause("after")
        txn.put("count", n=found.body["n"] + 1)

    return act


def leave(name):
    """Of two who are on call one may go, if the other stays."""

    def act(txn, pause):
        (one,) = txn.get("ann")
        pause("between")
        (other,) = txn.get("bob")
        pause("after")
        if one.body["on"] and other.body["on"]:
            txn.put(name, on=False)

    return act


def add_child(txn, pause):
    (parent,) = txn.get("parent")
    pause("after")
    if parent:
        txn.put("child")


def delete_parent(txn, pause):
    (child,) = txn.get("child")
    pause("between")
    txn.get("parent")
    pause("after")
    if not child:
        txn.delete("parent")


def claim_absent(mine, theirs):
    """Write only where the other has not; nobody's document is there yet."""

    def act(txn, pause):
        (found,) = txn.get(theirs)
        pause("after")
        if found is None:
            txn.put(mine)
        return found is None

    return act


def insert_as(name):
    def act(txn, pause):
        pause("before")
        txn.get("k")
        pause("after")
        txn.insert("k", by=name)
        return name

    return act


def put_if_absent(txn, pause):
    (found,) = txn.get("k")
    pause("after")
    if found is None:
        txn.put("k", by="put")
    return found is None


def insert_blindly(txn, pause):
    pause("after")
    txn.insert("k", by="insert")
    return "inserted"


def delete_what_is_there(txn, pause):
    (found,) = txn.get("k")
    pause("after")
    txn.delete("k")
    return found is not None


def change_what_is_there(txn, pause):
    (found,) = txn.get("k")
    pause("after")
    if found:
        txn.put("k", n=found.body["n"] + 1)
    return found is not None


def look_at_both(txn, pause):
    (left,) = txn.get("left")
    pause("between")
    (right,) = txn.get("right")
    pause("after")
    return left.body["n"] + right.body["n"]


def move_one(txn, pause):
    left, right = txn.get("left", "right")
    pause("between")
    pause("after")
    txn.put("left", n=left.body["n"] - 1)
    txn.put("right", n=right.body["n"] + 1)


def increment_in_turn(first, second):
    def act(txn, pause):
        (one,) = txn.get(first)
        pause("between")
        (other,) = txn.get(second)
        pause("after")
        txn.put(first, n=one.body["n"] + 1)
        txn.put(second, n=other.body["n"] + 1)

    return act


def one_inserted(results, docs):
    losers = [each for each in results if isinstance(each, AlreadyExists)]
    winners = [each for each in results if isinstance(each, str)]
    return len(losers) == len(winners) == 1 and docs["k"].body["by"] == winners[0]


def insert_met_put(results, docs):
    inserted, was_absent = results
    if isinstance(inserted, AlreadyExists):
        return was_absent is True and docs["k"].body["by"] == "put"
    return was_absent is False and docs["k"].body["by"] == "insert"


TWO_READS = ("between", "after")
CASES = {
    "lost update": Case(
        (lost_update(0), lost_update(1)),
        lambda results, docs: docs["count"].body["n"] == 2,
        (("count", {"n": 0}),),
    ),
    "write skew": Case(
        (leave("ann"), leave("bob")),
        lambda results, docs: sorted(docs[who].body["on"] for who in ("ann", "bob")) == [0, 1],
        (("ann", {"on": True}), ("bob", {"on": True})),
        TWO_READS,
    ),
    "deleted read": Case(
        (add_child, delete_parent),
        lambda results, docs: ("parent" in docs) == ("child" in docs),
        (("parent", {}),),
    ),
    "read then absent": Case(
        (claim_absent("mine", "theirs"), claim_absent("theirs", "mine")),
        lambda results, docs: sorted(results) == [False, True] and len(docs) == 1,
    ),
    "insert and insert": Case(
        (insert_as("ann"), insert_as("bob")), one_inserted, moments=("before", "after")
    ),
    "insert and put": Case((insert_blindly, put_if_absent), insert_met_put),
    "delete and delete": Case(
        (delete_what_is_there, delete_what_is_there),
        lambda results, docs: sorted(results) == [False, True] and not docs,
        (("k", {}),),
    ),
    "delete and change": Case(
        (delete_what_is_there, change_what_is_there),
        lambda results, docs: results[0] is True and not docs,
        (("k", {"n": 0}),),
    ),
    "read skew": Case(
        (look_at_both, move_one),
        lambda results, docs: results[0] == 10 and docs["left"].body["n"] == 4,
        (("left", {"n": 5}), ("right", {"n": 5})),
        TWO_READS,
    ),
    "crossing": Case(
        (increment_in_turn("x", "y"), increment_in_turn("y", "x")),
        lambda results, docs: [docs[key].body["n"] for key in "xy"] == [2, 2],
        (("x", {"n": 0}), ("y", {"n": 0})),
        TWO_READS,
    ),
}


def prepare(store, case, prefix):
    """What is there before the two begin."""
    store.write_many((KIND, doc(prefix + key, **body)) for key, body in case.before)


def perform(store, name, who, prefix, pause):
    """One of the two acts as a transaction; its result, or the AlreadyExists it ended with."""
    act = CASES[name].acts[who]
    try:
        return store.transact(lambda txn: act(Prefixed(txn, prefix), pause), label="schedule")
    except AlreadyExists as error:
        return error


def judge(store, name, schedule, prefix, results):
    """Fail unless the outcome is that of some order."""
    found = store.scan(KIND, prefix, prefix + "~", limit=99)
    docs = {each.key.removeprefix(prefix): each for each in found}
    assert CASES[name].is_right(results, docs), (name, str(schedule), results, docs)


class Encounter:
    """Where one of the two stands still: `signal` and `await_signal` reach the other.

    Only the first try waits: a transaction that runs again runs through.
    """

    def __init__(self, schedule, who, signal, await_signal, patience_s):
        self._schedule = schedule
        self._who = who
        self._patience_s = patience_s
        self._signal = signal
        self._await = await_signal
        self._is_over = False

    @property
    def _is_overtaken(self):
        return self._schedule.overtaken == self._who

    def begin(self):
        """An overtaker begins when the other stands still."""
        if self._schedule.overtaken is not None and not self._is_overtaken:
            self._await(20 * self._patience_s)

    def pause(self, moment):
        if moment != self._schedule.moment or self._is_over:
            return
        self._is_over = True
        if self._schedule.overtaken is None or self._is_overtaken:
            self._signal()
            self._await(self._patience_s)

    def end(self):
        """An overtaker says that it has come and gone."""
        if self._schedule.overtaken is not None and not self._is_overtaken:
            self._signal()


def run_on_threads(store, name, schedule, prefix, patience_s):
    """Both acts of a case in one order; fails unless the outcome is right."""
    prepare(store, CASES[name], prefix)
    flags = threading.Semaphore(0), threading.Semaphore(0)

    def run(who):
        encounter = Encounter(
            schedule,
            who,
            flags[1 - who].release,
            lambda seconds: flags[who].acquire(timeout=seconds),
            patience_s,
        )
        encounter.begin()
        try:
            return perform(store, name, who, prefix, encounter.pause)
        finally:
            encounter.end()

    results = together(lambda: run(0), lambda: run(1))
    judge(store, name, schedule, prefix, results)
