"""Buffered writes, all or nothing, and what an exception does."""

import pytest

from botapi.store.documents import MAX_TXN_DOCS
from botapi.store.protocol import AlreadyExists, TooLarge
from tests.store.conformance.support import Effort, any_of, doc, put


class Boom(Exception):
    """Not known to any store."""


class TransactionRules(Effort):
    def test_transact_returns_what_the_function_returns(self, store):
        assert store.transact(lambda txn: ("a", 1), label="test") == ("a", 1)

    def test_own_writes_are_invisible_inside(self, store):
        put(store, "thing", doc("old", n=1), doc("gone"))

        def work(txn):
            txn.put("thing", doc("old", n=2))
            txn.put("thing", doc("new"))
            txn.delete("thing", "gone")
            return txn.get("thing", "old", "new", "gone")

        assert store.transact(work, label="test") == [doc("old", n=1), None, doc("gone")]
        assert store.get("thing", "old", "new", "gone") == [doc("old", n=2), doc("new"), None]

    def test_writes_are_invisible_outside_when_not_yet_committed(self, store):
        put(store, "thing", doc("k", n=1))
        seen = []

        def work(txn):
            (before,) = txn.get("thing", "k")
            txn.put("thing", doc("k", n=before.body["n"] + 1))
            seen.append(before.body["n"])

        store.transact(work, label="test")
        assert set(seen) == {1}

    def test_last_write_of_a_key_wins(self, store):
        put(store, "thing", doc("a", n=0), doc("b", n=0))

        def work(txn):
            txn.put("thing", doc("a", "early", n=1))
            txn.put("thing", doc("a", n=2))
            txn.put("thing", doc("b", n=1))
            txn.delete("thing", "b")
            txn.delete("thing", "c")
            txn.put("thing", doc("c", n=1))

        store.transact(work, label="test")
        assert store.get("thing", "a", "b", "c") == [doc("a", n=2), None, doc("c", n=1)]
        assert store.count("thing", [any_of("early")], up_to=9) == 0

    def test_insert_writes_when_key_is_free(self, store):
        store.transact(lambda txn: txn.insert("thing", doc("k", n=1)), label="test")
        assert store.get("thing", "k") == [doc("k", n=1)]

    def test_insert_conflict_undoes_the_whole_transaction(self, store):
        put(store, "thing", doc("k", n=1))

        def work(txn):
            txn.put("thing", doc("before"))
            txn.put("other", doc("elsewhere"))
            txn.insert("thing", doc("k", n=2))
            txn.put("thing", doc("behind"))

        with pytest.raises(AlreadyExists) as caught:
            store.transact(work, label="test")
        assert (caught.value.kind, caught.value.key) == ("thing", "k")
        assert store.get("thing", "before", "k", "behind") == [None, doc("k", n=1), None]
        assert store.get("other", "elsewhere") == [None]

    @pytest.mark.parametrize("then", ["put", "delete"])
    def test_insert_keeps_its_condition_when_key_is_written_again(self, store, then):
        put(store, "thing", doc("k", n=1))

        def work(txn):
            txn.insert("thing", doc("k", n=2))
            if then == "put":
                txn.put("thing", doc("k", n=3))
            else:
                txn.delete("thing", "k")

        with pytest.raises(AlreadyExists):
            store.transact(work, label="test")
        assert store.get("thing", "k") == [doc("k", n=1)]

    def test_insert_refuses_when_same_transaction_deletes_first(self, store):
        put(store, "thing", doc("k", n=1))

        def work(txn):
            txn.delete("thing", "k")
            txn.insert("thing", doc("k", n=2))

        with pytest.raises(AlreadyExists):
            store.transact(work, label="test")

    def test_delete_is_no_error_when_there_is_nothing(self, store):
        put(store, "thing", doc("k"))

        def work(txn):
            txn.delete("thing", "absent")
            txn.delete("never_written", "k")

        store.transact(work, label="test")
        assert store.get("thing", "k") == [doc("k")]

    def test_exception_rises_unchanged_and_undoes_everything(self, store):
        error = Boom("as it was")

        def work(txn):
            txn.put("thing", doc("a"))
            txn.put("other", doc("b"))
            raise error

        with pytest.raises(Boom) as caught:
            store.transact(work, label="test")
        assert caught.value is error
        assert store.get("thing", "a") == [None]
        assert store.get("other", "b") == [None]

    def test_store_goes_on_when_a_function_raised(self, store):
        def work(txn):
            raise Boom

        with pytest.raises(Boom):
            store.transact(work, label="test")
        put(store, "thing", doc("k"))
        assert store.get("thing", "k") == [doc("k")]

    def test_get_inside_reads_many_keys_in_their_order(self, store):
        put(store, "thing", doc("a"), doc("b"))
        found = store.transact(lambda txn: txn.get("thing", "b", "x", "a", "b"), label="test")
        assert found == [doc("b"), None, doc("a"), doc("b")]
        assert store.transact(lambda txn: txn.get("nothing", "a"), label="test") == [None]

    def test_handle_refuses_when_its_transaction_has_ended(self, store):
        kept = []
        store.transact(kept.append, label="test")
        for use in (
            lambda txn: txn.get("thing", "k"),
            lambda txn: txn.put("thing", doc("k")),
            lambda txn: txn.notify("t"),
        ):
            with pytest.raises(RuntimeError, match="ended"):
                use(kept[0])

    def test_transaction_inside_a_transaction_is_refused(self, store):
        def work(txn):
            put(store, "thing", doc("inner"))

        with pytest.raises(RuntimeError, match="nothing but its transaction"):
            store.transact(work, label="test")

    def test_documents_of_one_transaction_are_limited(self, store):
        def work(txn):
            for n in range(MAX_TXN_DOCS):
                txn.delete("thing", f"k{n}")
            txn.delete("thing", "k0")
            with pytest.raises(TooLarge, match="documents"):
                txn.delete("thing", "one more")

        store.transact(work, label="test")
        assert store.capabilities().max_txn_docs <= MAX_TXN_DOCS

    def test_write_many_puts_everything_when_it_takes_several_parts(self, store):
        written = [("thing", doc(f"k{n:04}", "t", n=n)) for n in range(self.many)]
        store.write_many(iter([*written, ("other", doc("x"))]))
        store.write_many(written[:3])
        assert store.count("thing", [any_of("t")], up_to=9_999) == self.many
        assert store.get("other", "x") == [doc("x")]
