"""Measure the SQLite engine on this machine: `python -m tests.store.measure [folder]`.

Every line is a figure of docs/stores.md. The first one, writing and syncing one page, is
the yardstick: no single durable transaction can be faster than that.
"""

import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.sqlite import SqliteStore
from tests.store.child import in_threads, say
from tests.store.conformance.support import any_of, doc, put

ROUNDS = 5


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def middle(work):
    """Median seconds of several rounds."""
    return statistics.median(seconds(work) for _ in range(ROUNDS))


def row(what, value):
    say(f"{what:<58} {value}")


def sync_pages(folder, number=200):
    with (folder / "page").open("wb", buffering=0) as file:
        file.write(bytes(4096 * number))
        os.fsync(file.fileno())
        for page in range(number):
            os.pwrite(file.fileno(), b"x" * 4096, 4096 * page)
            os.fdatasync(file.fileno())


def transactions(store, threads, each):
    def work():
        me = threading.get_ident()
        for number in range(each):
            put(store, "measured", doc(f"{me}-{number}", n=number))

    in_threads(work, threads)


def fleet(store, bots=10_000):
    """Bots with 30 tags each, two of them selective."""
    store.write_many(
        (
            "bot",
            doc(f"b{n:05}", f"rack:{n % 500}", f"s:{n % 2}", *(f"d{t}:{n % 7}" for t in range(28))),
        )
        for n in range(bots)
    )


def queries(store):
    fleet(store)
    pair = [any_of("s:1"), any_of("rack:7")]
    wide = [any_of("d0:1", "d0:2"), any_of("s:1")]
    for name, ask in (
        ("get of one document", lambda: store.get("bot", "b00500")),
        (
            "find, page of 100, one tag",
            lambda: store.find("bot", [any_of("s:1")], after="b05000", limit=100),
        ),
        ("find, rare and common tag", lambda: store.find("bot", pair, after=None, limit=100)),
        ("find, page of 100, alternatives", lambda: store.find("bot", wide, after=None, limit=100)),
        (
            "count of one tag in 10,000 bots",
            lambda: store.count("bot", [any_of("s:1")], up_to=10_000),
        ),
    ):
        took = middle(lambda ask=ask: [ask() for _ in range(50)]) / 50
        row(f"sqlite, {name}", f"{took * 1e6:,.0f} us")


def claims(folder, processes=4, threads=16, documents=20_000):
    with closing(SqliteStore(folder, Threads(), SystemClock())) as store:
        store.write_many(("pend", doc(f"q!{n:06}")) for n in range(documents))
    command = [sys.executable, "-m", "tests.store.child", f"sqlite:{folder}", "claim"]
    children = [
        subprocess.Popen(
            [*command, str(number), str(threads), "wait"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for each in children:
        each.stdout.readline()
    claimed = []

    def run():
        for each in children:
            each.stdin.write("go\n")
            each.stdin.flush()
        with ThreadPoolExecutor(processes) as pool:
            for said in pool.map(lambda each: each.stdout.read(), children):
                claimed.extend(said.split())

    took = seconds(run)
    for each in children:
        each.communicate()
    assert len(set(claimed) - {"end"}) == len(claimed) - processes == documents
    what = f"sqlite, {processes} processes x {threads} threads, takes of 2"
    row(what, f"{documents / took:,.0f} claims/s")


def wake_up(folder, rounds=500):
    heard = queue.SimpleQueue()
    with (
        closing(SqliteStore(folder, Threads(), SystemClock())) as one,
        closing(SqliteStore(folder, Threads(), SystemClock())) as other,
    ):
        other.subscribe(lambda topic: heard.put(time.perf_counter()))
        took = []
        for _ in range(rounds):
            one.transact(lambda txn: txn.notify("t"), label="measure")
            sent = time.perf_counter()
            took.append(heard.get() - sent)
        row(
            "sqlite, return of transact to wake-up in the other",
            f"{statistics.median(took) * 1e6:,.0f} us",
        )


def main(folder):
    yardstick = middle(lambda: sync_pages(folder)) / 200
    row("yardstick: overwrite and sync one page", f"{yardstick * 1e3:.2f} ms")
    with closing(SqliteStore(folder / "one", Threads(), SystemClock())) as store:
        single = middle(lambda: transactions(store, 1, 300)) / 300
        row("sqlite, one transaction after another", f"{single * 1e3:.2f} ms")
        for threads in (16, 64):
            rate = threads * 100 / middle(lambda threads=threads: transactions(store, threads, 100))
            row(f"sqlite, {threads} threads", f"{rate:,.0f} transactions/s")
        queries(store)
    claims(folder / "four")
    wake_up(folder / "wake")
    with closing(MemoryStore(Threads(), SystemClock())) as store:
        row(
            "memory, one transaction after another",
            f"{middle(lambda: transactions(store, 1, 1000)) * 1e3:.0f} us",
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary))
