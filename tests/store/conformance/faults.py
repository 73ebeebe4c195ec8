"""Functions that run again: after a conflict, and after a commit that did succeed."""

import pytest

from botapi.store.protocol import Ambiguous
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance.support import counted, doc, increment, keys_of, put

SEED = 20_817


def increment_once(store, operation):
    """Add one, at most once for each operation, however often it is run."""

    def work(txn):
        (done,) = txn.get("operation", operation)
        (found,) = txn.get("count", "counter")
        if done is None:
            txn.put("operation", doc(operation))
            txn.put("count", doc("counter", n=(found.body["n"] if found else 0) + 1))

    store.transact(work, label="increment_once")


class Faults:
    def test_twice_store_runs_the_function_twice_and_writes_once(self, store):
        twice, runs = TwiceStore(store), []

        def work(txn):
            runs.append(txn.get("thing", "k"))
            txn.put("thing", doc("k"))

        twice.transact(work, label="test")
        assert len(runs) >= 2
        assert set(map(str, runs)) == {"[None]"}
        for _ in range(5):
            increment(twice)
        assert counted(store) == 5

    def test_twice_store_takes_the_same_documents_when_run_again(self, store):
        put(store, "pend", doc("a"), doc("b"))
        seen = []

        def work(txn, docs):
            seen.append(keys_of(docs))
            txn.delete("pend", docs[0].key)

        TwiceStore(store).take("pend", [("a", "z")], 1, work, label="test")
        assert set(map(tuple, seen)) == {("a",)}
        assert store.scan_keys("pend", "a", "z", limit=9) == ["b"]

    def test_idempotent_function_does_not_double_when_commits_are_ambiguous(self, store):
        faulty = FaultyStore(store, seed=SEED, before=0.3, after=0.3)
        for number in range(30):
            increment_once(faulty, f"op{number}")
        assert counted(store) == 30
        assert faulty.faults > 10

    def test_other_function_doubles_when_commits_are_ambiguous(self, store):
        faulty = FaultyStore(store, seed=SEED, after=0.5)
        for _ in range(10):
            increment(faulty)
        assert counted(store) == 10 + faulty.faults > 10

    def test_insert_tells_of_its_own_first_run_when_commit_was_ambiguous(self, store):
        faulty = FaultyStore(store, seed=SEED, after=1.0, surface=True)
        with pytest.raises(Ambiguous, match="after"):
            faulty.transact(lambda txn: txn.insert("thing", doc("k")), label="test")
        assert store.get("thing", "k") == [doc("k")]

    def test_ambiguous_surfaces_with_nothing_written_when_it_failed_before(self, store):
        faulty = FaultyStore(store, seed=SEED, before=1.0, surface=True)
        with pytest.raises(Ambiguous, match="before"):
            put(faulty, "thing", doc("k"))
        assert store.get("thing", "k") == [None]

    def test_ambiguous_surfaces_when_the_deadline_is_over(self, store):
        faulty = FaultyStore(store, seed=SEED, before=1.0)
        with pytest.raises(Ambiguous) as caught:
            faulty.transact(lambda txn: None, label="some_label", deadline_s=0.01)
        assert "some_label: gave up" in caught.value.__notes__[0]
        assert faulty.faults > 1

    def test_write_many_ends_with_everything_when_commits_are_ambiguous(self, store):
        faulty = FaultyStore(store, seed=SEED, before=0.4, after=0.4)
        faulty.write_many(("thing", doc(f"k{n:04}", n=n)) for n in range(1_100))
        assert len(store.scan_keys("thing", "k", "l", limit=9_999)) == 1_100
