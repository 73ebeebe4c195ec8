"""What several processes on one file have that other engines have not: sockets, and forks."""

import os
import queue
from contextlib import ExitStack, closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.sqlite import SqliteStore
from tests.store.conformance.processes import start
from tests.store.conformance.support import doc, put

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

        def started(role, *arguments):
            process = start(f"sqlite:{folder}", role, *arguments)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield started


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
