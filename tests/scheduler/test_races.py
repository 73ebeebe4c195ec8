"""Races forced by barriers, on memory and on SQLite: one end, one claim, nothing lost."""

import threading
from collections import Counter
from functools import partial

import pytest

from botapi.concurrency import Threads as ThreadForm
from botapi.domain.bot import LiveBot
from botapi.domain.claim import Run, Skip
from botapi.domain.completion import EndedBy, Ending
from botapi.scheduler.offers import Offers
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.create_task import create_task
from botapi.transactions.expire_slice import expire_slice
from botapi.transactions.offer_lease import outstanding_offer, return_offer
from botapi.transactions.repair_pending import repair_pending
from botapi.transactions.update_bot import Stamp
from botapi.transactions.update_task import Accepted, NotCurrent, Progress, update_task
from tests.factories import make_request, make_slice
from tests.scheduler.conftest import KEEP_MS, LIMIT_S, at_once, claim, connect, wait
from tests.transactions.stores import POSTGRES, SQLITE, store_of

ROUNDS = 25


@pytest.fixture(params=["memory", SQLITE, POSTGRES])
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store


def submit(store, clock, number=1, **more):
    request = make_request(number, now_ms=clock.now_ms(), **more)
    create_task(store, request, request_uuid="")
    return request


def task_of(store, request):
    (doc,) = store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc)


def bot_of(store, bot_id):
    (doc,) = store.get(codec.BOT, join_key(bot_id))
    return codec.read_bot(doc)


def cancel(store, clock, request, *, kill=False):
    actor = Actor("alice", "", f"entry-{request.task_id}")
    return cancel_task(store, request.task_id, actor, kill_running=kill, now_ms=clock.now_ms())


def finish(store, clock, bot_id, request, event_id="end"):
    ending = Ending(EndedBy.BOT, 0, 1.0)
    progress = Progress(bot_id, f"{bot_id}/1", request.task_id, 0, b"out", ending, "", True, 10**9)
    return update_task(store, progress, Stamp(clock.now_ms(), event_id, KEEP_MS))


def left(store, kind):
    return store.scan_keys(kind, "", "\U0010ffff", limit=1_000)


def is_tidy(store):
    """No queue entry, offer or timer is left of ended and running tasks."""
    return left(store, codec.PEND) == left(store, codec.OFFER) == left(store, codec.DUE) == []


