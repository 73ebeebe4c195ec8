"""Waiting bots: who is woken, in which order, and that no hint is needed for ever."""

import threading
from dataclasses import replace

import pytest

from botapi.clock import SystemRng
from botapi.concurrency import Threads as ThreadForm
from botapi.domain.bot_event import CallInfo
from botapi.domain.matching import queue_of
from botapi.scheduler import offers as offering
from botapi.scheduler.offers import (
    FIRST_LOOK_S,
    LONGEST_LOOK_S,
    MAX_CLAIMS,
    MAX_ROUND,
    RECHECK_S,
    TOGETHER,
    Offers,
)
from botapi.store import codec
from botapi.store.protocol import Capabilities, Conflict
from botapi.transactions.cancel_task import Actor
from botapi.transactions.claim_slice import Claimant
from botapi.transactions.create_task import create_task
from botapi.transactions.offer_lease import offer_leases
from botapi.transactions.steer_bot import Steer, steer_bot
from botapi.transactions.update_bot import Stamp
from tests.factories import make_request, make_slice
from tests.fakes.clock import FakeClock
from tests.scheduler.conftest import HOLD_S, KEEP_MS, LIMIT_S, claim, connect, wait
from tests.transactions.stores import open_store


class Restless(ThreadForm):
    """The thread form, whose first event (the loop's) never waits long: only the clock counts."""

    def __init__(self):
        self.made = 0

    def event(self):
        self.made += 1
        return _Short() if self.made == 1 else super().event()

    def sleep(self, seconds):
        pass


class _Short(threading.Event):
    def wait(self, timeout=None):
        return super().wait(0.01)


@pytest.fixture
def offers(store, clock):
    offers = Offers(store, ThreadForm(), clock)
    ThreadForm().spawn(offers.run)
    yield offers
    offers.close()


def submit(store, clock, number=1, **more):
    request = make_request(number, now_ms=clock.now_ms(), **more)
    create_task(store, request, request_uuid="")
    return request


def withdraw(store, key):
    store.transact(lambda txn: txn.delete(codec.OFFER, key), label="test")


def hold(threads, offers, store, clock, bot_id, **dims):
    """A held call of this bot, in a thread; returns once it is held."""
    flat = connect(store, bot_id, clock.now_ms(), **dims)
    before = offers.waiting_count()
    box = threads.start(wait, offers, bot_id, f"ls-{bot_id}", flat, HOLD_S)
    until(lambda: offers.waiting_count() > before)
    return box


def until(condition):
    tick = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("not within its limit")


def claimant(bot_id, clock):
    call = CallInfo(f"{bot_id}/1", "127.0.0.1", "bot:test")
    stamp = Stamp(clock.now_ms(), f"given-{bot_id}", KEEP_MS)
    return Claimant(bot_id, call.session_id, 2, (), call, "", stamp)


def asking(offers, store, clock, bot_id, *, is_there=lambda: True):
    """A held call of a bot for which a lease may be claimed."""
    flat = connect(store, bot_id, clock.now_ms())
    return asks(offers, clock, bot_id, flat, is_there)


def asks(offers, clock, bot_id, flat, is_there=lambda: True):
    by = claimant(bot_id, clock)
    return offers.begin(bot_id, f"ls-{bot_id}", flat, HOLD_S, is_there=is_there, claimant=by)


def test_round_claims_for_a_few_bots_and_makes_the_others_an_offer(store, clock, offers):
    requests = [submit(store, clock, number) for number in range(MAX_CLAIMS + 2)]
    waiters = [asking(offers, store, clock, f"vm{number}") for number in range(MAX_CLAIMS + 2)]
    until(lambda: all(waiter.offer for waiter in waiters))
    given = {waiter.offer.pending.task_id: waiter for waiter in waiters}
    assert sorted(given) == sorted(request.task_id for request in requests)
    for task_id, waiter in given.items():
        (doc,) = store.get(codec.TASK, codec.task_key(task_id))
        (offer,) = store.get(codec.OFFER, codec.task_key(task_id))
        assert codec.read_task(doc).state == ("RUNNING" if waiter.claimed else "PENDING")
        assert (offer is None) is (waiter.claimed is not None)
    assert sum(waiter.claimed is not None for waiter in waiters) >= MAX_CLAIMS


def test_round_offers_nothing_to_a_bot_whose_run_it_did_not_know(store, clock, offers):
    """It was claimed for the bot in an answer that nobody heard: the bot is sent to ask anew."""
    flat = connect(store, "vm1", clock.now_ms())
    claim(store, "vm1", submit(store, clock, 1).task_id, clock.now_ms())
    busy, free = asks(offers, clock, "vm1", flat), asking(offers, store, clock, "vm2")
    request = submit(store, clock, 2)
    until(lambda: free.offer is not None)
    assert free.offer.pending.task_id == request.task_id
    assert busy.done.is_set()
    assert busy.offer is None


