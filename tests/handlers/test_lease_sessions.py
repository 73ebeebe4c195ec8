"""The lease channel, row by row (bot-api 1.11 and 3.5)."""

import threading
from dataclasses import replace

import pytest

from botapi.bot_call import FRESH_MS
from botapi.handlers.rbe_session import LEASE_IDLE_MS
from botapi.settings import Settings, SettingsError, load
from botapi.store import codec
from botapi.store.protocol import Outage, join_key
from tests.handlers.configs import SERIAL, configure, group
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.transactions.stores import dump


def session_of(parts, bot):
    return parts.bots.session_of(bot.session)


def lease_session(parts):
    (doc,) = parts.store.get(codec.LSESSION, join_key("vm1"))
    return codec.read_lease_session(doc)


@pytest.fixture
def held(parts, monkeypatch):
    """For how many seconds each call was willing to wait."""
    seen = []
    begin = parts.offers.begin

    def watch(bot_id, lease_session_id, dimensions, timeout_s, **more):
        seen.append(timeout_s)
        return begin(bot_id, lease_session_id, dimensions, 0.0, **more)

    monkeypatch.setattr(parts.offers, "begin", watch)
    return seen


@pytest.mark.spec("1.11.p1", "1.11.p2", "1.11.1.1", "1.1.1.15", "3.5.1.4", "2.6.1.5")
def test_create_puts_the_lease_session_into_the_token(parts, clock, make_bot):
    bot = make_bot()
    bot.handshake()
    bot.poll()
    before = stored_bot(parts)
    clock.advance(100)
    reply = bot.open_lease_session()
    assert sorted(reply) == ["session", "session_id"]
    assert reply["session_id"]
    session = session_of(parts, bot)
    assert session.rbe_bot_session_id == reply["session_id"]
    assert session.expiry_ms == clock.now_ms() + 3_600_000
    assert stored_bot(parts) == before
    stored = lease_session(parts)
    assert (stored.lease_session_id, stored.opened_ms) == (reply["session_id"], clock.now_ms())


@pytest.mark.spec("1.11.p2", "2.1.3.6")
def test_create_is_refused_when_the_session_names_no_instance(parts, bot):
    session = session_of(parts, bot)
    config = replace(session.bot_config, rbe_instance="")
    bot.session = parts.bots.token(replace(session, bot_config=config))
    bot.open_lease_session()
    line = "rpc error: code = InvalidArgument desc = this bot's session names no RBE instance\n"
    assert (bot.status, bot.text) == (400, line)


@pytest.mark.spec("1.11.1.2", "1.11.1.3", "1.11.2.8")
@pytest.mark.parametrize("path", ["/rbe/session/create", "/rbe/session/update"])
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"bot_version": "linux_amd64_swarming/557c"}, 200),
        ({"worker_properties": {"pool_id": "p", "pool_version": "1"}}, 200),
        ({"worker_properties": {"pool_id": "p", "more": 5}}, 200),
        ({"worker_properties": {}, "bot_version": None}, 200),
        ({"bot_version": 5}, 400),
        ({"worker_properties": "p"}, 400),
        ({"worker_properties": {"pool_id": 5}}, 400),
    ],
)
def test_properties_of_a_worker_are_read_and_only_their_types_count(bot, path, more, status):
    bot.call(path, status="OK", nonblocking=True, **more)
    assert bot.status == status, bot.text


@pytest.mark.spec("1.11.2.2", "1.11.3.1", "1.11.3.2", "1.11.3.3")
@pytest.mark.parametrize("status", ["OK", "UNHEALTHY", "INITIALIZING", "MAINTENANCE"])
def test_update_without_work_has_a_status_and_no_lease_key(clock, bot, status):
    clock.advance(90)
    before = bot.session
    reply = bot.update(status)
    assert sorted(reply) == ["session", "status"]
    assert (reply["status"], reply["session"] != before) == ("OK", True)


@pytest.mark.spec("2.6.1.5", "2.1.2.3")
def test_update_refreshes_the_session_and_keeps_the_rest(parts, clock, bot):
    before = session_of(parts, bot)
    clock.advance(120)
    bot.update()
    after = session_of(parts, bot)
    assert after.expiry_ms == clock.now_ms() + 3_600_000
    assert after == replace(before, expiry_ms=after.expiry_ms, debug_info=after.debug_info)


@pytest.mark.spec("1.11.5.1", "1.11.5.2", "1.11.5.3", "1.11.5.4", "1.11.5.5", "3.5.1.5", "D.1.1")
def test_lease_carries_what_a_claim_needs(parts, bot):
    request = submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    name = f"local-{request.task_id}-0-0"
    shard = lease["payload"]["task_to_run_shard"]
    assert lease == {
        "id": name,
        "state": "PENDING",
        "payload": {
            "reservation_id": name,
            "task_id": request.task_id,
            "slice_index": 0,
            "task_to_run_shard": shard,
            "task_to_run_id": 1,
        },
    }
    assert 0 <= shard < 16
    assert stored_task(parts, request).state == "PENDING"


