"""A call is judged by the bot as it was when it came; the change looks at the bot as it is."""

from dataclasses import replace

import pytest

from botapi.concurrency import Threads
from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind
from botapi.store import codec
from botapi.store.memory import MemoryStore
from botapi.store.protocol import join_key
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.create_task import create_task
from botapi.transactions.update_bot import Stamp, update_bot
from tests.factories import make_request
from tests.scheduler.conftest import KEEP_MS, claim, connect

NOW_MS = 1_772_604_367_089


@pytest.fixture
def store(clock, rng):
    store = MemoryStore(Threads(), clock, rng)
    yield store
    store.close()


def say(store, kind, session, dedup_key, seq=0, **changes):
    call = CallInfo(session, "127.0.0.1", "bot:test", "v1")
    update = BotUpdate(kind, dedup_key=dedup_key, call=call, seq=seq, changes=changes)
    return update_bot(store, "vm1", update, Stamp(NOW_MS + 1, f"e-{dedup_key}", KEEP_MS))


@pytest.fixture
def run(store):
    """A run of the session `vm1/1`, claimed by its first call."""
    connect(store, "vm1", NOW_MS)
    request = make_request(now_ms=NOW_MS)
    create_task(store, request, request_uuid="")
    claim(store, "vm1", request.task_id, NOW_MS)
    return request


def state_of(store, request):
    (doc,) = store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc).state


def bot_of(store):
    (doc,) = store.get(codec.BOT, join_key("vm1"))
    return codec.read_bot(doc)


def test_late_copy_of_a_handshake_does_not_abandon_the_run(store, run):
    say(store, EventKind.BOT_IDLE, "vm1/1", "between", seq=1)
    request = make_request(2, now_ms=NOW_MS)
    create_task(store, request, request_uuid="")
    claim(store, "vm1", request.task_id, NOW_MS)
    bot = say(store, EventKind.BOT_CONNECTED, "vm1/1", "vm1/1", claim_seq=0)
    assert state_of(store, request) == "RUNNING"
    assert bot.claim_seq == 1


def test_late_copy_of_a_handshake_does_not_take_the_id_back(store, run):
    say(store, EventKind.BOT_CONNECTED, "vm1/2", "vm1/2")
    bot = say(store, EventKind.BOT_CONNECTED, "vm1/1", "vm1/1")
    assert bot.session_id == "vm1/2"
    assert bot.past_sessions == ("vm1/1",)


@pytest.mark.parametrize(
    "kind", [EventKind.BOT_IDLE, EventKind.BOT_LOG, EventKind.BOT_SHUTDOWN, EventKind.BOT_REBOOTING]
)
def test_late_call_of_an_older_session_changes_nothing(store, run, kind):
    before = say(store, EventKind.BOT_CONNECTED, "vm1/2", "vm1/2")
    assert say(store, kind, "vm1/1", "late") == before


def test_late_poll_from_before_the_claim_does_not_abandon_the_run(store, run):
    say(store, EventKind.BOT_LOG, "vm1/1", "numbered", claim_seq=9)  # as a claim leaves it
    say(store, EventKind.BOT_IDLE, "vm1/1", "late", seq=8)
    assert state_of(store, run) == "RUNNING"
    say(store, EventKind.BOT_IDLE, "vm1/1", "new", seq=10)
    assert state_of(store, run) == "BOT_DIED"


def test_bot_that_comes_back_is_not_buried_for_its_old_silence(store, run):
    (old,), judged = store.get(codec.LIVE, codec.live_key("vm1")), bot_of(store)
    say(store, EventKind.BOT_CONNECTED, "vm1/2", "vm1/2")
    stamp = Stamp(NOW_MS + 100_000, "missing", KEEP_MS)
    assert not bot_missing(store, codec.read_live(old), judged, stamp)


def test_bot_that_has_claimed_meanwhile_is_not_buried(store, run):
    (live,) = store.get(codec.LIVE, codec.live_key("vm1"))
    stamp = Stamp(NOW_MS + 100_000, "missing", KEEP_MS)
    bot = bot_of(store)
    assert not bot_missing(store, codec.read_live(live), replace(bot, task_id=""), stamp)
    assert state_of(store, run) == "RUNNING"
    assert bot_missing(store, codec.read_live(live), bot, stamp)
