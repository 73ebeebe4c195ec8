"""One store under many tests: plain memory, every function run twice, faults, real engines."""

from contextlib import contextmanager

import pytest

from botapi import engines
from botapi.concurrency import Threads
from botapi.settings import Settings
from tests.engines.schemas import clear
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore

FAULT = 0.1
"""How often a commit fails, before and after it took effect."""
SQLITE, POSTGRES, EMULATOR = (
    pytest.param(name, marks=pytest.mark.slow) for name in ("sqlite", "postgres", "emulator")
)
ENGINES = ["memory", SQLITE, POSTGRES, EMULATOR]
FAMILY = [
    *ENGINES,
    pytest.param("twice", marks=pytest.mark.slow),
    pytest.param("faulty-1", marks=pytest.mark.slow),
    pytest.param("faulty-2", marks=pytest.mark.slow),
]


@contextmanager
def store_of(request, clock, rng, name=""):
    """A store by its name in the family, or by the parameter of a fixture; empty."""
    name = name or request.param
    address = ""
    if name == "postgres":
        address = request.getfixturevalue("postgres_schema")
    elif name == "emulator":
        address = request.getfixturevalue("emulator").new_address()
    folder = request.getfixturevalue("tmp_path") / "store"
    with open_store(name, folder, clock, rng, address) as store:
        yield store


@contextmanager
def open_store(name, folder, clock, rng, address=""):
    """A store by its name in the family, at an address if it needs one; closed at the end."""
    kind, _, seed = name.partition("-")
    if kind == "sqlite":
        store = engines.SqliteStore(folder, Threads(), clock, rng)
    elif address:
        store = engines.open_address(address, Settings(), Threads(), clock, rng)
        clear(store)
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