def test_bot_that_has_hung_up_is_given_nothing_and_its_call_ends(store, clock, offers):
    gone = asking(offers, store, clock, "vm1", is_there=lambda: False)
    there = asking(offers, store, clock, "vm2")
    request = submit(store, clock)
    until(lambda: there.offer is not None)
    assert gone.done.is_set()
    assert gone.offer is None
    assert there.offer.pending.task_id == request.task_id
    assert offers.waiting_count() == 0


def test_one_task_wakes_exactly_one_of_many_waiting_bots(store, clock, offers, threads):
    boxes = [hold(threads, offers, store, clock, f"vm{n}") for n in range(5)]
    submit(store, clock)
    until(lambda: any("value" in box for box in boxes))
    assert offers.waiting_count() == 4
    assert "value" in boxes[0], "the longest waiting bot is served first"
    offers.close()
    assert [offer is None for offer in threads.join()] == [False, True, True, True, True]


def test_waiting_bot_is_released_at_once_when_the_process_stops(store, clock, offers, threads):
    hold(threads, offers, store, clock, "vm1")
    offers.close()
    assert threads.join() == [None]
    assert wait(offers, "vm1", "ls-vm1", frozenset(), HOLD_S) is None


def test_released_bots_may_wait_again(store, clock, offers, threads):
    hold(threads, offers, store, clock, "vm1")
    offers.release_held()
    assert threads.join() == [None]
    box = hold(threads, offers, store, clock, "vm1")
    submit(store, clock)
    threads.join()
    assert box["value"].bot_id == "vm1"


def test_bot_that_is_steered_hears_of_it_at_once_and_no_other(store, clock, offers, threads):
    box, other = (hold(threads, offers, store, clock, name) for name in ("vm1", "vm2"))
    actor = Actor("admin", "new disk", "e1")
    steer_bot(store, "vm1", Steer.PAUSE, actor, now_ms=clock.now_ms())
    until(lambda: "value" in box)
    assert box["value"] is None
    assert offers.waiting_count() == 1
    assert "value" not in other


def test_second_call_of_a_bot_sends_the_first_home(store, clock, offers, threads):
    first = hold(threads, offers, store, clock, "vm1")
    flat = connect(store, "vm1", clock.now_ms())
    second = threads.start(wait, offers, "vm1", "ls-vm1", flat, HOLD_S)
    until(lambda: "value" in first)
    assert first["value"] is None
    request = submit(store, clock)
    threads.join()
    assert second["value"].pending.task_id == request.task_id


@pytest.mark.spec("10.3.p1")
def test_slices_go_by_priority_then_age_across_queues(store, clock, offers):
    flat = connect(store, "vm1", clock.now_ms(), os="Linux")
    both = {"pool": ("default",), "os": ("Linux",)}
    wanted = []
    for number, (priority, dims) in enumerate(
        [(100, None), (50, both), (100, both), (50, None), (20, both)]
    ):
        slices = [make_slice(dimensions=dims)] if dims else None
        wanted.append(
            (priority, number, submit(store, clock, number, priority=priority, slices=slices))
        )
        clock.advance(1)
    got = []
    for _ in wanted:
        offer = wait(offers, "vm1", "ls-vm1", flat, HOLD_S)
        got.append(offer.pending.task_id)
        withdraw(store, codec.task_key(got[-1]))
    assert got == [request.task_id for *_, request in sorted(wanted, key=lambda row: row[:2])]


def test_bot_gets_nothing_that_it_does_not_fit(store, clock, offers):
    flat = connect(store, "vm1", clock.now_ms(), pool="other")
    submit(store, clock)
    assert wait(offers, "vm1", "ls-vm1", flat, 0) is None
    assert wait(offers, "vm1", "ls-vm1", flat, 0.05) is None


def test_impatient_call_is_answered_at_once_when_nothing_fits(store, clock, offers, threads):
    """A queue that turns out not to fit must not hold it until the round's limit."""
    flat = connect(store, "vm1", clock.now_ms(), pool="other")
    before = threading.Event()
    done = threading.Event()

    def ask():
        before.set()
        wait(offers, "vm1", "ls-vm1", flat, 0)
        done.set()

    submit(store, clock)
    threads.start(ask)
    assert done.wait(1.5)
    threads.join()


def test_impatient_call_gets_what_is_there(store, clock, offers):
    request = submit(store, clock)
    flat = connect(store, "vm1", clock.now_ms())
    offer = wait(offers, "vm1", "ls-vm1", flat, 0)
    assert offer.pending.task_id == request.task_id


