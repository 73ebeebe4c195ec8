"""Slices that no known bot can run, and bots that nobody has heard of for a month."""

import pytest

from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.scheduler.sweeps import SLOW_EVERY_S
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.hold_duty import Fence, hold_duty
from botapi.transactions.skip_slice import skip_slice
from botapi.transactions.update_bot import Stamp, update_bot
from tests.factories import make_slice
from tests.scheduler.conftest import connect
from tests.scheduler.test_sweeps import DEAD_S, keys, offer, submit, sweeps, task_of

__all__ = ["sweeps"]

FOUR_WEEKS_S = 28 * 24 * 3600


def wanting(os, **more):
    return make_slice(dimensions={"pool": ("default",), "os": (os,)}, **more)


def rounds(clock, sweeps, count):
    skipped = 0
    for _ in range(count):
        skipped += sweeps.round()["skipped"]
        clock.advance(SLOW_EVERY_S)
    return skipped


@pytest.mark.spec("10.4.1.2", "5.8.1.10")
def test_slice_without_any_bot_gives_way_and_the_last_one_is_no_resource(store, clock, sweeps):
    connect(store, "vm1", clock.now_ms(), os="Linux")
    request = submit(store, clock, slices=[wanting("BeOS"), wanting("Plan9")])
    assert rounds(clock, sweeps, 1) == 0
    assert rounds(clock, sweeps, 1) == 1
    task = task_of(store, request)
    assert (task.state, task.slice_index) == ("PENDING", 1)
    assert rounds(clock, sweeps, 2) == 1
    task = task_of(store, request)
    ended = (task.state, task.internal_failure, task.completed_ms, task.abandoned_ms)
    assert ended == ("NO_RESOURCE", False, task.modified_ms, task.modified_ms)
    assert task.error == "no known bot has the dimensions that it asks for"
    assert keys(store, codec.PEND) == keys(store, codec.DUE) == []


@pytest.mark.spec("10.4.1.2")
def test_slice_goes_on_to_one_that_a_bot_can_run(store, clock, sweeps):
    connect(store, "vm1", clock.now_ms(), os="Linux")
    slices = [wanting("BeOS"), wanting("Linux"), wanting("Plan9")]
    request = submit(store, clock, slices=slices)
    assert rounds(clock, sweeps, 5) == 1
    task = task_of(store, request)
    assert (task.state, task.slice_index) == ("PENDING", 1)


@pytest.mark.spec("10.4.p1")
def test_slice_that_waits_for_capacity_stays_until_its_deadline(store, clock, sweeps):
    waits = wanting("BeOS", wait_for_capacity=True, expiration_s=1_000)
    patient = submit(store, clock, 1, slices=[waits])
    other = submit(store, clock, 2, slices=[wanting("BeOS")])
    assert rounds(clock, sweeps, 3) == 1
    assert task_of(store, other).state == "NO_RESOURCE"
    assert task_of(store, patient).state == "PENDING"
    clock.advance(1_000)
    sweeps.round()
    assert task_of(store, patient).state == "EXPIRED"


def test_bot_that_was_away_for_a_moment_saves_its_slices(store, clock, sweeps):
    request = submit(store, clock, slices=[wanting("Linux")])
    assert rounds(clock, sweeps, 1) == 0
    connect(store, "vm1", clock.now_ms(), os="Linux")
    assert rounds(clock, sweeps, 1) == 0
    store.transact(lambda txn: txn.delete(codec.BOT, "vm1"), label="test")
    assert rounds(clock, sweeps, 1) == 0
    assert task_of(store, request).state == "PENDING"


def test_dead_bot_counts_as_known(store, clock, sweeps):
    connect(store, "vm1", clock.now_ms())
    request = submit(store, clock)
    stamp = Stamp(clock.now_ms(), "off", 10**12)
    update_bot(store, "vm1", BotUpdate(EventKind.BOT_SHUTDOWN), stamp)
    assert rounds(clock, sweeps, 3) == 0
    assert task_of(store, request).state == "PENDING"


def skip(store, clock, request, index=0, fence=None):
    if fence is None:
        number = hold_duty(store, "sweeper", "test", now_ms=clock.now_ms(), for_ms=10_000)
        fence = Fence("sweeper", "test", number)
    return skip_slice(store, request.task_id, index, clock.now_ms(), fence)


def test_skip_looks_again_before_it_ends_anything(store, clock):
    offered = submit(store, clock, 1)
    offer(store, clock, offered)
    assert skip(store, clock, offered) is None
    waiting = submit(store, clock, 2)
    assert skip(store, clock, waiting, 1) is None
    patient = submit(store, clock, 3, slices=[make_slice(wait_for_capacity=True)])
    assert skip(store, clock, patient) is None
    assert task_of(store, waiting).state == task_of(store, patient).state == "PENDING"
    assert skip(store, clock, waiting).state == "NO_RESOURCE"
    assert skip(store, clock, waiting) is None


@pytest.mark.parametrize("other", [None, "rival"])
def test_skip_does_nothing_when_the_duty_was_lost_meanwhile(store, clock, other):
    """A sweeper paused between its look at the bots and its transaction does no harm."""
    waiting = submit(store, clock)
    number = hold_duty(store, "sweeper", "test", now_ms=clock.now_ms(), for_ms=10_000)
    fence = Fence("sweeper", "test", number)
    clock.advance(10)
    assert skip(store, clock, waiting, fence=fence) is None
    hold_duty(store, "sweeper", other or "test", now_ms=clock.now_ms(), for_ms=10_000)
    assert skip(store, clock, waiting, fence=fence) is None
    assert task_of(store, waiting).state == "PENDING"


@pytest.mark.spec("9.1.1.19", "9.6.1.9", "13.1.49")
def test_dead_bot_is_forgotten_four_hours_after_its_last_event(store, clock, sweeps):
    keep_ms = FOUR_WEEKS_S * 1000
    for bot_id in ("dead", "alive"):
        connect(store, bot_id, clock.now_ms())
    update = BotUpdate(EventKind.BOT_SHUTDOWN)
    update_bot(store, "dead", update, Stamp(clock.now_ms(), "off", keep_ms))
    (doc,) = store.get(codec.BOT, join_key("dead"))
    assert doc.expire_at == clock.now_ms() + keep_ms + 4 * 3600 * 1000
    assert store.get(codec.BOT, join_key("alive"))[0].expire_at is None
    clock.advance(FOUR_WEEKS_S + 4 * 3600 - 1)
    sweeps.last_seen.touch("alive", clock.now_ms())
    sweeps.round()
    assert keys(store, codec.BOT) == ["alive", "dead"]
    clock.advance(SLOW_EVERY_S)
    sweeps.last_seen.touch("alive", clock.now_ms())
    sweeps.round()
    assert keys(store, codec.BOT) == ["alive"]
    clock.advance(DEAD_S)
    sweeps.last_seen.touch("alive", clock.now_ms())
    sweeps.round()
    assert keys(store, codec.LIVE) == [codec.live_key("alive")]
    assert keys(store, codec.LSESSION) == ["alive"]
