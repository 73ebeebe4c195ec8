"""Random transactions that overlap: there is an order in which a dictionary gives the same."""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botapi.store.protocol import AlreadyExists
from tests.store.conformance.support import Effort, Meeting, doc, together

KEYS = st.sampled_from("abc")


@dataclass(frozen=True)
class Program:
    """What one transaction does: reads, then writes that say what was read."""

    reads: tuple[tuple[str, ...], ...]
    writes: tuple[tuple[str, str], ...]


PROGRAMS = st.builds(
    Program,
    st.lists(st.lists(KEYS, min_size=1, max_size=2, unique=True).map(tuple), max_size=2).map(tuple),
    st.lists(st.tuples(st.sampled_from(["put", "insert", "delete"]), KEYS), max_size=3).map(tuple),
)


def value(who, seen):
    """What a program writes: its name and all that it has read."""
    return {"by": who, "seen": [each and each["by"] for each in seen]}


def run(program, who, txn, meet):
    seen = []
    for keys in program.reads:
        seen += [found and found.body for found in txn.get("race", *keys)]
        meet()
    for how, key in program.writes:
        if how == "delete":
            txn.delete("race", key)
        else:
            getattr(txn, how)("race", doc(key, **value(who, seen)))
    return [each and each["by"] for each in seen]


def in_order(programs, order, before):
    """What each gives and what is there at the end when they go one after the other."""
    there, results = dict(before), {}
    for who in order:
        program = programs[who]
        seen = [there.get(key) for keys in program.reads for key in keys]
        if any(how == "insert" and key in there for how, key in program.writes):
            results[who] = "exists"
            continue
        for how, key in program.writes:
            there.pop(key, None)
            if how != "delete":
                there[key] = value(who, seen)
        results[who] = [each and each["by"] for each in seen]
    return [results[who] for who in range(len(programs))], there


class Races(Effort):
    @pytest.mark.slow
    def test_outcome_is_that_of_an_order_when_random_transactions_overlap(self, store):
        @settings(
            max_examples=self.races * 4,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(programs=st.lists(PROGRAMS, min_size=2, max_size=3), there=st.frozensets(KEYS))
        def race(programs, there):
            before = {key: {"by": "before", "seen": []} for key in sorted(there)}
            store.transact(lambda txn: begin(txn, before), label="race")
            meeting = Meeting(len(programs), self.patience_s / 4)

            def work(who, program):
                try:
                    return store.transact(
                        lambda txn: run(program, who, txn, meeting.wait), label="race"
                    )
                except AlreadyExists:
                    return "exists"

            results = together(
                *(
                    lambda who=who, program=program: work(who, program)
                    for who, program in enumerate(programs)
                )
            )
            found = {each.key: each.body for each in store.scan("race", "a", "z", limit=9)}
            orders = itertools.permutations(range(len(programs)))
            assert (results, found) in [in_order(programs, order, before) for order in orders]

        race()


def begin(txn, before):
    for key in "abc":
        txn.delete("race", key)
    for key, body in before.items():
        txn.put("race", doc(key, **body))
