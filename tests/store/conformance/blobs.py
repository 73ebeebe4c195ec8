"""Large bodies, and many of them: a part of a file is a document of hundreds of kilobytes."""

import hashlib

from botapi.store.protocol import MAX_BODY_BYTES
from tests.store.conformance.support import Effort, doc, keys_of, put

FRAME = 64
"""Room for what frames the bytes of a body."""


def block(number, size=MAX_BODY_BYTES - FRAME):
    """Bytes that no compression makes small, different for every number."""
    seed = hashlib.sha256(b"%d" % number).digest()
    return hashlib.shake_128(seed).digest(size)


class Blobs(Effort):
    def test_large_bodies_of_one_transaction_come_back_whole(self, store):
        blocks = [block(number) for number in range(8)]
        put(store, "blob", *(doc(f"a!{n:04}", data=data) for n, data in enumerate(blocks)))
        found = store.get("blob", *(f"a!{n:04}" for n in range(8)))
        assert [each.body["data"] for each in found] == blocks
        found = store.transact(lambda txn: txn.get("blob", "a!0003", "a!0007"), label="test")
        assert [each.body["data"] for each in found] == [blocks[3], blocks[7]]

    def test_write_many_stores_large_bodies_when_they_are_more_than_a_commit(self, store):
        store.write_many(("blob", doc(f"b!{n:04}", data=block(n))) for n in range(self.big_docs))
        keys = store.scan_keys("blob", "b!", "b~", limit=99)
        assert keys == [f"b!{n:04}" for n in range(self.big_docs)]
        for number, key in enumerate(keys):
            assert store.get("blob", key)[0].body["data"] == block(number)

    def test_scan_gives_large_bodies_page_by_page(self, store):
        store.write_many(("blob", doc(f"c!{n:04}", data=block(n))) for n in range(5))
        first = store.scan("blob", "c!", "c~", limit=3)
        rest = store.scan("blob", first[-1].key + "\0", "c~", limit=3)
        assert keys_of(first + rest) == [f"c!{n:04}" for n in range(5)]
        assert [each.body["data"] for each in first + rest] == [block(n) for n in range(5)]

    def test_large_body_is_replaced_by_a_small_one(self, store):
        put(store, "blob", doc("d", "tag", data=block(1)))
        put(store, "blob", doc("d", "tag", n=1))
        assert store.get("blob", "d") == [doc("d", "tag", n=1)]
