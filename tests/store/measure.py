"""Measure the engines on this machine: `python -m tests.store.measure [folder]`.

Every line is a figure of docs/stores.md. The first one, writing and syncing one page, is
the yardstick: no single durable transaction can be faster than that. PostgreSQL, on a server
of its own that syncs, has another one in the same run: what bare psycopg does on as many
connections. `python -m tests.store.measure postgres` measures that alone.
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
from functools import partial
from pathlib import Path

import psycopg

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.sqlite import SqliteStore
from tests.engines.postgres import Postgres
from tests.store.child import in_threads, say
from tests.store.conformance.support import any_of, doc, opened, put

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


def changes(store, threads, each):
    """Read a document of one's own and write it."""

    def work():
        me = f"own-{threading.get_ident()}"

        def change(txn):
            (found,) = txn.get("measured", me)
            txn.put("measured", doc(me, n=found.body["n"] + 1 if found else 0))

        for _ in range(each):
            store.transact(change, label="measure")

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


def queries(name, store, bots=10_000):
    fleet(store, bots)
    pair = [any_of("s:1"), any_of("rack:7")]
    wide = [any_of("d0:1", "d0:2"), any_of("s:1")]
    for what, ask in (
        ("get of one document", lambda: store.get("bot", "b00500")),
        (
            "find, page of 100, one tag",
            lambda: store.find("bot", [any_of("s:1")], after="b05000", limit=100),
        ),
        ("find, rare and common tag", lambda: store.find("bot", pair, after=None, limit=100)),
        ("find, page of 100, alternatives", lambda: store.find("bot", wide, after=None, limit=100)),
        (
            f"count of one tag in {bots:,} bots",
            lambda: store.count("bot", [any_of("s:1")], up_to=bots),
        ),
    ):
        took = middle(lambda ask=ask: [ask() for _ in range(50)]) / 50
        row(f"{name}, {what}", f"{took * 1e6:,.0f} us")


def claims(name, address, n=2, processes=4, threads=16, documents=20_000):
    with opened(address) as store:
        store.write_many(("pend", doc(f"q!{n:06}")) for n in range(documents))
    command = [sys.executable, "-m", "tests.store.child", address, "claim"]
    children = [
        subprocess.Popen(
            [*command, str(number), str(threads), "wait", str(n)],
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
    what = f"{name}, {processes} processes x {threads} threads, takes of {n}"
    row(what, f"{documents / took:,.0f} claims/s")


def wake_up(name, address, rounds=500):
    heard = queue.SimpleQueue()
    with (
        opened(address) as one,
        opened(address) as other,
    ):
        other.subscribe(lambda topic: heard.put(time.perf_counter()))
        took = []
        for _ in range(rounds):
            one.transact(lambda txn: txn.notify("t"), label="measure")
            sent = time.perf_counter()
            took.append(heard.get() - sent)
        row(
            f"{name}, return of transact to wake-up in the other",
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
        queries("sqlite", store)
    claims("sqlite", f"sqlite:{folder / 'four'}")
    wake_up("sqlite", f"sqlite:{folder / 'wake'}")
    with closing(MemoryStore(Threads(), SystemClock())) as store:
        row(
            "memory, one transaction after another",
            f"{middle(lambda: transactions(store, 1, 1000)) * 1e3:.0f} us",
        )


def bare(dsn, threads, each):
    """What psycopg does without us: one row of one's own, UPDATE and COMMIT."""

    def work(number):
        with psycopg.connect(dsn) as con:
            for _ in range(each):
                con.execute("UPDATE bare SET n = n + 1 WHERE k = %s", (number,))
                con.commit()

    numbers = iter(range(threads))
    in_threads(lambda: work(next(numbers)), threads)


def postgres(threads=8, each=200):
    server = Postgres(fsync=True)
    try:
        with server.database() as dsn, opened(dsn) as store:
            server.execute(
                "CREATE TABLE bare AS SELECT k, 0 AS n FROM generate_series(0, 63) AS k", dsn
            )
            server.execute("CREATE UNIQUE INDEX bare_k ON bare (k)", dsn)
            rates = {
                "yardstick: bare psycopg": partial(bare, dsn),
                "postgres, a read and a write": partial(changes, store),
                "postgres, a blind write": partial(transactions, store),
            }
            took = {name: [] for name in rates}
            for _ in range(ROUNDS):
                for name, work in rates.items():
                    took[name].append(seconds(lambda work=work: work(threads, each)))
            for name, all_of in took.items():
                rate = threads * each / statistics.median(all_of)
                row(f"{name}, {threads} threads", f"{rate:,.0f} transactions/s")
            single = middle(lambda: changes(store, 1, 100)) / 100
            row("postgres, a read and a write, alone", f"{single * 1e3:.2f} ms")
            queries("postgres", store, bots=20_000)
        for n in (2, 16):
            with server.database() as dsn:
                claims("postgres", dsn, n)
        with server.database() as dsn:
            wake_up("postgres", dsn)
    finally:
        server.end()


if __name__ == "__main__":
    if sys.argv[1:] == ["postgres"]:
        postgres()
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary))
        postgres()
