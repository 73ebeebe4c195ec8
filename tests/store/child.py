"""What a child process of the SQLite tests does: `python -m tests.store.child <role> <folder> …`.

It tells its parent by lines on standard output, each written with one system call.
"""

import os
import sys
import threading
from pathlib import Path

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.sqlite import SqliteStore
from tests.store.conformance.support import doc, increment, keys_of

LIMIT_S = 30.0


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def claim(store, name, threads, wait=""):
    """Take from the queue until it is empty; a line for the keys of each take.

    With `wait`, say "ready" and begin when a line arrives on standard input.
    """

    def work(txn, docs):
        for each in docs:
            txn.delete("pend", each.key)
            txn.put("task", doc(each.key, by=name))
        return keys_of(docs)

    def drain():
        while got := store.take("pend", [("q!", 'q"')], 2, work, label="claim"):
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
    """Commit, then die before the datagram is sent: nobody hears, everybody can see."""

    def work(txn):
        txn.put("thing", doc("k"))
        txn.notify(topic)

    store._wake.send = lambda topics: os._exit(7)
    store.transact(work, label="die")
    threading.Event().wait(LIMIT_S)


def in_threads(work, number):
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(role, folder, *arguments):
    store = SqliteStore(Path(folder), Threads(), SystemClock())
    globals()[role](store, *arguments)
    store.close()
    say("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
