"""The next held call of a bot to which nothing has happened asks the store nothing."""

import threading
from dataclasses import replace

import pytest

from botapi.scheduler.idle_bots import BETWEEN_S, LEASE_REST_S, REST_S
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.cancel_task import Actor
from botapi.transactions.delete_bot import delete_bot
from botapi.transactions.lease_session import close_lease_session
from botapi.transactions.offer_lease import Offered, offer_leases
from botapi.transactions.steer_bot import Steer, steer_bot
from tests.handlers.configs import ASLEEP, configure
from tests.handlers.test_life_of_a_bot import submit

ADMIN = Actor("admin", "why", "entry")
HAPPENINGS = {
    "a poll with news": lambda bot, parts: bot.poll(dimensions=bot.dims | {"os": ["BeOS"]}),
    "an event": lambda bot, parts: bot.call("/event", event="bot_log", message="hm"),
    "a call with a status": lambda bot, parts: bot.update("MAINTENANCE"),
    "a handshake": lambda bot, parts: bot.handshake(session_id="another"),
    "another bot is steered": lambda bot, parts: steer_bot(
        parts.store, "vm2", Steer.PAUSE, ADMIN, now_ms=parts.clock.now_ms()
    ),
    "hints were lost": lambda bot, parts: parts.offers._hear("*"),
    "it came late": lambda bot, parts: parts.clock.advance(BETWEEN_S + 0.01),
}


@pytest.fixture
def settings(settings):
    return replace(settings, hold_min_s=0.01, hold_max_s=0.01)


@pytest.fixture
def bot(make_bot):
    """A bot whose first held call has ended."""
    bot = make_bot().start()
    assert bot.update(nonblocking=False)["status"] == "OK"
    return bot


@pytest.fixture
def asked(bot, store, monkeypatch):
    """The kinds of document about the bot that were read since."""
    kinds, get = [], store.get

    def read(kind, *keys):
        if kind in {codec.BOT, codec.LSESSION, codec.OFFER, codec.LIVE}:
            kinds.append(kind)  # and not configuration and keys, which are looked at now and then
        return get(kind, *keys)

    monkeypatch.setattr(store, "get", read)
    return kinds


def wait(bot, **more):
    return bot.update(nonblocking=False, **more)


def test_next_held_call_asks_the_store_nothing(bot, asked, clock):
    for _ in range(3):
        clock.advance(40)
        bot.update(nonblocking=False)
        clock.advance(BETWEEN_S)
        asked.clear()
        assert wait(bot) == {"session": bot.session, "status": "OK"}
        assert asked == []


def test_poll_that_finds_nothing_new_changes_nothing(bot, asked):
    assert bot.poll()["cmd"] == "rbe"
    wait(bot)
    asked.clear()
    assert bot.poll()["cmd"] == "rbe"
    asked.clear()
    wait(bot)
    assert asked == []


@pytest.mark.parametrize("what", HAPPENINGS)
def test_store_is_asked_when_something_may_have_happened(bot, asked, parts, make_bot, what):
    make_bot("vm2").start()
    wait(bot)
    session = bot.session
    HAPPENINGS[what](bot, parts)
    bot.session = session
    asked.clear()
    wait(bot)
    assert codec.BOT in asked


def test_call_that_does_not_wait_asks_the_store(bot, asked):
    bot.update()
    assert codec.BOT in asked


def test_store_is_asked_again_after_a_while(bot, asked, clock):
    calls = 0
    while codec.BOT not in asked:
        calls += 1
        clock.advance(BETWEEN_S)
        wait(bot)
    assert calls == REST_S // BETWEEN_S + 1


def test_poll_that_finds_nothing_new_counts_as_having_asked(bot, asked, clock):
    since_s = 0.0
    while since_s < LEASE_REST_S - 2 * BETWEEN_S:
        since_s += BETWEEN_S
        clock.advance(BETWEEN_S)
        bot.poll()
        asked.clear()
        wait(bot)
        assert asked == []
    for _ in range(3):
        clock.advance(BETWEEN_S)
        wait(bot)
    assert codec.LSESSION in asked, "its lease session is asked for now and then"


