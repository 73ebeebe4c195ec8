"""What time does by itself: offers, slices, silent bots and runs, retention, repair."""

from dataclasses import replace

import pytest

from botapi import app as composition
from botapi.cfg.bundle import Source
from botapi.concurrency import Threads as ThreadForm
from botapi.domain.bot import LiveBot
from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.scheduler.last_seen import LastSeen
from botapi.scheduler.sweeps import SILENT_EVERY_S
from botapi.store import codec
from botapi.store.protocol import Outage, join_key
from botapi.transactions.create_task import create_task
from botapi.transactions.hold_duty import hold_duty, leave_duty
from botapi.transactions.offer_lease import Waiting, offer_leases
from botapi.transactions.push_config import push_config
from botapi.transactions.update_bot import Stamp, update_bot
from botapi.transactions.update_task import Progress, update_task
from tests.factories import LOOPBACK_CFG, make_request, make_slice
from tests.scheduler.conftest import KEEP_MS, claim, connect

DEAD_S = 600 + 60
"""Death time-out and flush age with the default settings."""


@pytest.fixture
def sweeps(settings, store, clock, rng):
    parts = composition.build(settings, store, ThreadForm(), clock, rng)
    yield parts.sweeps
    parts.release()


def submit(store, clock, number=1, **more):
    request = make_request(number, now_ms=clock.now_ms(), **more)
    create_task(store, request, request_uuid="")
    return request


def task_of(store, request):
    (doc,) = store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc)


def bot_of(store, bot_id="vm1"):
    (doc,) = store.get(codec.BOT, join_key(bot_id))
    return codec.read_bot(doc)


def run(store, clock, bot_id="vm1", number=1, **more):
    """A task that this bot has claimed."""
    request = submit(store, clock, number, **more)
    connect(store, bot_id, clock.now_ms())
    claim(store, bot_id, request.task_id, clock.now_ms())
    assert task_of(store, request).state == "RUNNING"
    return request


def offer(store, clock, request, bot_id="vm1"):
    connect(store, bot_id, clock.now_ms())
    queue = task_of(store, request).pend_key.rsplit("!", 3)[0]
    waiting = [Waiting(bot_id, f"ls-{bot_id}", frozenset({queue}))]
    return offer_leases(store, [queue], waiting, clock.now_ms()).offers[bot_id]


def keys(store, kind):
    return store.scan_keys(kind, "", "\U0010ffff", limit=1_000)


def test_offer_comes_back_when_it_is_not_claimed_in_time(store, clock, sweeps):
    request = submit(store, clock)
    offer(store, clock, request)
    clock.advance(60)
    assert sweeps.round()["offers"] == 0
    clock.advance(0.001)
    assert sweeps.round()["offers"] == 1
    assert keys(store, codec.OFFER) == []
    (doc,) = store.get(codec.PEND, task_of(store, request).pend_key)
    assert codec.read_pending(doc).retry_count == 1


@pytest.mark.spec("7.5.1.1", "9.6.1.5")
def test_changed_files_of_the_configuration_are_taken_up_by_a_round(settings, store, sweeps):
    settings.config_dir.mkdir(parents=True)
    (settings.config_dir / "bots.cfg").write_text(LOOPBACK_CFG)
    sweeps.round()
    (change,) = store.scan(codec.AUDIT, "", "\U0010ffff", limit=9)
    assert (change.body["verb"], change.body["target"]) == ("config.apply", "bots.cfg")


@pytest.mark.spec("10.4.1.3", "13.1.18", "5.8.1.6")
def test_offer_dropped_four_times_ends_the_task(store, clock, sweeps):
    request = submit(store, clock)
    for _ in range(4):
        offer(store, clock, request)
        clock.advance(61)
        sweeps.round()
    task = task_of(store, request)
    assert (task.state, task.internal_failure, task.bot_id) == ("BOT_DIED", True, "vm1")
    assert task.error == "vm1 dropped the lease: not claimed within 60 s"
    assert keys(store, codec.PEND) == keys(store, codec.OFFER) == keys(store, codec.DUE) == []


