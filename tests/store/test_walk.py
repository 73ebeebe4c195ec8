"""Ranges and queries read whole, page by page."""

import pytest

from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.store.walk import find_all, find_pages, key_after, key_pages, pages, walk

KEYS = ["a!1", "a!2", "a!3", "a!4", "b"]


@pytest.fixture
def store(clock, rng):
    store = MemoryStore(Threads(), clock, rng)
    tags = frozenset({"even"})
    store.write_many(
        ("thing", Doc(key, {"n": n}, tags if n % 2 == 0 else frozenset()))
        for n, key in enumerate(KEYS)
    )
    yield store
    store.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_walk_gives_every_document_once_in_order(store, limit):
    assert [doc.key for doc in walk(store, "thing", limit=limit)] == KEYS
    of_pages = list(pages(store, "thing", limit=limit))
    assert [doc.key for page in of_pages for doc in page] == KEYS
    assert list(key_pages(store, "thing", limit=limit)) == [
        [doc.key for doc in page] for page in of_pages
    ]
    assert {len(page) for page in of_pages[:-1]} <= {limit}
    assert all(of_pages)


def test_walk_stays_within_its_range(store):
    found = walk(store, "thing", "a!2", "b", limit=2)
    assert [doc.key for doc in found] == ["a!2", "a!3", "a!4"]
    assert list(walk(store, "nothing")) == []


def test_walk_goes_on_when_what_it_gave_is_deleted(store):
    left = []
    for doc in walk(store, "thing", limit=2):
        store.transact(lambda txn, key=doc.key: txn.delete("thing", key), label="test")
        left.append(doc.key)
    assert left == KEYS
    assert list(walk(store, "thing")) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_query_is_read_whole(store, limit):
    even = [frozenset({"even"})]
    assert [doc.key for doc in find_all(store, "thing", even, limit=limit)] == KEYS[::2]
    assert all(len(docs) <= limit for docs in find_pages(store, "thing", even, limit=limit))


def test_key_after_another_is_the_very_next(store):
    assert "a!1" < key_after("a!1") < "a!1!"