@pytest.mark.spec("1.11.4.1", "3.5.1.6", "3.5.1.8")
def test_bot_has_one_offer_at_a_time_and_claims_it_by_its_lease_id(parts, bot):
    submit(parts, 1)
    submit(parts, 2)
    lease = bot.update(nonblocking=False)["lease"]
    assert bot.update(nonblocking=False)["lease"] == lease
    assert len(parts.store.scan(codec.OFFER, "", "~", limit=9)) == 1
    assert bot.claim(lease)["cmd"] == "run"


@pytest.mark.spec("1.11.2.3", "13.1.16")
def test_update_is_held_when_the_bot_is_free_and_not_otherwise(parts, bot, held, make_bot):
    settings = parts.bots.settings
    lease = {"id": "local-76d00eba71beef10-0-0"}
    bot.update(nonblocking=False)
    bot.update(nonblocking=False, lease={**lease, "state": "COMPLETED"})
    assert held == [settings.hold_min_s] * 2
    bot.update(nonblocking=True)
    assert held[2:] == [0.0]
    bot.update(nonblocking=False, lease={**lease, "state": "ACTIVE"})
    for status in ("UNHEALTHY", "INITIALIZING", "MAINTENANCE"):
        bot.update(status, nonblocking=False)
        bot.update(status, nonblocking=False, lease={**lease, "state": "ACTIVE"})
    assert len(held) == 3


@pytest.mark.spec("13.1.16", "3.5.1.15")
def test_calls_are_held_for_less_than_a_bot_reads():
    defaults = Settings()
    assert (defaults.hold_min_s, defaults.hold_max_s) == (40.0, 45.0)
    assert load({"SKEP_HOLD_MAX_S": "50"}).hold_max_s == 50
    with pytest.raises(SettingsError, match="from 0 s to 50 s"):
        load({"SKEP_HOLD_MAX_S": "50.1"})


@pytest.mark.spec("1.11.2.3")
@pytest.mark.parametrize(("ours", "expected"), [(True, 0.0), (False, 10.0)])
def test_bot_that_had_better_poll_is_not_held_long_nor_asked_in_a_loop(
    parts, make_bot, held, monkeypatch, ours, expected
):
    bot = make_bot(ours=ours).start()
    configure(parts, bots=group('dimensions: "zone:eu"'))
    object.__setattr__(parts.bots, "settings", replace(parts.bots.settings, hold_min_s=40.0))
    bot.update(nonblocking=False)
    assert held == [expected]


@pytest.mark.spec("1.11.4.1", "3.5.1.5")
def test_held_call_returns_when_work_comes(parts, bot):
    timer = threading.Timer(0.05, submit, [parts])
    timer.start()
    assert bot.update(nonblocking=False)["lease"]["state"] == "PENDING"
    timer.join()


@pytest.mark.spec("1.11.4.2", "1.11.2.4", "3.5.1.11")
def test_held_call_is_answered_ok_when_the_store_goes_away_meanwhile(parts, bot, monkeypatch):
    def away(*_args, **_more):
        raise Outage("gone")

    def end(_waiter):
        monkeypatch.setattr(parts.store, "get", away)
        monkeypatch.setattr(parts.config, "cached", away)

    begin = parts.offers.begin
    monkeypatch.setattr(parts.offers, "begin", lambda *call, **more: begin(*call[:3], 0.0, **more))
    monkeypatch.setattr(parts.offers, "end", end)
    reply = bot.update(nonblocking=False, skep={})
    assert sorted(reply) == ["session", "status"]
    assert reply["status"] == "OK"


def test_active_lease_is_answered_active_then_cancelled_then_lost(parts, bot):
    request = submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    active = {"id": lease["id"], "state": "ACTIVE"}
    run_id = bot.claim(lease)["task_id"]
    assert bot.update(lease=active)["lease"] == active
    key = codec.task_key(request.task_id)
    (doc,) = parts.store.get(codec.TASK, key)
    killed = codec.task_doc(replace(codec.read_task(doc), killing=True), doc)
    parts.store.transact(lambda txn: txn.put(codec.TASK, killed), label="test")
    assert bot.update(lease=active)["lease"] == {"id": lease["id"], "state": "CANCELLED"}
    bot.finish(run_id, exit_code=1)
    assert "lease" not in bot.update(lease=active)


