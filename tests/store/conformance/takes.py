"""Taking from the head of a queue."""

import threading

import pytest

from botapi.store.protocol import prefix_range
from tests.store.conformance.support import any_of, doc, keys_of, put, together


def heads(store, ranges, n):
    return store.take("pend", ranges, n, lambda txn, docs: keys_of(docs), label="test")


class Takes:
    @pytest.fixture
    def queues(self, store):
        put(store, "pend", *(doc(f"{q}!{n}", n=n) for q in "abc" for n in range(4)))
        return store

    def test_take_gives_n_of_each_range_lowest_first(self, queues):
        found = heads(queues, [prefix_range("b"), prefix_range("a")], 2)
        assert found == ["b!0", "b!1", "a!0", "a!1"]

    def test_take_gives_fewer_when_range_is_short_or_empty(self, queues):
        assert heads(queues, [("a!2", "a!z"), prefix_range("x"), ("c!3", "d")], 9) == [
            "a!2",
            "a!3",
            "c!3",
        ]
        assert heads(queues, [], 3) == []
        assert queues.take("nothing", [("a", "b")], 1, lambda txn, docs: docs, label="t") == []

    def test_take_gives_a_document_once_when_ranges_overlap(self, queues):
        assert heads(queues, [("a!0", "a!3"), ("a!1", "b")], 2) == ["a!0", "a!1", "a!2", "a!3"]

    def test_take_gives_whole_documents(self, store):
        put(store, "pend", doc("a", "tag", expire_at=7, n=1))
        found = store.take("pend", [("a", "b")], 1, lambda txn, docs: docs, label="test")
        assert found == [doc("a", "tag", expire_at=7, n=1)]

    def test_take_writes_like_any_transaction(self, queues):
        def claim(txn, docs):
            txn.delete("pend", docs[0].key)
            txn.put("task", doc(docs[0].key, "claimed"))
            return docs[0].key

        assert queues.take("pend", [prefix_range("a")], 1, claim, label="test") == "a!0"
        assert heads(queues, [prefix_range("a")], 1) == ["a!1"]
        assert queues.count("task", [any_of("claimed")], up_to=9) == 1

    def test_take_leaves_documents_as_they_were_when_function_raises(self, queues):
        def fail(txn, docs):
            txn.delete("pend", docs[0].key)
            raise LookupError

        with pytest.raises(LookupError):
            queues.take("pend", [prefix_range("a")], 1, fail, label="test")
        assert heads(queues, [prefix_range("a")], 1) == ["a!0"]

    def test_take_refuses_when_it_asks_for_nothing(self, queues):
        with pytest.raises(ValueError, match="limit"):
            heads(queues, [("a", "b")], 0)

    def test_take_claims_every_document_once_when_threads_compete(self, store):
        put(store, "pend", *(doc(f"q{n % 3}!{n:03}") for n in range(48)))
        ranges = [prefix_range(f"q{n}") for n in range(3)]

        def claim(txn, docs):
            for each in docs:
                txn.delete("pend", each.key)
            return keys_of(docs)

        def drain():
            mine = []
            while got := store.take("pend", ranges, 1, claim, label="test"):
                mine += got
            return mine

        claimed = [key for mine in together(*[drain] * 4) for key in mine]
        assert len(claimed) == 48
        assert len(set(claimed)) == 48
        assert store.scan_keys("pend", "a", "z", limit=9) == []

    def test_take_never_shows_a_document_to_two_at_the_same_time(self, store):
        put(store, "pend", doc("a"), doc("b"))
        guard, held, doubled = threading.Lock(), set(), []

        def look(txn, docs):
            keys = set(keys_of(docs))
            with guard:
                doubled.extend(held & keys)
                held.update(keys)
            txn.put("seen", doc("x"))
            with guard:
                held.difference_update(keys)

        def work():
            for _ in range(5):
                store.take("pend", [("a", "z")], 1, look, label="test")

        together(*[work] * 4)
        assert doubled == []