def test_poll_that_finds_the_bot_changed_elsewhere_has_the_store_asked(bot, asked, parts):
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    changed = replace(codec.read_bot(doc), dimensions=(*codec.read_bot(doc).dimensions, "x:y"))
    put = codec.bot_doc(changed, doc)
    parts.store.transact(lambda txn: txn.put(codec.BOT, put), label="another process")
    bot.dims["x"] = ["y"]
    bot.poll()
    asked.clear()
    wait(bot)
    assert codec.BOT in asked


def test_hint_that_comes_while_a_poll_reads_the_bot_has_the_store_asked(
    bot, asked, parts, monkeypatch
):
    confirm = parts.offers.idle.confirm

    def late(stored, hints):
        parts.offers.idle.hear()
        confirm(stored, hints)

    monkeypatch.setattr(parts.offers.idle, "confirm", late)
    bot.poll()
    asked.clear()
    wait(bot)
    assert codec.BOT in asked


def test_bot_that_is_steered_is_told_at_its_next_call(bot, parts):
    steer_bot(parts.store, "vm1", Steer.PAUSE, ADMIN, now_ms=parts.clock.now_ms())
    assert wait(bot, skep={})["status"] == "BOT_TERMINATING"
    steer_bot(parts.store, "vm1", Steer.RESUME, replace(ADMIN, entry_id="2"), now_ms=1)
    bot.open_lease_session()
    assert wait(bot, skep={})["skep"] == {"poll": True}


def test_bot_is_told_to_poll_and_given_nothing_while_all_are_to_sleep(bot, parts):
    configure(parts, settings=ASLEEP)
    parts.config.latest()
    submit(parts)
    reply = wait(bot, skep={})
    assert (reply["skep"], "lease" in reply) == ({"poll": True}, False)


def test_bot_that_was_deleted_is_not_known_any_more(bot, parts):
    delete_bot(parts.store, "vm1", ADMIN, parts.bots.stamp(_now(parts)))
    wait(bot)
    assert bot.status == 403


def test_held_call_of_a_bot_that_is_deleted_ends(bot, parts):
    parts.offers.begin("vm1", "ls", frozenset(), 60.0)
    (waiter,) = parts.offers._waiters.values()
    delete_bot(parts.store, "vm1", ADMIN, parts.bots.stamp(_now(parts)))
    assert waiter.done.is_set()


def test_offer_whose_commit_was_not_answered_is_found_by_a_later_call(bot, parts, monkeypatch):
    made = threading.Event()

    def offer_and_lose_the_answer(*args):
        if not made.is_set():
            assert offer_leases(*args).offers
        made.set()
        return Offered({}, {}, frozenset(), frozenset())

    monkeypatch.setattr("botapi.scheduler.offers.offer_leases", offer_and_lose_the_answer)
    request = submit(parts)
    while not made.is_set():
        assert "lease" not in wait(bot)
    replies = [wait(bot) for _ in range(3)]
    (found, *_) = [reply["lease"] for reply in replies if "lease" in reply]
    assert found["payload"]["task_id"] == request.task_id


def test_task_that_comes_while_nothing_was_read_is_given_to_the_bot(bot, asked, parts):
    wait(bot)
    assert asked == []
    submit(parts)
    assert bot.next_lease()["state"] == "PENDING"


def test_lease_session_that_was_closed_elsewhere_ends_once_the_store_is_asked(bot, parts, clock):
    (doc,) = parts.store.get(codec.LSESSION, join_key("vm1"))
    session = codec.read_lease_session(doc)
    close_lease_session(parts.store, "vm1", session.lease_session_id)
    assert wait(bot)["status"] == "OK"
    clock.advance(BETWEEN_S + 1)
    assert wait(bot)["status"] == "BOT_TERMINATING"


def test_store_without_hints_is_asked_at_every_call(bot, asked, parts):
    parts.offers.idle._hears = False
    wait(bot)
    asked.clear()
    wait(bot)
    assert codec.BOT in asked


def _now(parts):
    return type("Call", (), {"now_ms": parts.clock.now_ms(), "request_id": "r"})