def test_claim_against_cancel_has_one_winner(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    seen = Counter()
    for number in range(ROUNDS):
        request = submit(store, clock, number)
        decision, canceled = at_once(
            threads,
            lambda r=request: claim(store, "vm1", r.task_id, clock.now_ms()),
            lambda r=request: cancel(store, clock, r),
        )
        task = task_of(store, request)
        won = isinstance(decision, Run)
        assert task.state == ("RUNNING" if won else "CANCELED")
        assert canceled.canceled is not won
        assert is_tidy(store)
        if won:
            finish(store, clock, "vm1", request, f"end{number}")
        seen[won] += 1
    assert sum(seen.values()) == ROUNDS


def test_claim_by_many_threads_of_two_bots_is_won_once(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    connect(store, "vm2", clock.now_ms())
    for number in range(ROUNDS):
        request = submit(store, clock, number)
        acts = [
            lambda b=bot, n=n, r=request: claim(
                store, b, r.task_id, clock.now_ms(), claim_id=f"c{n}-{r.task_id}"
            )
            for n in range(3)
            for bot in ("vm1", "vm2")
        ]
        decisions = at_once(threads, *acts)
        assert sum(isinstance(d, Run) and not d.is_retry for d in decisions) == 1
        assert sum(isinstance(d, Skip) for d in decisions) == len(acts) - 1
        task = task_of(store, request)
        assert bot_of(store, task.bot_id).task_id == request.task_id[:-1] + "1"
        other = "vm2" if task.bot_id == "vm1" else "vm1"
        assert bot_of(store, other).task_id == ""
        finish(store, clock, task.bot_id, request, f"end{number}")


def test_same_claim_by_many_threads_is_answered_alike(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    request = submit(store, clock)
    acts = [lambda: claim(store, "vm1", request.task_id, clock.now_ms())] * 6
    decisions = at_once(threads, *acts)
    assert sorted(d.is_retry for d in decisions) == [False, True, True, True, True, True]


def test_kill_against_completion_has_one_end(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    for number in range(ROUNDS):
        request = submit(store, clock, number)
        claim(store, "vm1", request.task_id, clock.now_ms())
        killed, done = at_once(
            threads,
            lambda r=request: cancel(store, clock, r, kill=True),
            lambda r=request, n=number: finish(store, clock, "vm1", r, f"end{n}"),
        )
        task = task_of(store, request)
        assert task.state == ("KILLED" if killed.canceled else "COMPLETED")
        assert (done.task, task.killing, task.output_bytes) == (task, False, 3)
        assert bot_of(store, "vm1").task_id == ""


def test_death_against_late_completion_has_one_end(store, clock, threads):
    for number in range(ROUNDS):
        bot = f"vm{number}"
        connect(store, bot, clock.now_ms())
        request = submit(store, clock, number)
        claim(store, bot, request.task_id, clock.now_ms())
        (doc,) = store.get(codec.LIVE, codec.live_key(bot))
        stamp = Stamp(clock.now_ms(), f"d{bot}", KEEP_MS)
        died, done = at_once(
            threads,
            partial(bot_missing, store, codec.read_live(doc), bot_of(store, bot), stamp),
            lambda r=request, b=bot: finish(store, clock, b, r, f"e{b}"),
        )
        task = task_of(store, request)
        assert isinstance(done, Accepted)
        assert task.state == ("BOT_DIED" if died else "COMPLETED")
        assert task.output_bytes == (3 if task.state == "COMPLETED" else 0)
        out = store.scan_keys(codec.OUT, *codec.output_range(request.task_id), limit=9)
        assert len(out) == (1 if task.state == "COMPLETED" else 0)
        assert bot_of(store, bot).dead is died


def test_bot_heard_of_meanwhile_is_not_dead(store, clock):
    connect(store, "vm1", clock.now_ms())
    seen = LiveBot("vm1", clock.now_ms() - 1)
    assert not bot_missing(store, seen, bot_of(store, "vm1"), Stamp(clock.now_ms(), "x", KEEP_MS))


def test_expiry_against_claim_has_one_winner(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    for number in range(ROUNDS):
        slices = [make_slice(expiration_s=1), make_slice(expiration_s=100)]
        request = submit(store, clock, number, slices=slices)
        clock.advance(1)
        decision, expired = at_once(
            threads,
            lambda r=request: claim(store, "vm1", r.task_id, clock.now_ms()),
            lambda r=request: expire_slice(store, r.task_id, 0, clock.now_ms()),
        )
        task = task_of(store, request)
        if isinstance(decision, Run):
            assert (expired, task.state, task.slice_index) == (None, "RUNNING", 0)
            finish(store, clock, "vm1", request, f"end{number}")
        else:
            assert decision == Skip("slice has expired")
            assert (task.state, task.slice_index) == ("PENDING", 1)
            assert len(left(store, codec.PEND)) == 1
            cancel(store, clock, request)
        assert is_tidy(store)


def test_return_of_an_offer_against_its_claim_loses_nothing(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    for number in range(ROUNDS):
        request = submit(store, clock, number)
        slot = codec.read_pending(store.get(codec.PEND, task_of(store, request).pend_key)[0])
        offers = Offers(store, ThreadForm(), clock)
        ThreadForm().spawn(offers.run)
        offer = wait(offers, "vm1", "ls-vm1", frozenset({"pool:default", "id:vm1"}), LIMIT_S)
        offers.close()
        assert offer.pending == slot
        decision, _ = at_once(
            threads,
            lambda r=request: claim(store, "vm1", r.task_id, clock.now_ms()),
            lambda o=offer: return_offer(store, o, clock.now_ms(), "late"),
        )
        assert decision == Run(is_retry=False)
        assert task_of(store, request).state == "RUNNING"
        assert is_tidy(store)
        finish(store, clock, "vm1", request, f"end{number}")


def test_two_processes_never_offer_one_slice_twice(store, clock, threads):
    processes = [Offers(store, ThreadForm(), clock) for _ in range(2)]
    for offers in processes:
        ThreadForm().spawn(offers.run)
    bots = [f"vm{n}" for n in range(8)]
    dims = {bot: connect(store, bot, clock.now_ms()) for bot in bots}
    for number, bot in enumerate(bots):
        threads.start(wait, processes[number % 2], bot, f"ls-{bot}", dims[bot], LIMIT_S)
    requests = [submit(store, clock, number) for number in range(8)]
    offered = threads.join()
    got = [offer.pending.task_id for offer in offered]
    assert sorted(got) == sorted(request.task_id for request in requests)
    assert sorted(offer.bot_id for offer in offered) == bots
    for offers in processes:
        offers.close()


def test_repair_against_claim_never_queues_a_running_task(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    for number in range(ROUNDS):
        request = submit(store, clock, number)
        key = task_of(store, request).pend_key
        store.transact(lambda txn, k=key: txn.delete(codec.PEND, k), label="test")
        at_once(
            threads,
            lambda r=request: claim(store, "vm1", r.task_id, clock.now_ms()),
            lambda r=request: repair_pending(store, r.task_id, clock.now_ms()),
        )
        assert task_of(store, request).state == "RUNNING"
        assert is_tidy(store)
        finish(store, clock, "vm1", request, f"end{number}")


def test_completion_by_many_threads_ends_once(store, clock, threads):
    connect(store, "vm1", clock.now_ms())
    request = submit(store, clock)
    claim(store, "vm1", request.task_id, clock.now_ms())
    acts = [lambda n=n: finish(store, clock, "vm1", request, f"e{n}") for n in range(6)]
    outcomes = at_once(threads, *acts)
    assert Counter(map(type, outcomes)) == {Accepted: 1, NotCurrent: 5}
    kinds = [
        codec.read_event(doc).kind for doc in store.scan(codec.EVENT, "", "\U0010ffff", limit=100)
    ]
    assert kinds.count("task_completed") == 1


TASKS, BOTS = 500, 8


class Fleet:
    """Bots that claim and finish whatever they are offered, until all tasks ran."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.processes = [Offers(store, ThreadForm(), clock) for _ in range(2)]
        self.ran, self.skipped = [], []
        self.over = threading.Event()
        for offers in self.processes:
            ThreadForm().spawn(offers.run)

    def live(self, number):
        bot = f"vm{number}"
        flat = connect(self.store, bot, self.clock.now_ms())
        while not self.over.is_set():
            offer = wait(self.processes[number % 2], bot, f"ls-{bot}", flat, 2.0)
            offer = offer or self.missed(bot)
            if offer is not None:
                self.work(bot, offer)

    def missed(self, bot):
        (doc,) = self.store.get(codec.LSESSION, join_key(bot))
        return outstanding_offer(self.store, codec.read_lease_session(doc))

    def work(self, bot, offer):
        task_id = offer.pending.task_id
        now_ms = self.clock.now_ms()
        decision = claim(self.store, bot, task_id, now_ms, claim_id=offer.lease_id)
        if not isinstance(decision, Run):
            self.skipped.append(decision)
            return
        self.ran.append(task_id)
        finish(self.store, self.clock, bot, make_request(task_id=task_id), f"e-{task_id}")
        if len(self.ran) >= TASKS:
            self.over.set()
            for process in self.processes:
                process.close()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["memory", "sqlite", "postgres"])
def test_five_hundred_tasks_run_once_each_over_two_processes(engine, request, clock, rng, threads):
    """Eight bots, two offer loops, one store: no task twice, none lost, hardly a skipped claim."""
    with store_of(request, clock, rng, engine) as store:
        fleet = Fleet(store, clock)
        for number in range(BOTS):
            threads.start(fleet.live, number)
        requests = [submit(store, clock, number) for number in range(TASKS)]
        assert fleet.over.wait(60)
        threads.join()
        assert Counter(fleet.ran) == Counter(request.task_id for request in requests)
        assert len(fleet.skipped) < TASKS / 100
        assert {task_of(store, request).state for request in requests} == {"COMPLETED"}
        assert is_tidy(store)
