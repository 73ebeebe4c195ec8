"""Short ways to say what the suite says often."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store.protocol import Doc

LIMIT_S = 20.0
"""How long a test waits for what must happen, before it fails."""


class Effort:
    """How much is done, never what: a class of tests of a slow engine sets its own numbers."""

    patience_s = 0.02
    """How long one of two waits for the other where the engine may hold that one back."""
    model_examples = 40
    model_steps = 20
    races = 15
    many = 1_200
    """Documents of a test that wants more than one part, page or answer of any engine."""
    big_docs = 24
    """Documents of almost the largest size, in one write_many."""
    crowd = 2_000
    """Documents that four processes claim."""
    rounds = 50
    """What each thread of each process does, one after the other."""


def opened(address):
    """The store at an address, closed at the end of the `with`."""
    return closing(engines.open_address(address, Settings(), Threads(), SystemClock(), SystemRng()))


def doc(key, *tags, expire_at=None, **body):
    return Doc(key, body, frozenset(tags), expire_at)


def put(store, kind, *docs):
    def work(txn):
        for each in docs:
            txn.put(kind, each)

    store.transact(work, label="put")


def delete(store, kind, *keys):
    def work(txn):
        for key in keys:
            txn.delete(kind, key)

    store.transact(work, label="delete")


def keys_of(docs):
    return [each.key for each in docs]


def any_of(*tags):
    return frozenset(tags)


def increment(store, key="counter"):
    """Add one; not idempotent, so never under ambiguity."""

    def work(txn):
        (found,) = txn.get("count", key)
        txn.put("count", doc(key, n=(found.body["n"] if found else 0) + 1))

    store.transact(work, label="increment")


def counted(store, key="counter"):
    (found,) = store.get("count", key)
    return found.body["n"] if found else 0


def together(*functions):
    """Run the functions on a thread each; their results, or what they raised."""

    def outcome(function):
        try:
            return function()
        except Exception as error:  # noqa: BLE001 - handed to the test
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return [each.result(LIMIT_S) for each in [pool.submit(outcome, f) for f in functions]]


class Meeting:
    """Makes transactions overlap where the engine lets them, and gives up at once where not."""

    def __init__(self, people=2, patience_s=0.02):
        self._barrier = threading.Barrier(people)
        self._patience_s = patience_s

    def wait(self):
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(self._patience_s)
