"""The SQLite engine: the suite, plain and wrapped, and what only a file and a thread have."""

import os
import queue
import sqlite3
import subprocess
import threading
from contextlib import closing

import gevent
import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Greenlets, Threads
from botapi.store import sqlite_files, sqlite_rows
from botapi.store.protocol import (
    SCHEMA_NUMBER,
    Ambiguous,
    Conflict,
    Doc,
    Outage,
    SchemaMismatch,
    StoreFull,
)
from botapi.store.sqlite import SqliteStore
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance
from tests.store.conformance.support import (
    LIMIT_S,
    any_of,
    counted,
    delete,
    doc,
    increment,
    put,
    together,
)


def opened(folder):
    return closing(SqliteStore(folder, Threads(), SystemClock()))


@pytest.fixture
def sqlite(tmp_path):
    with closing(SqliteStore(tmp_path / "data", Threads(), SystemClock())) as store:
        yield store


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return sqlite


@pytest.mark.slow
class TestSqliteStoreTwice(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return TwiceStore(sqlite)


@pytest.mark.slow
class TestSqliteStoreFaulty(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return FaultyStore(sqlite, seed=1, before=0.1)


def test_second_store_shares_the_database_when_both_are_open(tmp_path):
    with opened(tmp_path) as one, opened(tmp_path) as other:
        put(one, "thing", doc("a"))
        put(other, "thing", doc("b", "first tag of the kind"))
        put(one, "thing", doc("b"))
        assert other.scan_keys("thing", "a", "z", limit=9) == ["a", "b"]
        assert other.count("thing", [any_of("first tag of the kind")], up_to=9) == 0


def test_newer_schema_leaves_no_socket_behind(tmp_path):
    with opened(tmp_path) as store:
        put(store, "schema", Doc("ACTIVE", {"number": SCHEMA_NUMBER + 3}))
    with pytest.raises(SchemaMismatch):
        SqliteStore(tmp_path, Threads(), SystemClock())
    assert list((tmp_path / "wake").iterdir()) == []


def test_files_are_private_when_database_is_made(tmp_path):
    folder = tmp_path / "data"
    before = os.umask(0)
    try:
        with opened(folder) as store:
            put(store, "thing", doc("k"))
            modes = {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()}
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == {
        "skep.db": 0o600,
        "skep.db-shm": 0o600,
        "skep.db-wal": 0o600,
        "wake": 0o700,
        "write.lock": 0o600,
    }


def test_database_file_is_private_again_when_it_was_not(tmp_path):
    SqliteStore(tmp_path, Threads(), SystemClock()).close()
    (tmp_path / "skep.db").chmod(0o644)
    SqliteStore(tmp_path, Threads(), SystemClock()).close()
    assert (tmp_path / "skep.db").stat().st_mode & 0o777 == 0o600


def test_folder_name_may_be_longer_than_a_socket_name(tmp_path):
    folder = tmp_path / ("n" * 100) / ("m" * 100)
    with opened(folder) as one, opened(folder) as other:
        heard = queue.SimpleQueue()
        other.subscribe(heard.put)
        one.transact(lambda txn: txn.notify("t"), label="test")
        assert heard.get(timeout=LIMIT_S) == "t"


def test_notification_is_replaced_by_star_when_topics_are_too_many(tmp_path):
    with opened(tmp_path) as one, opened(tmp_path) as other:
        heard = queue.SimpleQueue()
        other.subscribe(heard.put)
        one.transact(lambda txn: [txn.notify(f"topic{n:06}") for n in range(5_000)], label="test")
        assert heard.get(timeout=LIMIT_S) == "*"


def test_folder_with_awkward_name_works(tmp_path):
    with opened(tmp_path / "a?b#c %20 ☃") as store:
        put(store, "thing", doc("k"))
        assert store.get("thing", "k") == [doc("k")]
    assert (tmp_path / "a?b#c %20 ☃" / "skep.db").exists()


def test_writes_fail_alone_and_resume_when_database_may_not_grow(tmp_path):
    with closing(SqliteStore(tmp_path, Threads(), SystemClock(), max_bytes=256 * 1024)) as store:
        put(store, "thing", doc("small", n=1))
        with pytest.raises(StoreFull):
            put_big_ones(store, 100, 20_000)
        assert store.get("thing", "small") == [doc("small", n=1)]
        delete(store, "thing", *store.scan_keys("thing", "big", "bih", limit=99))
        put(store, "thing", doc("big", data=bytes(20_000)))
        assert store.scan_keys("thing", "a", "z", limit=9) == ["big", "small"]


@pytest.mark.slow
def test_writes_fail_and_resume_when_the_disk_is_full(small_disk):
    with opened(small_disk / "data") as store:
        put(store, "thing", doc("small", "tag", n=1))
        ballast = small_disk / "ballast"
        fill(ballast)
        with pytest.raises(StoreFull):
            put_big_ones(store, 400, 50_000)
        kept = store.scan_keys("thing", "a", "z", limit=999)
        assert store.get("thing", "small") == [doc("small", "tag", n=1)]
        ballast.unlink()
        put(store, "thing", doc("zzz"))
        assert store.scan_keys("thing", "a", "z~", limit=999) == [*kept, "zzz"]
    with opened(small_disk / "data") as store:
        assert store.scan_keys("thing", "a", "z~", limit=999) == [*kept, "zzz"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB; making one is the privilege of root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid():
        pytest.skip("mounting a small file system needs root; max_bytes covers the same error")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def put_big_ones(store, number, size):
    for each in range(number):
        put(store, "thing", doc(f"big{each:03}", data=bytes(size)))


def fill(path):
    """Write until the file system has 300 kB left."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - 300_000)))


def test_writer_forgets_nothing_at_power_loss(sqlite):
    settings = {
        name: sqlite._writer._con.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode", "auto_vacuum", "busy_timeout", "mmap_size")
    }
    assert settings == {
        "synchronous": 2,  # FULL
        "journal_mode": "wal",
        "auto_vacuum": 2,  # INCREMENTAL
        "busy_timeout": 5_000,
        "mmap_size": 256 * 1024 * 1024,
    }


def test_writer_waits_for_its_turn_when_another_process_has_it(sqlite, tmp_path):
    with closing(sqlite_files.Turn(tmp_path / "data")) as turn:
        with turn.mine(), pytest.raises(Ambiguous, match="not committed"):
            sqlite.transact(lambda txn: None, label="test", deadline_s=0.02)
        put(sqlite, "thing", doc("k"))


def test_attempt_ends_in_conflict_when_a_program_holds_the_database(sqlite, tmp_path):
    sqlite._writer._con.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(tmp_path / "data" / "skep.db", isolation_level=None)) as program:
        program.execute("BEGIN IMMEDIATE")
        with pytest.raises(Conflict, match="another program"):
            sqlite.attempt(lambda txn: None, timeout_s=LIMIT_S)
        program.execute("ROLLBACK")
    put(sqlite, "thing", doc("k"))


def test_conflict_is_retried_until_the_program_lets_go(sqlite, tmp_path):
    sqlite._writer._con.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(tmp_path / "data" / "skep.db", isolation_level=None)) as program:
        program.execute("BEGIN IMMEDIATE")
        tries = []
        real = sqlite.attempt

        def attempt(fn, *, timeout_s):
            tries.append(timeout_s)
            if len(tries) == 3:
                program.execute("ROLLBACK")
            return real(fn, timeout_s=timeout_s)

        sqlite.attempt = attempt
        put(sqlite, "thing", doc("k"))
    assert len(tries) == 3


def test_put_writes_only_the_tags_that_changed(sqlite):
    put(sqlite, "bot", doc("k", *(f"t{n}" for n in range(50))))
    statements = traced(sqlite, lambda: put(sqlite, "bot", doc("k", *(f"t{n}" for n in range(51)))))
    assert [each for each in statements if " t_bot" in each] == [
        "INSERT OR IGNORE INTO t_bot (tag, k) VALUES ('t50', 'k')"
    ]


def test_put_leaves_tags_alone_when_kind_never_had_any(sqlite):
    put(sqlite, "live", doc("k"))
    put(sqlite, "live", doc("k"))  # by now the writer knows its own new table
    statements = traced(sqlite, lambda: put(sqlite, "live", doc("k", n=1)))
    assert [each.split()[0] for each in statements] == ["BEGIN", "PRAGMA", "INSERT", "COMMIT"]


def test_transaction_without_writes_leaves_the_log_alone(sqlite, tmp_path):
    put(sqlite, "thing", doc("k"))
    log = tmp_path / "data" / "skep.db-wal"
    before = log.stat()
    sqlite.transact(lambda txn: txn.get("thing", "k"), label="test")
    sqlite.take("thing", [("x", "y")], 1, lambda txn, docs: docs, label="test")
    assert (log.stat().st_mtime_ns, log.stat().st_size) == (before.st_mtime_ns, before.st_size)


def test_waiting_transactions_share_a_commit(sqlite):
    begun, go_on = threading.Event(), threading.Event()

    def hold(txn):
        begun.set()
        go_on.wait(LIMIT_S)

    def release():
        begun.wait(LIMIT_S)
        while sqlite._writer._queue.qsize() < 20:
            go_on.wait(0.001)
        go_on.set()

    def write(number):
        begun.wait(LIMIT_S)
        put(sqlite, "thing", doc(f"k{number}"))

    statements = traced(
        sqlite,
        lambda: together(
            lambda: sqlite.transact(hold, label="test"),
            release,
            *(lambda n=n: write(n) for n in range(20)),
        ),
    )
    assert statements.count("COMMIT") == 1


def test_commit_does_not_wait_for_those_that_come_while_it_takes_others_along(sqlite):
    """Or a stream of writers would hold the first of them up for long."""
    begun = [threading.Event() for _ in range(2)]
    go_on = [threading.Event() for _ in range(2)]

    def hold(number):
        def work(_txn):
            begun[number].set()
            go_on[number].wait(LIMIT_S)

        return lambda: sqlite.transact(work, label="test")

    def others():
        for number in range(2):
            begun[number].wait(LIMIT_S)
            waiting = threading.Thread(target=hold(1) if number == 0 else write)
            waiting.start()
            while sqlite._writer._queue.qsize() < 1:
                go_on[1].wait(0.001)
            go_on[number].set()
            late.append(waiting)

    def write():
        put(sqlite, "thing", doc("k"))

    late = []
    statements = traced(
        sqlite, lambda: (together(hold(0), others), [each.join(LIMIT_S) for each in late])
    )
    assert statements.count("COMMIT") == 2


def test_every_job_fails_when_their_commit_fails(sqlite, monkeypatch):
    put(sqlite, "thing", doc("k", n=1))
    statements = sqlite._writer._con

    class Failing:
        """The writer's connection with a COMMIT that does not reach the disk."""

        def __getattr__(self, name):
            return getattr(statements, name)

        def execute(self, text, *values):
            if text == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return statements.execute(text, *values)

    monkeypatch.setattr(sqlite._writer, "_con", Failing())
    for call in (
        lambda: put(sqlite, "fresh", doc("k", "tag")),
        lambda: sqlite.transact(lambda txn: txn.insert("thing", doc("k")), label="test"),
    ):
        with pytest.raises(Outage, match="disk I/O error"):
            call()
    monkeypatch.undo()
    assert sqlite.get("fresh", "k") == [None]
    put(sqlite, "fresh", doc("k", "tag"))
    assert sqlite.find("fresh", [any_of("tag")], after=None, limit=1).docs == [doc("k", "tag")]


def test_transaction_is_ambiguous_and_then_dropped_when_its_turn_does_not_come(sqlite):
    begun, go_on = threading.Event(), threading.Event()

    def hold(txn):
        begun.set()
        go_on.wait(LIMIT_S)

    def late():
        begun.wait(LIMIT_S)
        try:
            sqlite.transact(
                lambda txn: txn.put("thing", doc("late")), label="late", deadline_s=0.01
            )
        finally:
            go_on.set()

    outcomes = together(lambda: sqlite.transact(hold, label="hold"), late)
    assert isinstance(outcomes[1], Ambiguous)
    put(sqlite, "thing", doc("next"))
    assert sqlite.get("thing", "late") == [None]


def test_loop_goes_on_when_greenlets_use_the_store(tmp_path):
    with closing(SqliteStore(tmp_path, Greenlets(), SystemClock())) as store:
        turns = []

        def write(number):
            put(store, "thing", doc(f"k{number:02}", "tag"))
            increment(store)
            turns.append(len(store.find("thing", [any_of("tag")], after=None, limit=99).docs))

        waiter = gevent.spawn(store.watch, ["topic"], LIMIT_S)
        gevent.joinall([gevent.spawn(write, n) for n in range(20)], LIMIT_S, raise_error=True)
        store.transact(lambda txn: txn.notify("topic"), label="test")
        assert waiter.get(timeout=LIMIT_S) == {"topic"}
        assert (len(turns), max(turns), counted(store)) == (20, 20, 20)


def traced(store, work):
    """The statements that the writer runs during `work`, and that matter."""
    statements = []
    con = store._writer._con
    con.set_trace_callback(statements.append)
    try:
        work()
    finally:
        con.set_trace_callback(None)
    return [each for each in statements if "data_version" not in each]


def test_count_of_common_tags_is_that_of_looking_up_each(tmp_path, monkeypatch):
    """Lists that are all long are merged; how long is long does not change what is counted."""
    store = SqliteStore(tmp_path, Threads(), SystemClock())
    try:
        docs = [
            Doc(f"{n:03}", {}, frozenset(f"{p}:{n % p}" for p in (2, 3, 5))) for n in range(200)
        ]
        store.write_many(("task", doc) for doc in docs)
        asked = [frozenset({tag}) for tag in ("2:1", "3:2", "5:4")]
        bounds = {"lo": "020", "hi": "170"}
        expected = sum(
            all(some & doc.tags for some in asked) and "020" <= doc.key < "170" for doc in docs
        )
        assert store.count("task", asked, up_to=1_000, **bounds) == expected > 1
        monkeypatch.setattr(sqlite_rows, "ESTIMATES", (2, 5))
        assert store.count("task", asked, up_to=1_000, **bounds) == expected
        assert store.count("task", asked, up_to=2, **bounds) == 2
        either = [*asked[:2], frozenset({"5:4", "5:3"})]
        assert store.count("task", either, up_to=1_000, **bounds) == 2 * expected
    finally:
        store.close()
