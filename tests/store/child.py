"""What a child process of the store tests does: `python -m tests.store.child <address> <role> …`.

The address is one that `botapi.engines.open_address` knows. A child tells its parent by lines
on standard output, each written with one system call. `python -m tests.store.child serve FD`
is one that stays: it reads orders, `[address, role, arguments …]` in JSON, from standard input,
and ends each with a line `end`; over FD, one half of a socket pair, it meets its twin.
"""

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from functools import partial

from tests.store.conformance import schedules
from tests.store.conformance.support import doc, increment, keys_of, opened

LIMIT_S = 30.0


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def claim(store, name, threads, wait="", n="2"):
    """Take n at a time from the queue until it is empty; a line for the keys of each take.

    With `wait`, say "ready" and begin when a line arrives on standard input.
    """

    def work(txn, docs):
        for each in docs:
            txn.delete("pend", each.key)
            txn.put("task", doc(each.key, by=name))
        return keys_of(docs)

    def drain():
        take = partial(store.take, "pend", [("q!", 'q"')], int(n), work, label="claim")
        while got := take(deadline_s=60.0):
            say(*got)

    if wait:
        say("ready")
        sys.stdin.readline()
    in_threads(drain, int(threads))


def count(store, times, threads):
    """Increment one counter."""

    def work():
        for _ in range(int(times)):
            increment(store)

    in_threads(work, int(threads))


def insert(store, name, keys):
    """Insert these keys, each alone; a line for each that this child was the first to insert."""
    for number in range(int(keys)):
        key = f"k{number:04}"
        with suppress(schedules.AlreadyExists):
            store.transact(
                lambda txn, key=key: txn.insert("thing", doc(key, by=name)), label="insert"
            )
            say(key)


def write(store, name, threads):
    """Write pairs until killed; a line for each that is acknowledged."""

    def work(thread):
        number = 0
        while True:
            key = f"{name}-{thread}-{number:06}"

            def pair(txn, key=key, number=number):
                txn.put("left", doc(key, "tagged", n=number))
                txn.put("right", doc(key, n=number, pad=bytes(300)))

            store.transact(pair, label="write")
            say(key)
            number += 1

    for thread in range(int(threads)):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    threading.Event().wait(LIMIT_S)


def echo(store, topic, reply):
    """Answer every notification of `topic` with one of `reply`, until standard input ends."""
    wanted = threading.Semaphore(0)
    store.subscribe(lambda heard: wanted.release() if heard == topic else None)
    say("ready")

    def answer():
        while True:
            wanted.acquire()
            store.transact(lambda txn: txn.notify(reply), label="echo")

    threading.Thread(target=answer, daemon=True).start()
    sys.stdin.read()


def notify_and_die(store, topic):
    """Commit, then die before SQLite's datagram is sent: nobody hears, everybody can see."""

    def work(txn):
        txn.put("thing", doc("k"))
        txn.notify(topic)

    store._wake.send = lambda topics: os._exit(7)
    store.transact(work, label="die")
    threading.Event().wait(LIMIT_S)


def schedule(store, name, number, who, prefix, patience_s):
    """One side of a forced schedule, met over the socket pair; a line that says the result."""
    twin = Twin.here
    twin.begin(prefix)
    wanted = schedules.schedules(schedules.CASES[name])[number]
    encounter = schedules.Encounter(wanted, who, twin.signal, twin.await_signal, patience_s)
    encounter.begin()
    try:
        result = schedules.perform(store, name, who, prefix, encounter.pause)
    finally:
        encounter.end()
    exists = isinstance(result, schedules.AlreadyExists)
    say(json.dumps({"exists": True} if exists else {"result": result}))


class Twin:
    """The other child: signals carry the name of the run, so that late ones are dropped."""

    here = None

    def __init__(self, number):
        self._socket = socket.socket(fileno=number)
        self._run = b""

    def begin(self, run):
        self._run = run.encode()

    def signal(self):
        self._socket.send(self._run)

    def await_signal(self, seconds):
        self._socket.settimeout(seconds)
        with suppress(TimeoutError):
            while self._socket.recv(200) != self._run:
                pass


def in_threads(work, number):
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(number):
    """Carry out orders until standard input ends; a database stays open for the next order."""
    Twin.here = Twin(int(number))
    at, store = "", None
    for line in sys.stdin:
        address, role, *arguments = json.loads(line)
        if address != at:
            if store is not None:
                store.close()
            at, store = address, opened(address).thing
        globals()[role](store, *arguments)
        say("end")
    if store is not None:
        store.close()


def main(address, role, *arguments):
    if address == "serve":
        serve(role)
        return
    with opened(address) as store:
        globals()[role](store, *arguments)
    say("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
