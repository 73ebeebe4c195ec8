"""Under greenlets: how often does the loop come by while one call of the store takes a second?"""

import sys

import gevent.monkey

gevent.monkey.patch_all()

import gevent  # noqa: E402

from botapi import engines  # noqa: E402
from botapi.clock import SystemClock, SystemRng  # noqa: E402
from botapi.concurrency import Greenlets  # noqa: E402
from botapi.store.protocol import StoreError  # noqa: E402
from tests.store.child import say  # noqa: E402


def main(address):
    store = engines.open_address(address, None, Greenlets(), SystemClock(), SystemRng())
    turns = 0

    def turn():
        nonlocal turns
        while True:
            gevent.sleep(0.005)
            turns += 1

    say("open")
    sys.stdin.readline()
    turning = gevent.spawn(turn)
    try:
        store.transact(lambda txn: txn.get("thing", "k"), label="loop", deadline_s=1.0)
        outcome = "answer"
    except StoreError as error:
        outcome = type(error).__name__
    turning.kill()
    say(outcome, turns)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
