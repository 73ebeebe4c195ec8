"""What goes in comes out: types, sizes, and nothing shared with the caller."""

import pytest

from botapi.store.protocol import (
    MAX_BODY_BYTES,
    MAX_KEY_BYTES,
    MAX_TAG_BYTES,
    MAX_TAGS,
    Doc,
    TooLarge,
)
from tests.store.conformance.support import delete, doc, put

BODIES = {
    "empty": {},
    "none": {"a": None},
    "booleans": {"yes": True, "no": False},
    "integers": {"zero": 0, "large": 2**53 + 1, "small": -(2**63), "largest": 2**64 - 1},
    "floats": {"half": 0.5, "tiny": 5e-324, "whole": 1.0},
    "text": {"": "", "nul": "a\x00b", "snow": "☃ 𝄞", "quote": "'\"`;--"},
    "bytes": {"empty": b"", "all": bytes(range(256))},
    "nested": {"list": [1, [2, {"three": [None, b"3"]}], []], "map": {"a": {"b": {}}}},
}


class Values:
    @pytest.mark.parametrize("name", BODIES)
    def test_body_comes_back_with_its_types(self, store, name):
        put(store, "thing", Doc("k", BODIES[name]))
        (found,) = store.get("thing", "k")
        assert found == Doc("k", BODIES[name])
        assert repr(found.body) == repr(BODIES[name])  # 1.0 is not 1, True is not 1

    def test_body_is_not_shared_when_caller_changes_it(self, store):
        body = {"list": [1]}

        def work(txn):
            txn.put("thing", Doc("k", body))
            body["list"].append(2)

        store.transact(work, label="test")
        body["list"] = [1]
        store.get("thing", "k")[0].body["list"].append(3)
        assert store.get("thing", "k")[0].body["list"][:1] == [1]
        assert 3 not in store.get("thing", "k")[0].body["list"]

    def test_tags_and_expiry_come_back_when_written(self, store):
        written = doc("k", "d:os:☃", "", "s:alive", expire_at=2**53, n=1)
        put(store, "thing", written)
        assert store.get("thing", "k") == [written]

    def test_put_replaces_everything_when_document_exists(self, store):
        put(store, "thing", doc("k", "old", "both", expire_at=5, a=1))
        put(store, "thing", doc("k", "both", "new", b=2))
        assert store.get("thing", "k") == [doc("k", "both", "new", b=2)]
        put(store, "thing", doc("k"))
        assert store.get("thing", "k") == [doc("k")]

    def test_absent_differs_from_empty(self, store):
        put(store, "thing", doc("empty"))
        assert store.get("thing", "absent", "empty") == [None, doc("empty")]

    def test_get_keeps_order_and_repeats_when_asked_for_many(self, store):
        put(store, "thing", *(doc(f"k{n}", n=n) for n in range(5)))
        found = store.get("thing", "k3", "no", "k0", "k3")
        assert found == [doc("k3", n=3), None, doc("k0", n=0), doc("k3", n=3)]
        assert store.get("thing") == []

    def test_get_answers_none_when_kind_was_never_written(self, store):
        assert store.get("nothing", "a", "b") == [None, None]

    def test_kinds_do_not_mix_when_keys_are_equal(self, store):
        put(store, "thing", doc("k", n=1))
        put(store, "other", doc("k", n=2))
        delete(store, "thing", "k")
        assert store.get("other", "k") == [doc("k", n=2)]

    @pytest.mark.parametrize("kind", ["out", "blob", "select", "a_1"])
    def test_every_kind_works_the_same(self, store, kind):
        put(store, kind, doc("b", "t", n=2), doc("a", "t", n=1))
        delete(store, kind, "b")
        assert store.scan(kind, "a", "z", limit=9) == [doc("a", "t", n=1)]

    @pytest.mark.parametrize("kind", ["", "Bot", "1a", "a-b", "a;b", "a" * 41])
    def test_kind_is_refused_when_it_is_no_word(self, store, kind):
        with pytest.raises(ValueError, match="kind"):
            put(store, kind, doc("k"))
        with pytest.raises(ValueError, match="kind"):
            store.get(kind, "k")

    def test_body_fits_when_just_at_the_limit(self, store):
        written = doc("k", data=bytes(MAX_BODY_BYTES - 11))  # 11 bytes frame the one field
        put(store, "thing", written)
        assert store.get("thing", "k") == [written]

    def test_body_is_refused_when_just_above_the_limit(self, store):
        with pytest.raises(TooLarge, match="body"):
            put(store, "thing", doc("k", data=bytes(MAX_BODY_BYTES - 10)))
        assert store.get("thing", "k") == [None]

    @pytest.mark.parametrize("key", ["k" * MAX_KEY_BYTES, "é" * (MAX_KEY_BYTES // 2)])
    def test_key_limit_counts_bytes(self, store, key):
        put(store, "thing", doc(key))
        assert store.get("thing", key) == [doc(key)]
        with pytest.raises(TooLarge, match="key"):
            put(store, "thing", doc(key + "k"))

    def test_key_is_refused_when_empty(self, store):
        with pytest.raises(ValueError, match="empty"):
            put(store, "thing", doc(""))

    def test_tag_limit_counts_bytes(self, store):
        longest = "é" * (MAX_TAG_BYTES // 2)
        put(store, "thing", doc("k", longest))
        with pytest.raises(TooLarge, match="tag"):
            put(store, "thing", doc("k", longest + "k"))

    def test_tag_number_is_limited(self, store):
        tags = [f"t{n}" for n in range(MAX_TAGS)]
        put(store, "thing", doc("k", *tags))
        with pytest.raises(TooLarge, match="tags"):
            put(store, "thing", doc("k", *tags, "more"))

    def test_too_large_rises_at_the_put_and_not_at_the_commit(self, store):
        def work(txn):
            with pytest.raises(TooLarge):
                txn.put("thing", doc("k" * (MAX_KEY_BYTES + 1)))
            return "went on"

        assert store.transact(work, label="test") == "went on"

    def test_expiry_is_refused_when_it_is_no_time(self, store):
        for wrong in (-1, 2**63):
            with pytest.raises(ValueError, match="expire_at"):
                put(store, "thing", doc("k", expire_at=wrong))