@pytest.mark.spec("10.4.1.1", "9.6.1.2", "5.8.1.4", "9.5.1.9")
def test_slice_gives_way_to_the_next_and_the_last_one_expires(store, clock, sweeps):
    slices = [make_slice(expiration_s=10), make_slice(expiration_s=20, env={"A": "1"})]
    request = submit(store, clock, slices=slices)
    clock.advance(9.999)
    assert sweeps.round()["slices"] == 0
    clock.advance(0.001)
    assert sweeps.round()["slices"] == 1
    assert (task_of(store, request).state, task_of(store, request).slice_index) == ("PENDING", 1)
    assert len(keys(store, codec.PEND)) == len(keys(store, codec.DUE)) == 1
    clock.advance(22.5)
    assert sweeps.round()["slices"] == 1
    task = task_of(store, request)
    assert task.expiration_delay_ms == 2_500
    assert (task.state, task.completed_ms, task.abandoned_ms) == (
        "EXPIRED",
        clock.now_ms(),
        clock.now_ms(),
    )
    assert keys(store, codec.PEND) == keys(store, codec.DUE) == []


@pytest.mark.spec("10.4.p1")
def test_slices_whose_time_is_over_too_are_skipped(store, clock, sweeps):
    slices = [make_slice(expiration_s=10), make_slice(expiration_s=10), make_slice()]
    request = submit(store, clock, slices=slices)
    clock.advance(25)
    sweeps.round()
    assert task_of(store, request).slice_index == 2


@pytest.mark.spec("4.3.1.5")
def test_offered_slice_expires_and_its_claim_is_skipped(store, clock, sweeps):
    request = submit(store, clock, slices=[make_slice(expiration_s=10)])
    offer(store, clock, request)
    clock.advance(10)
    sweeps.round()
    assert task_of(store, request).state == "EXPIRED"
    assert claim(store, "vm1", request.task_id, clock.now_ms()).reason == "slice has expired"


def test_claimed_slice_never_expires(store, clock, sweeps):
    request = run(store, clock, slices=[make_slice(expiration_s=10)])
    clock.advance(11)
    assert sweeps.round()["slices"] == 0
    assert task_of(store, request).state == "RUNNING"


@pytest.mark.spec("5.6.2.1", "13.1.21")
@pytest.mark.parametrize(("late_s", "found"), [(0, 0), (0.001, 1)])
def test_bot_is_dead_when_it_was_silent_for_longer_than_the_limit(
    store, clock, sweeps, late_s, found
):
    run(store, clock)
    clock.advance(DEAD_S + late_s)
    assert sweeps.round()["bots"] == found


@pytest.mark.spec("5.6.2.1", "5.6.2.3", "9.6.1.1", "5.6.1.2", "9.2.1.17", "D.1.7")
def test_silent_bot_is_dead_and_its_run_with_it(store, clock, sweeps):
    request = run(store, clock)
    clock.advance(DEAD_S)
    assert sweeps.round()["bots"] == 0
    clock.advance(SILENT_EVERY_S)
    assert sweeps.round()["bots"] == 1
    task, bot = task_of(store, request), bot_of(store)
    assert (task.state, task.internal_failure, task.exit_code) == ("BOT_DIED", True, -1)
    assert (bot.dead, bot.task_id) == (True, request.task_id[:-1] + "1")
    clock.advance(SILENT_EVERY_S)
    assert sweeps.round()["bots"] == 0


@pytest.mark.spec("7.8.1.3")
@pytest.mark.parametrize(("said_s", "limit_s"), [(0, DEAD_S), (900, 900 + 60), (1, 390 + 60)])
def test_settings_say_how_long_a_bot_may_be_silent(store, clock, sweeps, said_s, limit_s):
    source = Source(LOOPBACK_CFG, {}, settings=f"bot_death_timeout_secs: {said_s}")
    push_config(store, source, parent="", author="test", now_ms=clock.now_ms())
    run(store, clock)
    clock.advance(limit_s)
    assert sweeps.round()["bots"] == 0
    clock.advance(SILENT_EVERY_S)
    assert sweeps.round()["bots"] == 1