@pytest.mark.spec("1.11.4.3")
@pytest.mark.parametrize(
    "status", ["UNHEALTHY", "INITIALIZING", "MAINTENANCE", "HOST_REBOOTING", "BOT_TERMINATING"]
)
def test_bot_that_is_not_ok_never_gets_a_lease(parts, bot, status):
    submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    active = {"id": lease["id"], "state": "ACTIVE"}
    for more in ({}, {"lease": active}):
        assert "lease" not in bot.update(status, nonblocking=False, **more)


@pytest.mark.spec("1.11.2.7", "3.5.1.9", "3.5.1.10")
@pytest.mark.parametrize(
    "result", [{"skip_reason": "no"}, {"bot_internal_error": "no"}, {}, None, {"other": 1}]
)
def test_completed_lease_that_was_not_claimed_is_free_for_others(parts, bot, make_bot, result):
    request = submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    done = {"id": lease["id"], "state": "COMPLETED", "result": result}
    assert "lease" not in bot.update("MAINTENANCE", lease=done)
    assert parts.store.scan(codec.OFFER, "", "~", limit=9) == []
    other = make_bot("vm2").start().update(nonblocking=False)["lease"]
    assert other["payload"]["task_id"] == request.task_id
    before = dump(parts.store)
    bot.update("MAINTENANCE", lease=done)
    assert dump(parts.store) == before


@pytest.mark.spec("1.11.2.7")
@pytest.mark.parametrize("result", ["x", [], {"skip_reason": 5}, {"bot_internal_error": {}}])
def test_result_of_a_wrong_type_is_refused(parts, bot, result):
    before = dump(parts.store)
    bot.update(lease={"id": "x", "state": "COMPLETED", "result": result})
    assert bot.status == 400
    assert bot.text.startswith("rpc error: code = InvalidArgument desc = body: Expected ")
    assert dump(parts.store) == before


@pytest.mark.spec("3.5.1.12", "1.11.3.2")
@pytest.mark.parametrize("status", ["HOST_REBOOTING", "BOT_TERMINATING"])
def test_closing_call_is_answered_ok_and_later_ones_that_it_ended(parts, bot, status):
    reply = bot.update(status)
    assert (reply["status"], "lease" in reply) == ("OK", False)
    assert lease_session(parts).closed
    for again in ("OK", status):
        reply = bot.update(again)
        assert (reply["status"], "lease" in reply) == ("BOT_TERMINATING", False)
    bot.open_lease_session()
    assert bot.update()["status"] == "OK"


@pytest.mark.spec("3.5.1.14", "3.5.1.13", "1.11.3.2")
def test_lease_session_ends_when_its_bot_was_silent_for_too_long(parts, clock, bot, make_bot):
    """The token was young at the last call, so that it was given back as it was."""
    clock.advance(FRESH_MS / 1000 - 1)
    assert bot.update()["status"] == "OK"
    clock.advance(LEASE_IDLE_MS / 1000)
    assert bot.update()["status"] == "OK"
    submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    clock.advance((LEASE_IDLE_MS + FRESH_MS) / 1000 + 0.001)
    reply = bot.update()
    assert (reply["status"], "lease" in reply) == ("BOT_TERMINATING", False)
    assert bot.update()["status"] == "BOT_TERMINATING"
    again = make_bot("vm2").start().update(nonblocking=False)["lease"]
    assert again["payload"]["task_id"] == lease["payload"]["task_id"]
    bot.open_lease_session()
    assert bot.update()["status"] == "OK"


@pytest.mark.spec("1.11.3.2")
def test_bot_that_was_renamed_is_unhealthy_until_it_opens_another_session(parts, make_bot):
    configure(parts, pools=SERIAL)
    bot = make_bot(dims={"serial": ["7"]}).start()
    submit(parts)
    assert lease_session(parts).effective_bot_id == "default:serial:7"
    bot.dims["serial"] = ["8"]
    assert bot.poll()["cmd"] == "rbe"
    reply = bot.update(nonblocking=False)
    assert (reply["status"], "lease" in reply) == ("UNHEALTHY", False)
    assert bot.update()["status"] == "BOT_TERMINATING"
    bot.open_lease_session()
    assert bot.update(nonblocking=False)["lease"]["state"] == "PENDING"


@pytest.mark.spec("1.11.3.2")
def test_session_opened_before_the_first_poll_is_not_taken_for_a_renamed_bot(parts, make_bot):
    bot = make_bot()
    bot.handshake()
    bot.open_lease_session()
    bot.poll()
    assert bot.update()["status"] == "OK"


@pytest.mark.spec("1.1.2.9")
def test_lease_calls_leave_no_event_and_do_not_count_as_being_heard_of(parts, clock, bot):
    before, seen_ms = events_of(parts), parts.last_seen.get("vm1")["vm1"].seen_ms
    clock.advance(30)
    bot.open_lease_session()
    bot.update()
    assert events_of(parts) == before
    assert parts.last_seen.get("vm1")["vm1"].seen_ms == seen_ms
