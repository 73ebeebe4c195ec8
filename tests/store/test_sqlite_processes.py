"""The SQLite engine in several real processes: exactly once, nothing lost, nothing half."""

import os
import queue
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.sqlite import SqliteStore
from tests.store.conformance.support import counted, doc, put

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0

pytestmark = pytest.mark.slow


def opened(folder):
    return closing(SqliteStore(folder, Threads(), SystemClock()))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def child(folder):
    """Starts a child in a role; whoever still runs at the end is killed."""
    with ExitStack() as stack:

        def start(role, *arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.store.child", role, folder, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def lines_of(process):
    """All that a child said; it must have ended well."""
    out, _ = process.communicate(timeout=LIMIT_S)
    lines = out.splitlines()
    assert (process.returncode, lines[-1]) == (0, "end")
    return lines[:-1]


def check_integrity(folder):
    with closing(sqlite3.connect(folder / "skep.db")) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_take_claims_each_document_once_when_four_processes_compete(folder, child):
    expected = {f"q!{n:05}" for n in range(2_000)}
    with opened(folder) as store:
        store.write_many(("pend", doc(key)) for key in expected)
        claimers = [child("claim", name, 4) for name in "abcd"]
        said = [lines_of(each) for each in claimers]
        claimed = [key for lines in said for line in lines for key in line.split()]
        assert len(claimed) == 2_000
        assert set(claimed) == expected
        assert store.scan_keys("pend", "q", "r", limit=9) == []
        owners = {each.key: each.body["by"] for each in store.scan("task", "q", "r", limit=9_999)}
        assert owners == {
            key: name
            for name, lines in zip("abcd", said, strict=True)
            for line in lines
            for key in line.split()
        }
    check_integrity(folder)


def test_counter_is_exact_when_four_processes_increment(folder, child):
    counters = [child("count", 50, 4) for _ in range(4)]
    assert [lines_of(each) for each in counters] == [[]] * 4
    with opened(folder) as store:
        assert counted(store) == 4 * 4 * 50


def test_acknowledged_writes_survive_when_writers_are_killed(folder, child):
    seed = random.randrange(2**32)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    dice = random.Random(seed)
    acknowledged = set()
    with opened(folder) as store:
        for turn in range(4):
            writers = [child("write", f"{turn}{name}", 4) for name in "ab"]
            for writer in writers:
                for _ in range(dice.randrange(20, 200)):
                    acknowledged.add(writer.stdout.readline().strip())
                writer.kill()
            for writer in writers:
                acknowledged.update(line.strip() for line in writer.stdout if line.endswith("\n"))
                writer.wait(LIMIT_S)
            put(store, "thing", doc(f"the survivor writes on {turn}"))
            check_pairs(store, acknowledged)
    check_integrity(folder)
    with opened(folder) as store:
        check_pairs(store, acknowledged)


def check_pairs(store, acknowledged):
    """Every acknowledged key is there, and each pair is whole with its tag."""
    left = store.scan_keys("left", "0", "z", limit=999_999)
    assert left == store.scan_keys("right", "0", "z", limit=999_999)
    assert left == [each.key for each in every(store, "left", frozenset({"tagged"}))]
    assert acknowledged - set(left) == set()


def every(store, kind, tags):
    after = None
    while True:
        page = store.find(kind, [tags], after=after, limit=1_000)
        yield from page.docs
        after = page.after
        if after is None:
            return


def test_notification_reaches_another_process(folder, child):
    heard = queue.SimpleQueue()
    with opened(folder) as store:
        echo = child("echo", "ping", "pong")
        assert echo.stdout.readline() == "ready\n"
        store.subscribe(heard.put)
        took_ms = []
        for _ in range(50):
            started = time.perf_counter()
            store.transact(lambda txn: txn.notify("ping"), label="test")
            while heard.get(timeout=LIMIT_S) != "pong":
                pass
            took_ms.append((time.perf_counter() - started) * 500)
        middle = sorted(took_ms)[25]
        print(f"one way, with its commit: p50 {middle:.2f} ms")  # noqa: T201 - a measurement
        assert middle < 250
        echo.communicate("", timeout=LIMIT_S)


def test_watch_hears_of_a_change_when_its_datagram_was_never_sent(folder, child):
    heard = queue.SimpleQueue()
    with opened(folder) as store:
        store.subscribe(heard.put)
        dying = child("notify_and_die", "topic")
        assert heard.get(timeout=LIMIT_S) == "*"
        assert dying.wait(LIMIT_S) == 7
        assert store.get("thing", "k") == [doc("k")]


def test_socket_of_a_dead_process_is_removed(folder, child):
    with opened(folder) as store:
        echo = child("echo", "ping", "pong")
        assert echo.stdout.readline() == "ready\n"
        assert len(list((folder / "wake").iterdir())) == 2
        echo.kill()
        echo.wait(LIMIT_S)
        heard = queue.SimpleQueue()
        store.subscribe(heard.put)
        store.transact(lambda txn: txn.notify("t"), label="test")
        store.transact(lambda txn: None, label="the batch before this one is over")
        assert len(list((folder / "wake").iterdir())) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_is_noticed_when_child_uses_its_parents_store(folder):
    with opened(folder) as store:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - measured in the parent only
            os._exit(child_of_fork(store))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        put(store, "thing", doc("k"))
        assert store.get("thing", "k") == [doc("k")]


def child_of_fork(store):
    """Every call must be refused with a word about the fork, and close must do no harm."""
    refused = 0
    for call in (
        lambda: store.get("thing", "k"),
        lambda: store.scan("thing", "a", "b", limit=1),
        lambda: put(store, "thing", doc("k")),
    ):
        try:
            call()
        except RuntimeError as error:
            refused += "before the fork" in str(error)
    store.close()
    return 42 if refused == 3 else 1
