"""Keys: their order, and the range of a prefix."""

from botapi.store.protocol import join_key, prefix_range
from tests.store.conformance.support import doc, keys_of, put

AWKWARD = ["!", '"', "%", "/", "0", "A", "a", "a!", 'a"', "aa", "z", "~", "é", "☃", "\uffff", "𝄞"]


class Keys:
    def test_scan_orders_keys_by_their_bytes(self, store):
        put(store, "thing", *(doc(key) for key in reversed(AWKWARD)))
        expected = sorted(AWKWARD, key=str.encode)
        assert store.scan_keys("thing", "!", "\U0010ffff", limit=99) == expected
        assert keys_of(store.find("thing", [], after=None, limit=99).docs) == expected

    def test_prefix_range_holds_exactly_the_longer_keys(self, store):
        keys = [
            join_key("a"),
            join_key("a", ""),
            join_key("a", "b"),
            join_key("a", "b", "c"),
            join_key("a b", "c"),
            join_key("aa", "b"),
            join_key('a"', "b"),
        ]
        put(store, "thing", *(doc(key) for key in keys))
        lo, hi = prefix_range("a")
        assert store.scan_keys("thing", lo, hi, limit=99) == keys[1:4]

    def test_get_treats_text_literally_when_key_looks_like_sql(self, store):
        put(store, "thing", doc("' OR 1=1 --"), doc("%"), doc("_"))
        assert store.get("thing", "x' OR 1=1 --", "_", "a") == [None, doc("_"), None]
