"""Native threads under gevent."""

import threading

import gevent
import pytest

from botapi import concurrency
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import (
    NAP_S,
    NAPS,
    OUTSIDE_THREADS,
    Greenlets,
    Held,
    Threads,
    at_work,
    giving_way,
    start_native,
)
from botapi.store.sqlite import SqliteStore
from tests.fakes.worker import run_patched


def test_error_on_a_native_thread_rises_where_it_was_asked_for_and_prints_nothing(capfd):
    greenlets = Greenlets()
    with pytest.raises(ValueError, match="refused") as caught:
        greenlets.native(lambda: int("refused"))
    assert caught.traceback[-1].name == "<lambda>"
    assert greenlets.native(lambda: greenlets.native(lambda: 5)) == 5
    assert capfd.readouterr() == ("", "")


def test_store_is_read_while_everything_outside_hangs():
    greenlets, release, done = Greenlets(), threading.Event(), []
    for _ in range(OUTSIDE_THREADS):
        greenlets.spawn(greenlets.outside, lambda: done.append(release.wait(5)))
    greenlets.sleep(0)
    assert greenlets.native(lambda: list(done)) == []
    release.set()


LONG_S = 30.0


@pytest.mark.parametrize("make", [Greenlets, Threads])
def test_held_value_is_made_once_its_event_is_set_or_its_time_is_over(make):
    waits = make()
    done, made = waits.event(), []
    held = Held(done, 0.01, lambda: made.append(len(made)) or len(made)).then(str)
    assert (held.get(), made) == ("1", [0])
    done.set()
    assert Held(done, LONG_S, lambda: "now").get() == "now"


@pytest.mark.parametrize("make", [Greenlets, Threads])
@pytest.mark.parametrize("when", ["before", "after", "from a thread", "never"])
def test_what_comes_after_an_event_runs_once_when_it_is_set_or_its_time_is_over(make, when):
    waits = make()
    event, over, runs = waits.event(), waits.event(), []
    if when == "before":
        event.set()
    waits.after(event, 0.01 if when == "never" else LONG_S, lambda: (runs.append(1), over.set()))
    waits.sleep(0)
    if when == "after":
        assert runs == []
        event.set()
    if when == "from a thread":
        start_native(event.set)
    assert over.wait(LONG_S)
    event.set()
    waits.sleep(0.02)
    assert runs == [1]


def test_greenlet_goes_on_with_what_comes_after_another_event_also_after_an_error(caplog):
    waits = Greenlets()
    ran_in = []

    def act():
        ran_in.append(gevent.getcurrent())
        if len(ran_in) == 1:
            raise RuntimeError("the first one fails")

    for number in range(1, 4):
        event = waits.event()
        waits.after(event, LONG_S, act)
        event.set()
        while len(ran_in) < number:
            waits.sleep(0)
    assert len(set(map(id, ran_in))) == 1
    assert "the first one fails" in caplog.text


def in_a_reader(fn):
    greenlets = Greenlets()
    greenlets.native(lambda: greenlets.soon(fn))


def test_what_begins_together_runs_together():
    waits = Greenlets()
    event, both = waits.event(), []

    def act():
        both.append(1)
        while len(both) < 2:
            waits.sleep(0)

    for _ in range(2):  # the second time there are greenlets to go on with
        both.clear()
        event = waits.event()
        waits.after(event, LONG_S, act)
        waits.after(event, LONG_S, act)
        event.set()
        with gevent.Timeout(LONG_S):
            act()


@pytest.fixture(name="naps")
def fixture_naps(monkeypatch):
    """The naps of readers, which take no time here; the loop counts as waiting."""
    naps = []
    monkeypatch.setattr(concurrency, "_sleep", naps.append)
    monkeypatch.setattr(at_work, "loop", False)
    monkeypatch.setattr(at_work, "writer", False)
    return naps


