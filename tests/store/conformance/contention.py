"""Transactions that meet: whatever the engine, the outcome is that of some order."""

from botapi.store.protocol import AlreadyExists
from tests.store.conformance.support import (
    Meeting,
    counted,
    doc,
    increment,
    put,
    together,
)


class Contention:
    def test_update_is_not_lost_when_two_read_the_same(self, store):
        put(store, "count", doc("k", n=0))
        meeting = Meeting()

        def work(txn):
            (found,) = txn.get("count", "k")
            meeting.wait()
            txn.put("count", doc("k", n=found.body["n"] + 1))

        assert together(*[lambda: store.transact(work, label="test")] * 2) == [None, None]
        assert store.get("count", "k") == [doc("k", n=2)]

    def test_one_stays_on_call_when_two_leave_at_once(self, store):
        put(store, "call", doc("ann", on=True), doc("bob", on=True))
        meeting = Meeting()

        def leave(name):
            def work(txn):
                both = all(each.body["on"] for each in txn.get("call", "ann", "bob"))
                meeting.wait()
                if both:
                    txn.put("call", doc(name, on=False))

            return store.transact(work, label="test")

        together(lambda: leave("ann"), lambda: leave("bob"))
        still_on = [each.body["on"] for each in store.get("call", "ann", "bob")]
        assert sorted(still_on) == [False, True]

    def test_child_has_a_parent_when_one_adds_and_another_deletes(self, store):
        put(store, "node", doc("parent"))
        meeting = Meeting()

        def add(txn):
            parent, _ = txn.get("node", "parent", "child")
            meeting.wait()
            if parent:
                txn.put("node", doc("child"))

        def remove(txn):
            _, child = txn.get("node", "parent", "child")
            meeting.wait()
            if not child:
                txn.delete("node", "parent")

        together(
            lambda: store.transact(add, label="test"),
            lambda: store.transact(remove, label="test"),
        )
        assert [each is not None for each in store.get("node", "parent", "child")] in (
            [True, True],
            [False, False],
        )

    def test_insert_wins_once_when_two_insert_the_same_key(self, store):
        meeting = Meeting()

        def insert(name):
            def work(txn):
                txn.get("thing", "k")
                meeting.wait()
                txn.insert("thing", doc("k", by=name))
                return name

            return store.transact(work, label="test")

        outcomes = together(lambda: insert("ann"), lambda: insert("bob"))
        winners = [each for each in outcomes if not isinstance(each, Exception)]
        losers = [each for each in outcomes if isinstance(each, AlreadyExists)]
        assert (len(winners), len(losers)) == (1, 1)
        assert store.get("thing", "k") == [doc("k", by=winners[0])]

    def test_delete_is_seen_once_when_two_delete_what_they_saw(self, store):
        put(store, "thing", doc("k"))
        meeting = Meeting()

        def work(txn):
            (found,) = txn.get("thing", "k")
            meeting.wait()
            txn.delete("thing", "k")
            return found is not None

        assert sorted(together(*[lambda: store.transact(work, label="test")] * 2)) == [False, True]

    def test_counter_is_exact_when_many_threads_increment(self, store):
        def work():
            for _ in range(10):
                increment(store)

        assert together(*[work] * 6) == [None] * 6
        assert counted(store) == 60

    def test_failures_harm_only_their_own_transaction_when_many_run(self, store):
        put(store, "thing", doc("taken"))

        def good(number):
            put(store, "thing", doc(f"good{number}"))

        def bad(number):
            def work(txn):
                txn.put("thing", doc(f"bad{number}"))
                if number % 2:
                    raise LookupError
                txn.insert("thing", doc("taken"))

            store.transact(work, label="test")

        outcomes = together(
            *(lambda n=n: good(n) for n in range(8)), *(lambda n=n: bad(n) for n in range(8))
        )
        assert outcomes[:8] == [None] * 8
        assert {type(each) for each in outcomes[8:]} == {LookupError, AlreadyExists}
        assert all(store.get("thing", *(f"good{n}" for n in range(8))))
        assert not any(store.get("thing", *(f"bad{n}" for n in range(8))))
