"""Short ways to say what the suite says often."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from botapi.store.protocol import Doc

LIMIT_S = 20.0
"""How long a test waits for what must happen, before it fails."""


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

    def __init__(self, people=2):
        self._barrier = threading.Barrier(people)

    def wait(self):
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(0.02)
