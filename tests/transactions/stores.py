"""One store under four tests: plain memory, every function run twice, faults, and SQLite."""

from contextlib import contextmanager

import pytest

from botapi import engines
from botapi.concurrency import Threads
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore

FAULT = 0.1
"""How often a commit fails, before and after it took effect."""
FAMILY = [
    "memory",
    pytest.param("twice", marks=pytest.mark.slow),
    pytest.param("faulty-1", marks=pytest.mark.slow),
    pytest.param("faulty-2", marks=pytest.mark.slow),
    pytest.param("sqlite", marks=pytest.mark.slow),
]


@contextmanager
def open_store(name, folder, clock, rng):
    """A store by its name in the family; closed at the end."""
    kind, _, seed = name.partition("-")
    if kind == "sqlite":
        store = engines.SqliteStore(folder, Threads(), clock, rng)
    else:
        store = engines.memory_store(Threads(), clock, rng)
    if kind == "twice":
        store = TwiceStore(store)
    elif kind == "faulty":
        store = FaultyStore(store, seed=int(seed), before=FAULT, after=FAULT)
    yield store
    store.close()


KINDS = [
    *("bot", "live", "event", "req", "task", "pend", "due", "queue", "out", "outpos", "dedup"),
    *("lsession", "offer", "audit", "cfg", "key", "apikey", "enrol", "schema"),
]


def dump(store):
    """Every document of every kind but `duty`: what a test compares before and after."""
    found = {}
    for kind in KINDS:
        lo = ""
        while True:
            docs = store.scan(kind, lo, "\U0010ffff", limit=500)
            found.update({(kind, doc.key): (doc.body, doc.tags, doc.expire_at) for doc in docs})
            if len(docs) < 500:
                break
            lo = docs[-1].key + "\0"
    return found