@pytest.mark.spec("9.1.1.9", "5.6.2.1")
def test_bot_that_calls_is_not_dead(store, clock, sweeps):
    request = run(store, clock)
    for _ in range(10):
        clock.advance(200)
        sweeps.last_seen.touch("vm1", clock.now_ms(), is_run=True)
        sweeps.round()
    assert task_of(store, request).state == "RUNNING"
    assert not bot_of(store).dead


def test_only_bots_that_this_process_has_not_heard_are_read(store, clock, sweeps, monkeypatch):
    for number, bot_id in enumerate(("vm1", "vm2"), 1):
        run(store, clock, bot_id, number)
    clock.advance(DEAD_S - 1)
    sweeps.last_seen.touch("vm1", clock.now_ms())
    clock.advance(2)
    asked, get = [], store.get

    def read(kind, *keys):
        asked.append((kind, keys))
        return get(kind, *keys)

    monkeypatch.setattr(store, "get", read)
    assert sweeps.last_seen.flush() == 1
    asked.clear()
    monkeypatch.setattr(sweeps.last_seen, "flush", lambda **_: 0)
    assert sweeps._silent_bots(clock.now_ms()) == 1
    live = {key for kind, keys in asked if kind == codec.LIVE for key in keys}
    assert live == {codec.live_key("vm2")}
    assert (bot_of(store, "vm1").dead, bot_of(store, "vm2").dead) == (False, True)


def test_run_with_a_long_grace_period_is_waited_for_longer(store, clock, sweeps):
    request = run(store, clock, slices=[make_slice(grace_period_s=600)])
    clock.advance(300 + 600 + 60 + 60)
    sweeps.round()
    assert task_of(store, request).state == "RUNNING"
    clock.advance(SILENT_EVERY_S)
    sweeps.round()
    assert task_of(store, request).state == "BOT_DIED"


def test_downtime_of_the_server_is_not_a_bots_silence(store, clock, rng, settings):
    request = run(store, clock)
    clock.advance(5_000)
    sweeps = composition.build(settings, store, ThreadForm(), clock, rng).sweeps
    sweeps.round()
    clock.advance(DEAD_S)
    sweeps.round()
    assert task_of(store, request).state == "RUNNING"
    clock.advance(SILENT_EVERY_S)
    sweeps.round()
    assert task_of(store, request).state == "BOT_DIED"


def test_standing_still_is_not_a_bots_silence(store, clock, sweeps):
    request = run(store, clock)
    before_ms = clock.now_ms()
    clock.advance(5_000)
    sweeps.notice_pause(before_ms)
    sweeps.round()
    assert task_of(store, request).state == "RUNNING"
    sweeps.notice_pause(clock.now_ms())
    clock.advance(DEAD_S + 1)
    sweeps.round()
    assert task_of(store, request).state == "BOT_DIED"


class Away:
    """A store that is away while `is_away`."""

    def __init__(self, store):
        self._store = store
        self.is_away = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    def transact(self, *args, **more):
        if self.is_away:
            raise Outage("away")
        return self._store.transact(*args, **more)


def test_outage_of_the_store_is_not_a_bots_silence(store, clock, rng, settings):
    request = run(store, clock)
    away = Away(store)
    sweeps = composition.build(settings, away, ThreadForm(), clock, rng).sweeps
    away.is_away = True
    clock.advance(DEAD_S + 100)
    turns = iter([None, None])

    class TwoTurns:
        """The loop goes round once while the store is away, once when it is back."""

        def wait(self, _seconds):
            if next(turns, "over") == "over":
                sweeps.closed = True
            return False

    sweeps.wake = TwoTurns()
    sweeps.look = lambda: setattr(away, "is_away", False)
    sweeps.settings = replace(settings, sweep_s=0)
    sweeps.run()
    sweeps.round()
    assert task_of(store, request).state == "RUNNING"


