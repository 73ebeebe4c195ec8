"""A store that is away: calls in vain are few, and it is noticed when it is back."""

from copy import copy

import pytest

from botapi.concurrency import Threads
from botapi.store.breaker import FAILURES, FIRST_PROBE_S, LONGEST_PROBE_S, Breaker
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Ambiguous, Conflict, Outage, StoreFull
from tests.fakes.clock import FakeClock, FakeRng


class Away(MemoryStore):
    """A store whose reads and attempts fail as the test says, each anew, and are counted."""

    read_error = write_error = None
    reads = writes = 0

    def get(self, kind, *keys):
        self.reads += 1
        if self.read_error:
            raise copy(self.read_error)
        return super().get(kind, *keys)

    def transact(self, fn, *, label, deadline_s=10.0):
        self.writes += 1
        if self.write_error:
            raise copy(self.write_error)
        return super().transact(fn, label=label, deadline_s=deadline_s)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def away(clock):
    away = Away(Threads(), clock, FakeRng())
    away.reads = away.writes = 0
    return away


@pytest.fixture
def store(away, clock):
    return Breaker(away, clock)


def read(store):
    return store.get("thing", "k")


def write(store):
    return store.transact(lambda txn: "done", label="test")


def fail(call, store, times):
    for _ in range(times):
        with pytest.raises(Outage):
            call(store)


def test_store_is_not_asked_any_more_when_it_failed_often(store, away):
    away.read_error = Outage("gone")
    fail(read, store, FAILURES + 20)
    assert away.reads == FAILURES
    with pytest.raises(Outage, match="did not answer the last reads"):
        read(store)


def test_store_is_asked_on_when_a_success_is_among_the_failures(store, away):
    for _ in range(3):
        away.read_error = Outage("gone")
        fail(read, store, FAILURES - 1)
        away.read_error = None
        read(store)
    assert away.reads == 3 * FAILURES


def test_one_call_after_each_pause_finds_out_whether_it_is_back(store, away, clock):
    away.write_error = Ambiguous("too late")
    fail(write, store, FAILURES)
    pause_s, asked = FIRST_PROBE_S, FAILURES
    for _ in range(6):
        clock.advance(pause_s)
        fail(write, store, 10)
        asked += 1
        assert away.writes == asked
        pause_s = min(LONGEST_PROBE_S, 2 * pause_s)
    clock.advance(LONGEST_PROBE_S)
    away.write_error = None
    assert [write(store) for _ in range(3)] == ["done"] * 3


def test_pause_is_short_again_when_the_store_fails_for_the_second_time(store, away, clock):
    for _ in range(2):
        away.read_error = Outage("gone")
        fail(read, store, FAILURES)
        clock.advance(FIRST_PROBE_S)
        away.read_error = None
        read(store)


def test_others_are_refused_while_the_probe_waits_for_its_answer(store, away, clock):
    away.read_error = Outage("gone")
    fail(read, store, FAILURES)
    clock.advance(FIRST_PROBE_S)
    refused, real = [], away.get

    def slow(kind, *keys):
        """Somebody else asks before this answer is there."""
        if not refused:
            refused.append(True)
            fail(read, store, 3)
        return real(kind, *keys)

    away.get = slow
    asked = away.reads
    fail(read, store, 1)
    assert refused
    assert away.reads == asked + 1


def test_failure_that_many_callers_share_is_one(store, away, monkeypatch):
    shared = Outage("gone")

    def fail_together(kind, *keys):
        away.reads += 1
        raise shared

    monkeypatch.setattr(away, "get", fail_together)
    fail(read, store, 3 * FAILURES)
    assert away.reads == 3 * FAILURES
    monkeypatch.undo()
    away.read_error = Outage("gone")
    fail(read, store, 3 * FAILURES)
    assert away.reads == 4 * FAILURES - 1


@pytest.mark.parametrize("error", [StoreFull("full"), Conflict("lost"), ValueError("bad")])
def test_answer_of_any_kind_is_no_failure(store, away, error):
    away.write_error = error
    for _ in range(3 * FAILURES):
        with pytest.raises(type(error)):
            write(store)
    assert away.writes == 3 * FAILURES


def test_reads_go_on_when_only_writes_fail(store, away):
    away.write_error = Ambiguous("too late")
    fail(write, store, 2 * FAILURES)
    assert away.writes == FAILURES
    assert read(store) == [None]
    fail(write, store, 1)
