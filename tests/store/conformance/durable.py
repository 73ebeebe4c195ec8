"""Databases that are opened again, by this code or by an older or newer one."""

from dataclasses import replace

import pytest

from botapi.store import codec, engine
from botapi.store.protocol import SCHEMA_NUMBER, Doc, SchemaInfo, SchemaMismatch
from botapi.transactions.create_task import create_task
from tests.factories import make_request
from tests.store.conformance.support import any_of, doc, opened, put


class Durable:
    """For engines that declare `durable`; `address` is a new database for each test."""

    def test_engine_declares_that_it_is_durable(self, address):
        with opened(address) as store:
            assert store.capabilities().durable

    def test_documents_are_there_when_database_is_opened_again(self, address):
        written = doc("k", "tag", expire_at=5, n=1)
        with opened(address) as store:
            put(store, "thing", written)
        with opened(address) as store:
            assert store.get("thing", "k") == [written]
            assert store.count("thing", [any_of("tag")], up_to=9) == 1
            assert "thing" in store.kinds()

    def test_older_schema_is_read_and_stays_in_force(self, address, monkeypatch):
        with opened(address) as store:
            put(store, "thing", doc("k", v=SCHEMA_NUMBER))
        monkeypatch.setattr(engine, "SCHEMA_NUMBER", SCHEMA_NUMBER + 1)  # the next release
        for _ in range(2):
            with opened(address) as store:
                assert store.schema() == SchemaInfo(SCHEMA_NUMBER, SCHEMA_NUMBER + 1)
                assert store.get("thing", "k") == [doc("k", v=SCHEMA_NUMBER)]
                put(store, "other", doc("k"))

    def test_newer_schema_is_refused_with_the_number_it_needs(self, address):
        with opened(address) as store:
            put(store, "schema", Doc("ACTIVE", {"number": SCHEMA_NUMBER + 3}))
            with pytest.raises(SchemaMismatch, match=f"needs schema {SCHEMA_NUMBER + 3}"):
                opened(address)
            assert store.get("schema", "ACTIVE") == [Doc("ACTIVE", {"number": SCHEMA_NUMBER + 3})]
            put(store, "schema", Doc("ACTIVE", {"number": SCHEMA_NUMBER}))
        with opened(address) as store:
            assert store.schema().active == SCHEMA_NUMBER

    def test_fields_of_a_newer_release_are_there_when_a_document_is_rewritten(self, address):
        newer = {"v": SCHEMA_NUMBER + 1, "of_a_newer_release": {"deep": [b"x"]}}
        with opened(address) as store:
            create_task(store, make_request(), request_uuid="")
            (task,) = store.scan(codec.TASK, "!", "~", limit=2)
            put(store, codec.TASK, replace(task, body={**task.body, **newer}))
        with opened(address) as store:

            def finish(txn):
                (was,) = txn.get(codec.TASK, task.key)
                found = replace(codec.read_task(was), exit_code=7)
                txn.put(codec.TASK, codec.task_doc(found, was))

            store.transact(finish, label="test")
            (found,) = store.get(codec.TASK, task.key)
            assert found.body["of_a_newer_release"] == {"deep": [b"x"]}
            assert (found.body["exit_code"], found.tags) == (7, task.tags)