@pytest.mark.spec("5.6.2.2", "9.6.1.4", "13.1.22", "D.1.7", "5.5.2.3")
def test_run_nobody_speaks_of_ends_while_its_bot_lives(store, clock, sweeps):
    request = run(store, clock, bot_ping_tolerance_s=100)
    for _ in range(8):
        clock.advance(20)
        sweeps.last_seen.touch("vm1", clock.now_ms())
        sweeps.round()
    assert task_of(store, request).state == "RUNNING"
    clock.advance(SILENT_EVERY_S)
    sweeps.last_seen.touch("vm1", clock.now_ms())
    assert sweeps.round()["runs"] == 1
    task = task_of(store, request)
    assert (task.state, task.error) == (
        "BOT_DIED",
        "the bot has said nothing of this run for too long",
    )
    assert not bot_of(store).dead
    clock.advance(SILENT_EVERY_S)
    assert sweeps.round()["runs"] == 0
    update_bot(store, "vm1", BotUpdate(EventKind.BOT_POLLING), Stamp(clock.now_ms(), "p", KEEP_MS))
    assert task_of(store, request) == task
    assert bot_of(store).task_id == ""


def test_fresh_run_is_not_judged_by_the_last_word_about_the_one_before(store, clock, sweeps):
    """Another process heard the claim and has not stored that yet."""
    connect(store, "vm1", clock.now_ms())
    sweeps.last_seen.touch("vm1", clock.now_ms(), is_run=True)
    for _ in range(30):
        clock.advance(100)
        sweeps.last_seen.touch("vm1", clock.now_ms())
    sweeps.last_seen.flush()
    request = run(store, clock, bot_ping_tolerance_s=1200)
    sweeps.round()
    assert task_of(store, request).state == "RUNNING"


def test_last_seen_of_two_processes_is_the_later_of_both(store, clock):
    one, two = LastSeen(store, 60), LastSeen(store, 60)
    one.touch("vm1", 1_000, state={"a": 1}, is_run=True)
    two.touch("vm1", 900, is_run=True)
    two.touch("vm1", 500_000, is_run=True)
    two.flush()
    one.touch("vm1", 400_000)
    one.flush()
    (doc,) = store.get(codec.LIVE, codec.live_key("vm1"))
    assert codec.read_live(doc) == LiveBot("vm1", 500_000, 500_000, {"a": 1})
    assert one.get("vm1")["vm1"] == two.get("vm1")["vm1"]


def test_flush_writes_a_bot_once_a_minute(store, clock):
    seen = LastSeen(store, 60)
    seen.touch("vm1", 1_000_000)
    assert (seen.flush(), seen.flush()) == (1, 0)
    seen.touch("vm1", 1_059_999)
    assert seen.flush() == 0
    seen.touch("vm1", 1_060_000)
    assert (seen.flush(), seen.flush(everything=True)) == (1, 0)
    seen.forget("vm1")
    assert seen.flush(everything=True) == 0


def test_state_of_a_bot_is_in_the_store_only_once_it_is_flushed(store):
    seen = LastSeen(store, 60)
    seen.touch("vm1", 1_000_000, state={"a": 1})
    seen.flush()
    seen.touch("vm1", 1_000_001)
    assert seen._live["vm1"].state is None
    assert seen.get("vm1")["vm1"] == LiveBot("vm1", 1_000_001, state={"a": 1})
    seen.flush(everything=True)
    (doc,) = store.get(codec.LIVE, codec.live_key("vm1"))
    assert codec.read_live(doc) == LiveBot("vm1", 1_000_001, state={"a": 1})


def test_state_that_came_while_the_last_one_was_flushed_is_kept(store, monkeypatch):
    seen = LastSeen(store, 60)
    seen.touch("vm1", 1_000_000, state={"a": 1})
    write = store.write_many

    def written(rows):
        write(rows)
        seen.touch("vm1", 1_000_001, state={"a": 2})

    monkeypatch.setattr(store, "write_many", written)
    seen.flush()
    assert seen.get("vm1")["vm1"].state == {"a": 2}


def test_bot_nobody_hears_of_again_is_found_even_if_it_was_never_stored(store, clock, sweeps):
    """The process that heard it ended before it stored what it had seen."""
    request = run(store, clock)
    clock.advance(DEAD_S + 1)
    sweeps.round()
    assert task_of(store, request).state == "BOT_DIED"