def test_bot_behind_a_full_round_is_served_too(store, clock, offers, threads):
    """64 bots that fit another queue come first in line; the last one is not forgotten."""
    for number in range(MAX_ROUND):
        hold(threads, offers, store, clock, f"vm{number}")
    last = hold(threads, offers, store, clock, "last", pool="other")
    submit(store, clock, 1, slices=[make_slice()])
    submit(store, clock, 2, slices=[make_slice(dimensions={"pool": ("other",)})])
    until(lambda: "value" in last)
    assert last["value"].bot_id == "last"
    offers.close()
    threads.join()


class Deaf:
    """A store whose notifications are lost."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def subscribe(self, _callback):
        return lambda: None


def test_lost_notification_is_made_good_by_the_recheck(store, clock, threads):
    offers = Offers(Deaf(store), Restless(), clock)
    ThreadForm().spawn(offers.run)
    for number in range(3):
        bot = f"vm{number}"
        box = hold(threads, offers, store, clock, bot)
        submit(store, clock, number)
        clock.advance(2 * RECHECK_S)
        threads.join()
        assert box["value"].bot_id == bot
    offers.close()


class Counted:
    """A store that counts how often it is asked for a queue."""

    def __init__(self, store):
        self._store = store
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, kind, *keys):
        self.asked += kind == codec.QUEUE
        return self._store.get(kind, *keys)


def test_queue_that_is_gone_is_not_asked_for_at_every_poll(store, clock):
    counted = Counted(store)
    offers = Offers(counted, ThreadForm(), clock)
    submit(store, clock)
    offers._recheck()
    (queue,) = store.scan_keys(codec.QUEUE, "", "~", limit=2)
    store.transact(lambda txn: txn.delete(codec.QUEUE, queue), label="test")
    clock.advance(2 * RECHECK_S)
    offers._recheck()
    asked = counted.asked
    offers._serve()
    assert counted.asked == asked
    offers.close()


class DeafAndShared(Deaf):
    """One whose engine does not tell other processes, and says so."""

    looks = 0

    def capabilities(self):
        return replace(self._store.capabilities(), shared=True, push_wakeup=False)

    def scan_keys(self, *where, **more):
        self.looks += 1
        return self._store.scan_keys(*where, **more)


def test_loop_looks_by_itself_when_hints_stay_in_one_process(store, clock, threads):
    offers = Offers(DeafAndShared(store), Restless(), clock)
    ThreadForm().spawn(offers.run)
    box = hold(threads, offers, store, clock, "vm1")
    submit(store, clock)
    clock.advance(FIRST_LOOK_S)
    threads.join()
    assert box["value"].bot_id == "vm1"
    offers.close()


def test_looks_become_rare_while_nothing_is_found(store, clock, threads):
    deaf = DeafAndShared(store)
    offers = Offers(deaf, Restless(), clock)
    ThreadForm().spawn(offers.run)
    box = hold(threads, offers, store, clock, "vm1")
    for _ in range(10):
        seen = deaf.looks
        clock.advance(LONGEST_LOOK_S)
        until(lambda seen=seen: deaf.looks > seen)
    clock.advance(FIRST_LOOK_S)
    submit(store, clock)
    clock.advance(LONGEST_LOOK_S)
    threads.join()
    assert box["value"].bot_id == "vm1"
    assert offers._pause_s() == RECHECK_S  # nobody waits any more
    offers.close()


class Failing:
    """A store whose first `take`s fail."""

    def __init__(self, store, errors):
        self._store = store
        self._errors = list(errors)

    def __getattr__(self, name):
        return getattr(self._store, name)

    def take(self, *args, **more):
        if self._errors:
            raise self._errors.pop()
        return self._store.take(*args, **more)


@pytest.mark.parametrize("error", [Conflict("lost"), ValueError("a bug")])
def test_loop_goes_on_after_an_error(store, clock, threads, error, caplog):
    offers = Offers(Failing(store, [error]), Restless(), clock)
    ThreadForm().spawn(offers.run)
    box = hold(threads, offers, store, clock, "vm1")
    submit(store, clock)
    threads.join()
    assert box["value"].bot_id == "vm1"
    offers.close()
    assert "no offers now" in caplog.text


class Waiting:
    """A store of which nothing is asked, for calls that wait."""

    def __init__(self, count):
        self.offers = Offers(Quiet(), ThreadForm(), FakeClock())
        for number in range(count):
            self.offers.begin(f"vm{number}", "ls", frozenset(), HOLD_S)

    def ends(self, least_s, most_s, count):
        """When so many calls would end, on the clock of the process."""
        clock, found = self.offers._clock, []
        for _ in range(count):
            clock.advance(0.037)
            held_s = self.offers.hold_s(least_s, most_s)
            assert least_s <= held_s <= most_s
            found.append(round(clock.monotonic() + held_s + self.offers._phase_s, 6))
        return found


class Quiet:
    def capabilities(self):
        return Capabilities("quiet", push_wakeup=True, shared=False, durable=False, max_txn_docs=1)

    def subscribe(self, _hear):
        return lambda: None


@pytest.mark.parametrize(
    ("waiting", "apart_s"), [(0, 4.0), (100, 4.0), (1_000, 1.0), (10_000, 0.125), (40_000, 0.03125)]
)
def test_held_calls_end_together_no_more_than_a_moment_can_bear(waiting, apart_s):
    ends = Waiting(waiting).ends(40.0, 45.0, 600)
    assert all(end % apart_s == 0 for end in ends)
    assert len(set(ends)) > 3, "spread over the time that they may take"
    assert apart_s * waiting / 42.5 <= TOGETHER * 45 / 42.5


def test_held_calls_of_two_processes_end_at_times_of_their_own():
    phases = {Waiting(0).offers._phase_s for _ in range(5)}
    assert len(phases) == 5


@pytest.mark.parametrize(("least_s", "most_s"), [(5.0, 5.0), (0.0, 0.0), (40.0, 40.001)])
def test_time_of_a_held_call_is_within_its_bounds_however_narrow(least_s, most_s):
    Waiting(3).ends(least_s, most_s, 100)


class Early:
    """Two bots that wait on SQLite, and a queue that is known, with its rounds and commits."""

    def __init__(self, store, clock, threads, monkeypatch):
        self.store, self.clock, self.threads = store, clock, threads
        self.rounds, self.commits = [], []
        monkeypatch.setattr(offering, "offer_leases", self.round)
        store._writer._con.set_trace_callback(self.trace)
        self.offers = Offers(store, ThreadForm(), clock)
        ThreadForm().spawn(self.offers.run)
        self.key = codec.queue_key(queue_of(make_request().slices[0].dimensions))
        first = hold(threads, self.offers, store, clock, "vm0")
        withdraw(store, codec.task_key(submit(store, clock, 1).task_id))
        until(lambda: "value" in first)
        self.boxes = [hold(threads, self.offers, store, clock, name) for name in ("vm1", "vm2")]
        self.rounds.clear()

    def round(self, *call):
        self.rounds.append(call)
        return offer_leases(*call)

    def trace(self, statement):
        if statement == "COMMIT":
            self.commits.append(statement)

    def given(self):
        return [box["value"] for box in self.boxes if "value" in box]

    def submit_expected(self, number):
        """The task waits with its round for a writer that is busy, as it is for a moment."""
        writer, begun, end = self.store._writer, threading.Event(), threading.Event()

        def keep_busy(_txn):
            begun.set()
            end.wait(LIMIT_S)

        self.threads.start(lambda: self.store.transact(keep_busy, label="test"))
        assert begun.wait(LIMIT_S)
        self.commits.clear()
        box = self.threads.start(submit, self.store, self.clock, number)
        until(lambda: writer._queue.qsize() == 1)
        self.offers.expect(self.key)
        until(lambda: writer._queue.qsize() == 2)
        end.set()
        until(lambda: "value" in box)
        return box["value"]


@pytest.fixture
def early(tmp_path, clock, rng, threads, monkeypatch):
    with open_store("sqlite", tmp_path, clock, rng) as store:
        early = Early(store, clock, threads, monkeypatch)
        yield early
        early.offers.close()
        threads.join()


def test_expected_task_is_offered_in_the_commit_that_makes_it(early):
    request = early.submit_expected(2)
    until(early.given)
    assert [offer.pending.task_id for offer in early.given()] == [request.task_id]
    until(lambda: early.key not in early.offers._given_early)
    assert (len(early.rounds), len(early.commits)) == (1, 1), "the hint asks for no other round"


def test_task_that_nobody_expected_is_found_behind_one_that_was_given_early(early):
    early.submit_expected(2)
    submit(early.store, early.clock, 3)
    until(lambda: len(early.given()) == 2)


def test_task_that_is_expected_and_never_comes_harms_nobody(early):
    early.offers.expect(early.key)
    until(lambda: early.rounds)
    early.offers.expect("a queue that nobody knows")
    assert early.given() == []
    request = submit(early.store, early.clock, 2)
    until(early.given)
    assert early.given()[0].pending.task_id == request.task_id


@pytest.mark.slow
def test_waiters_and_new_queues_never_miss_each_other(store, clock, offers, threads):
    """Each round a queue nobody knows, and bots that begin to wait in that very moment."""
    rng = SystemRng()
    for number in range(60):
        dims = {"pool": ("default",), "n": (str(number),)}
        flat = connect(store, f"vm{number}", clock.now_ms(), n=str(number))
        box = threads.start(wait, offers, f"vm{number}", f"ls-vm{number}", flat, HOLD_S)
        if rng.randbits(1):
            until(lambda: offers.waiting_count() > 0)
        submit(store, clock, number, slices=[make_slice(dimensions=dims)])
        threads.join()
        assert box["value"] is not None, number
