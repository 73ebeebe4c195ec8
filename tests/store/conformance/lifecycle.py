"""Schema number, capabilities, and the end."""

import threading
from contextlib import suppress

import pytest

from botapi.store.protocol import SCHEMA_NUMBER, Doc, Outage, SchemaInfo
from tests.store.conformance.support import LIMIT_S, doc, put, together


class Lifecycle:
    def test_schema_is_this_codes_when_database_is_new(self, store):
        assert store.schema() == SchemaInfo(active=SCHEMA_NUMBER, known=SCHEMA_NUMBER)
        assert store.get("schema", "ACTIVE") == [Doc("ACTIVE", {"number": SCHEMA_NUMBER})]

    def test_schema_follows_its_document(self, store):
        put(store, "schema", Doc("ACTIVE", {"number": 0}))
        assert store.schema() == SchemaInfo(active=0, known=SCHEMA_NUMBER)

    def test_capabilities_name_the_engine(self, store):
        assert store.capabilities().engine.islower()
        assert store.capabilities().max_txn_docs >= 500

    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.get("thing", "k"),
            lambda s: s.scan("thing", "a", "z", limit=1),
            lambda s: s.scan_keys("thing", "a", "z", limit=1),
            lambda s: s.find("thing", [], after=None, limit=1),
            lambda s: s.count("thing", [], up_to=1),
            lambda s: s.transact(lambda txn: None, label="test"),
            lambda s: s.take("thing", [("a", "z")], 1, lambda txn, docs: None, label="test"),
            lambda s: s.write_many([("thing", doc("k"))]),
            lambda s: s.sweep_expired("thing", 1, 1),
            lambda s: s.watch(["t"], 1.0),
            lambda s: s.subscribe(print),
            lambda s: s.schema(),
        ],
    )
    def test_every_call_raises_outage_when_store_is_closed(self, store, call):
        store.close()
        store.close()
        with pytest.raises(Outage, match="closed"):
            call(store)

    def test_watch_ends_when_store_is_closed(self, store):
        watching = threading.Event()

        def watch():
            watching.set()
            with suppress(Outage):
                store.watch(["t"], LIMIT_S)

        def close():
            watching.wait(LIMIT_S)
            store.close()

        assert together(watch, close) == [None, None]

    def test_transactions_finish_or_raise_outage_when_store_closes(self, store):
        begun = threading.Semaphore(0)

        def work(number):
            begun.release()
            put(store, "thing", doc(f"k{number}"))
            return "done"

        def close():
            begun.acquire(timeout=LIMIT_S)
            store.close()

        outcomes = together(close, *(lambda n=n: work(n) for n in range(8)))
        assert {str(each).rpartition(": ")[2] for each in outcomes[1:]} <= {
            "done",
            "the store is closed",
        }