def test_what_is_to_be_done_soon_comes_behind_those_who_can_go_on():
    greenlets, order = Greenlets(), []

    def first():
        greenlets.soon(lambda: order.append("soon"))
        order.append("first")

    for act in (first, lambda: order.append("second"), lambda: order.append("third")):
        greenlets.spawn(act)
    greenlets.sleep(0.01)
    assert order == ["first", "second", "third", "soon"]


@pytest.mark.parametrize("call", [lambda fn: Threads().soon(fn), in_a_reader])
def test_what_is_to_be_done_soon_is_done_at_once_where_no_loop_is(call):
    order = []
    call(lambda: order.append("soon"))
    order.append("after")
    assert order == ["soon", "after"]


def test_reader_naps_before_each_item_while_the_writer_is_at_work(naps):
    def read():
        at_work.loop, at_work.writer = False, True
        first = list(giving_way("ab"))
        at_work.writer = False
        return first + list(giving_way("cd"))

    assert Greenlets().native(read) == list("abcd")
    assert naps == [NAP_S] * 2


def test_reader_goes_on_at_once_when_the_writer_has_ended(naps, monkeypatch):
    def nap(_seconds):
        naps.append(None)
        at_work.writer = False

    def read():
        at_work.loop, at_work.writer = False, True
        return list(giving_way("ab"))

    monkeypatch.setattr(concurrency, "_sleep", nap)
    assert Greenlets().native(read) == list("ab")
    assert len(naps) == 1


def test_reader_naps_half_a_second_at_most_for_one_piece_of_work(naps):
    greenlets = Greenlets()

    def read():
        at_work.writer = True
        inner = greenlets.native(lambda: list(giving_way(range(NAPS))))
        return inner + list(giving_way(range(NAPS)))

    assert len(greenlets.native(read)) == 2 * NAPS
    assert naps == [NAP_S] * NAPS
    greenlets.native(read)
    assert sum(naps) == pytest.approx(2 * 0.5)


def test_loop_and_writer_never_give_way(naps):
    at_work.loop = at_work.writer = True
    assert list(giving_way("ab")) == list("ab")
    assert not naps


def test_loop_is_at_work_except_while_it_waits():
    greenlets = Greenlets()
    greenlets.sleep(0.001)
    assert at_work.loop

    def await_rest():
        while at_work.loop:
            pass
        return True

    assert greenlets.native(await_rest)
    assert at_work.loop


def test_writer_is_at_work_while_it_runs_a_transaction(tmp_path):
    store = SqliteStore(tmp_path, concurrency.Threads(), SystemClock(), SystemRng())
    try:
        assert store.transact(lambda _txn: at_work.writer, label="look")
    finally:
        store.close()
    assert not at_work.writer


IMPORTS = """\
for number in range(30):
    for _ in range(4):
        load = lambda name=f"late_{number}": done.append(__import__(name))
        greenlets.spawn(greenlets.native, load)
    greenlets.sleep(0)
    done.append(__import__(f"late_{number}"))
    while len(done) < 5 * (number + 1):
        greenlets.sleep(0.001)
assert all(found.is_there for found in done)
"""

LINES = """\
log = logging.getLogger("many")

def write():
    for number in range(300):
        log.warning("line %d", number)
    done.append(None)

for _ in range(4):
    greenlets.spawn(greenlets.native, write)
greenlets.sleep(0)
write()
while len(done) < 5:
    greenlets.sleep(0.001)
"""


def test_threads_and_loop_of_a_worker_import_the_same_module_at_once(tmp_path):
    """Four bots ask a new server for its archive: each call imports what unpacks it."""
    for number in range(30):
        (tmp_path / f"late_{number}.py").write_text(
            "import gevent.monkey\n"
            "gevent.monkey.get_original('time', 'sleep')(0.005)\n"
            "is_there = True\n"
        )
    ended = run_patched(IMPORTS, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_threads_and_loop_of_a_worker_write_to_the_log_at_once(tmp_path):
    ended = run_patched(LINES, tmp_path)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert len(ended.stderr.splitlines()) == 1500