def test_late_output_and_completion_change_nothing_after_death(store, clock, sweeps):
    request = run(store, clock)
    clock.advance(DEAD_S + 1)
    sweeps.round()
    before = task_of(store, request)
    progress = Progress("vm1", "vm1/1", request.task_id, 0, b"late", None, "", True, 10**9)
    stamp = Stamp(clock.now_ms(), "late", KEEP_MS)
    assert update_task(store, progress, stamp).must_stop == "the task has ended: BOT_DIED"
    from botapi.domain.completion import EndedBy, Ending

    ended = replace(progress, ending=Ending(EndedBy.BOT, 0, 1.0))
    assert update_task(store, ended, stamp).task == task_of(store, request)
    after = task_of(store, request)
    assert after.late_bytes == len(b"late")
    assert replace(after, late_bytes=0, late_pieces=before.late_pieces) == before
    assert bot_of(store).task_id == ""
    assert store.scan_keys(codec.OUT, *codec.output_range(request.task_id), limit=9) == []


def test_old_tasks_and_their_output_go_and_running_ones_stay(store, clock, sweeps, settings):
    old = run(store, clock, number=1)
    going = run(store, clock, "vm2", number=2)
    for number in range(250):
        progress = Progress("vm1", "vm1/1", old.task_id, 3 * number, b"abc", None, "", True, 10**9)
        update_task(store, progress, Stamp(clock.now_ms(), f"e{number}", KEEP_MS))
    update_bot(store, "vm1", BotUpdate(EventKind.BOT_SHUTDOWN), Stamp(clock.now_ms(), "x", KEEP_MS))
    assert task_of(store, old).state == "BOT_DIED"
    clock.advance(settings.task_retention_days * 86_400 - 10)
    sweeps.last_seen.touch("vm2", clock.now_ms(), is_run=True)
    assert sweeps.round()["tasks"] == 0
    clock.advance(100)
    sweeps.last_seen.touch("vm2", clock.now_ms(), is_run=True)
    assert sweeps.round()["tasks"] == 1
    assert keys(store, codec.TASK) == keys(store, codec.REQ) == [codec.task_key(going.task_id)]
    assert keys(store, codec.OUT) == keys(store, codec.OUTPOS) == []


@pytest.mark.spec("9.6.1.9", "13.1.49")
def test_old_events_go(store, clock, sweeps):
    connect(store, "vm1", clock.now_ms())
    assert len(keys(store, codec.EVENT)) == 1
    clock.advance(KEEP_MS / 1000 - 60.001)
    sweeps.last_seen.touch("vm1", clock.now_ms())
    assert sweeps.round()["expired"] == 0
    clock.advance(60.001)
    sweeps.last_seen.touch("vm1", clock.now_ms())
    assert sweeps.round()["expired"] == 1
    assert keys(store, codec.EVENT) == []


def test_pending_task_in_no_queue_is_put_back(store, clock, sweeps, caplog):
    request = submit(store, clock)
    offered = submit(store, clock, 2)
    key = task_of(store, request).pend_key
    store.transact(lambda txn: txn.delete(codec.PEND, key), label="test")
    offer(store, clock, offered)
    assert sweeps.round()["repairs"] == 1
    assert keys(store, codec.PEND) == [key]
    assert f"task {request.task_id} was pending and in no queue" in caplog.text
    clock.advance(61)
    assert sweeps.round()["repairs"] == 0


def test_duty_has_one_holder_and_its_number_grows_with_each_change(store):
    def hold(holder, now_ms):
        return hold_duty(store, "d", holder, now_ms=now_ms, for_ms=100)

    assert hold("a", 0) == 1
    assert hold("b", 50) is None
    assert hold("a", 90) == 1
    assert hold("b", 189) is None
    assert hold("b", 190) == 2
    assert hold("a", 200) is None
    leave_duty(store, "d", "a")
    assert hold("a", 200) is None
    leave_duty(store, "d", "b")
    assert hold("a", 200) == 3


def test_only_the_holder_of_the_duty_sweeps(store, clock, rng, settings):
    one = composition.build(settings, store, ThreadForm(), clock, rng).sweeps
    two = composition.build(settings, store, ThreadForm(), clock, rng).sweeps
    assert one.round()
    assert two.round() == {}
    one.close()
    assert two.round()
