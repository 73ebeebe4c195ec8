"""The suite finds what it is for: engines that are wrong in the known ways fail it."""

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Conflict
from tests.fakes.wrapped_store import WrappedStore
from tests.store import table
from tests.store.conformance import schedules
from tests.store.conformance.races import Races
from tests.store.conformance.suite import SharedConformance


class Buffered:
    """Reads at once, from the store as it is then; keeps its writes."""

    def __init__(self, inner, reads, writes):
        self._inner = inner
        self.reads = reads
        self.writes = writes

    def get(self, kind, *keys):
        docs = self._inner.get(kind, *keys)
        self.reads += zip([kind] * len(keys), keys, docs, strict=True)
        return docs

    def __getattr__(self, how):
        return lambda kind, doc: self.writes.append((how, kind, doc))


class WrongStore(WrappedStore):
    """Transactions run beside each other; a commit looks only at what `sees` names of its reads."""

    def __init__(self, inner, sees):
        super().__init__(inner)
        self._sees = sees

    def attempt(self, fn, *, timeout_s):
        txn = Buffered(self.inner, [], [])
        result = fn(txn)
        written = {(kind, getattr(what, "key", what)) for _, kind, what in txn.writes}

        def commit(inner):
            for kind, key, doc in txn.reads:
                if self._sees((kind, key), doc, written) and inner.get(kind, key) != [doc]:
                    raise Conflict("changed since it was read")
            for how, kind, what in txn.writes:
                getattr(inner, how)(kind, what)

        self.inner.attempt(commit, timeout_s=timeout_s)
        return result


WRONG = {
    "sees nothing": (lambda key, doc, written: False, {*schedules.CASES} - {"insert and insert"}),
    "sees what it writes": (
        lambda key, doc, written: key in written,
        {"write skew", "deleted read", "read then absent", "read skew"},
    ),
    "sees what was there": (
        lambda key, doc, written: doc is not None,
        {"read then absent", "deleted read", "insert and put"},
    ),
    "sees everything": (lambda key, doc, written: True, set()),
}


@pytest.mark.parametrize("name", WRONG)
def test_forced_schedules_find_an_engine_that_misses_conflicts(name):
    sees, expected = WRONG[name]
    found = set()
    for case in schedules.CASES:
        store = WrongStore(MemoryStore(Threads(), SystemClock()), sees)
        for number, schedule in enumerate(schedules.schedules(schedules.CASES[case])):
            try:
                schedules.run_on_threads(store, case, schedule, f"{number}!", 1.0)
            except AssertionError:
                found.add(case)
    assert found == expected


@pytest.mark.slow
def test_random_races_find_an_engine_that_misses_conflicts():
    """Threads meet by chance: once in some sixteen times none of them did."""

    def races(_attempt):
        store = WrongStore(MemoryStore(Threads(), SystemClock()), WRONG["sees nothing"][0])
        try:
            Races().test_outcome_is_that_of_an_order_when_random_transactions_overlap(store)
        except AssertionError:
            return True
        return False

    assert any(map(races, range(5)))


def test_table_of_groups_and_engines_is_that_of_the_tests():
    assert table.PAGE.read_text(encoding="utf-8") == table.page()


@pytest.mark.parametrize("name", table.ENGINES)
def test_engine_runs_every_group_unless_it_declares_otherwise(name):
    declared = table.declared(name)
    is_alone = not (declared.shared or declared.durable)
    missing = {group for group in table.groups() if not table.runs_on(group, name)}
    assert missing == (set(SharedConformance.__bases__) if is_alone else set())
