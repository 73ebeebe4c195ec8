"""The engine against a dictionary: random histories must look the same."""

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from botapi.store.protocol import AlreadyExists, Doc
from tests.store.conformance.support import Effort, keys_of

KEYS = st.sampled_from(["a", "a!", "a!b", 'a"', "aa", "b", "é", "☃", "𝄞", "~"])
TAGS = st.frozensets(st.sampled_from(["t1", "t2", "t3"]), max_size=3)
BOUNDS = st.sampled_from(["!", "a", "a!", "a!b", "b", "é", "\U0010ffff"])
DOCS = st.builds(
    Doc,
    KEYS,
    st.dictionaries(st.text(max_size=2), st.integers(-5, 5) | st.binary(max_size=2), max_size=2),
    TAGS,
    st.none() | st.integers(0, 9),
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["put", "insert"]), DOCS)
    | st.tuples(st.just("delete"), KEYS.map(lambda key: Doc(key, {}))),
    max_size=5,
)
ANY_OFS = st.lists(TAGS.filter(bool), max_size=3)

_numbers = itertools.count()


class Boom(Exception):
    """Ends a transaction."""


class StoreMachine(RuleBasedStateMachine):
    """Random transactions and queries; `model` is what they should amount to."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.kind = f"model{next(_numbers)}"
        self.model = {}

    @rule(writes=WRITES, fails=st.booleans())
    def transact(self, writes, fails):
        conflict = any(how == "insert" and each.key in self.model for how, each in writes)

        def work(txn):
            before = txn.get(self.kind, *(each.key for _, each in writes))
            assert before == [self.model.get(each.key) for _, each in writes]
            for how, each in writes:
                if how == "delete":
                    txn.delete(self.kind, each.key)
                else:
                    getattr(txn, how)(self.kind, each)
            if fails:
                raise Boom

        if fails or conflict:
            with pytest.raises(Boom if fails else AlreadyExists):
                self.store.transact(work, label="model")
        else:
            self.store.transact(work, label="model")
            for how, each in writes:
                self.model.pop(each.key, None)
                if how != "delete":
                    self.model[each.key] = each

    @rule(lo=BOUNDS, hi=BOUNDS, limit=st.integers(1, 4), reverse=st.booleans())
    def scan(self, lo, hi, limit, reverse):
        expected = self.within(lo, hi)[:: -1 if reverse else 1][:limit]
        assert self.store.scan(self.kind, lo, hi, limit=limit, reverse=reverse) == expected
        keys = self.store.scan_keys(self.kind, lo, hi, limit=limit, reverse=reverse)
        assert keys == keys_of(expected)

    @rule(
        all_of=ANY_OFS,
        after=st.none() | BOUNDS,
        limit=st.integers(1, 3),
        lo=st.just("") | BOUNDS,
        hi=st.none() | BOUNDS,
    )
    def find(self, all_of, after, limit, lo, hi):
        matching = [
            each
            for each in self.within(lo, hi or "\U0010ffff~")
            if all(any_of & each.tags for any_of in all_of) and (not after or each.key > after)
        ]
        page = self.store.find(self.kind, all_of, after=after, limit=limit, lo=lo, hi=hi)
        assert page.docs == matching[:limit]
        assert page.after == (matching[limit - 1].key if len(matching) > limit else None)

    @rule(
        all_of=ANY_OFS,
        up_to=st.integers(1, 4),
        lo=st.just("") | BOUNDS,
        hi=st.none() | BOUNDS,
    )
    def count(self, all_of, up_to, lo, hi):
        matching = [
            each
            for each in self.model.values()
            if all(any_of & each.tags for any_of in all_of)
            and each.key >= lo
            and (hi is None or each.key < hi)
        ]
        found = self.store.count(self.kind, all_of, up_to=up_to, lo=lo, hi=hi)
        assert found == min(up_to, len(matching))

    @rule(ranges=st.lists(st.tuples(BOUNDS, BOUNDS), max_size=2), n=st.integers(1, 2))
    def take(self, ranges, n):
        expected = {}
        for lo, hi in ranges:
            fresh = [each for each in self.within(lo, hi) if each.key not in expected]
            expected.update((each.key, each) for each in fresh[:n])

        def work(txn, docs):
            for each in docs:
                txn.delete(self.kind, each.key)
            return docs

        taken = self.store.take(self.kind, ranges, n, work, label="model")
        assert taken == list(expected.values())
        for key in expected:
            del self.model[key]

    @rule(now_ms=st.integers(0, 9))
    def sweep(self, now_ms):
        gone = [
            key
            for key, each in self.model.items()
            if each.expire_at is not None and each.expire_at <= now_ms
        ]
        assert self.store.sweep_expired(self.kind, now_ms, 99) == len(gone)
        for key in gone:
            del self.model[key]

    @invariant()
    def holds_exactly_the_model(self):
        assert self.store.scan(self.kind, "!", "\U0010ffff", limit=99) == self.within(
            "!", "\U0010ffff"
        )

    def within(self, lo, hi):
        keys = sorted(self.model, key=str.encode)
        return [self.model[key] for key in keys if lo.encode() <= key.encode() < hi.encode()]


class Model(Effort):
    @pytest.mark.slow
    def test_engine_agrees_with_a_dictionary_over_random_histories(self, store):
        run_state_machine_as_test(
            lambda: StoreMachine(store),
            settings=settings(
                max_examples=self.model_examples,
                stateful_step_count=self.model_steps,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
