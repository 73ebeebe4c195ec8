"""Sweeping what has expired."""

import pytest

from tests.store.conformance.support import any_of, doc, put


class Expiry:
    @pytest.fixture
    def dated(self, store):
        put(
            store,
            "note",
            doc("for ever", "t"),
            doc("old", "t", expire_at=100),
            doc("now", "t", expire_at=200),
            doc("later", "t", expire_at=201),
        )
        return store

    def test_sweep_deletes_what_expires_at_or_before_now(self, dated):
        assert dated.sweep_expired("note", 200, 99) == 2
        assert dated.scan_keys("note", "a", "z", limit=9) == ["for ever", "later"]
        assert dated.count("note", [any_of("t")], up_to=9) == 2
        assert dated.sweep_expired("note", 200, 99) == 0

    def test_sweep_stops_at_its_limit(self, dated):
        assert dated.sweep_expired("note", 999, 2) == 2
        assert dated.sweep_expired("note", 999, 2) == 1

    def test_expired_document_is_read_until_it_is_swept(self, dated):
        assert dated.get("note", "old") == [doc("old", "t", expire_at=100)]

    def test_sweep_spares_a_document_when_its_expiry_was_put_off(self, dated):
        put(dated, "note", doc("old", expire_at=900), doc("now"))
        assert dated.sweep_expired("note", 300, 99) == 1
        assert dated.scan_keys("note", "a", "z", limit=9) == ["for ever", "now", "old"]

    def test_sweep_refuses_when_it_asks_for_nothing(self, dated):
        with pytest.raises(ValueError, match="limit"):
            dated.sweep_expired("note", 300, 0)
