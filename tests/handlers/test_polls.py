"""The poll: its facts in their order, its commands, what it stores (bot-api 3, 2.6, 6, 7.5)."""

import logging
from dataclasses import replace

import pytest

from botapi.domain.bot_groups import handshake_config_hash
from botapi.handlers.poll import MAX_DIMENSION_VALUES
from botapi.store import codec
from botapi.store.protocol import join_key
from tests.handlers.configs import ASLEEP, POOLS, SERIAL, configure, group
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.transactions.stores import dump


def session_of(parts, bot):
    return parts.bots.session_of(bot.session)


def live(parts, bot_id="vm1"):
    return parts.last_seen.get(bot_id)[bot_id]


def change(parts, **more):
    """Store the bot with these fields changed."""
    doc = codec.bot_doc(replace(stored_bot(parts), **more))
    parts.store.transact(lambda txn: txn.put(codec.BOT, doc), label="test")


def run_a_task(parts, bot):
    request = submit(parts)
    return request, bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]


@pytest.mark.spec("1.4.p1", "1.4.1.1", "3.3.1.2", "3.2.1.8", "3.5.1.3", "1.1.1.6")
def test_healthy_bot_is_told_to_lease(parts, bot):
    reply = bot.poll()
    assert sorted(reply) == ["cmd", "rbe", "session", "skep"]
    assert reply["cmd"] == "rbe"
    assert reply["rbe"] == {
        "instance": "projects/local/instances/default",
        "hybrid_mode": False,
        "sleep": 0,
        "poll_token": "legacy",
    }
    bot.ours = False
    assert sorted(bot.poll()) == ["cmd", "rbe", "session"]


@pytest.mark.spec("3.2.1.8", "1.1.2.2")
@pytest.mark.parametrize(
    ("idle", "event"),
    [(True, "bot_idle"), (False, "bot_polling"), (1, "bot_polling"), ("true", "bot_polling")],
)
def test_poll_leaves_the_event_that_rbe_idle_asks_for(parts, bot, idle, event):
    bot.poll(dimensions={**bot.dims, "new": ["1"]}, state={"rbe_idle": idle, **bot.state})
    assert events_of(parts)[-1] == event


@pytest.mark.spec("3.1.1.3", "6.2.1.4")
def test_session_names_the_bot_and_not_the_dimension(parts, bot):
    bot.poll(dimensions={**bot.dims, "id": ["vm2"]})
    assert 'the session belongs to "vm1"' in stored_bot(parts).quarantined
    assert parts.store.get(codec.BOT, join_key("vm2")) == [None]


@pytest.mark.spec("3.1.1.5")
def test_poll_is_checked_against_the_group_as_it_is_now(parts, bot):
    configure(parts, bots=group(auth="auth { require_enrolled_secret: true }"))
    before = dump(parts.store)
    bot.poll()
    assert bot.status == 401
    assert dump(parts.store) == before
    bot.call("/event", event="bot_log")
    assert bot.status == 200, "the other calls go by the snapshot in the session"


@pytest.mark.spec("0.4.1.9", "2.1.2.5", "2.1.3.3", "7.5.1.4")
def test_calls_are_checked_against_the_snapshot_until_a_poll_takes_the_new_one(parts, bot):
    configure(parts, bots=group('system_service_account: "a@b.cd"\nlogs_cloud_project: "logs"'))
    bot.call("/event", event="bot_log")
    assert session_of(parts, bot).bot_config.system_service_account == ""
    assert bot.poll()["cmd"] == "rbe"
    config = session_of(parts, bot).bot_config
    assert (config.system_service_account, config.logs_cloud_project) == ("a@b.cd", "logs")


@pytest.mark.spec("0.4.1.9")
def test_call_is_refused_when_its_address_left_the_list_of_the_snapshot(parts, bot):
    settings = 'ip_allowlist { name: "bots" subnet: "127.0.0.0/8" }\n'
    configure(parts, bots=group(auth='auth { ip_whitelist: "bots" }'), settings=settings)
    assert bot.poll()["cmd"] == "rbe"
    configure(
        parts,
        bots=group(auth='auth { ip_whitelist: "bots" }'),
        settings=settings.replace("127", "10"),
    )
    bot.call("/event", event="bot_log")
    assert bot.status == 401


@pytest.mark.spec("3.1.1.4", "2.7.p1")
def test_poll_with_a_token_of_a_later_configuration_loads_it_first(parts, bot, monkeypatch):
    old = parts.config.cached()
    configure(parts, bots=group('logs_cloud_project: "new"'))
    new = parts.config.latest()
    assert new.fetched_ms > old.fetched_ms
    bot.session = parts.bots.token(
        replace(session_of(parts, bot), last_seen_config_ms=new.fetched_ms)
    )
    monkeypatch.setattr(type(parts.config), "cached", lambda _self: old)
    bot.poll()
    assert session_of(parts, bot).bot_config.logs_cloud_project == "new"


@pytest.mark.spec("2.7.p1", "2.1.2.8")
def test_poll_with_an_older_token_is_content_with_what_is_cached(parts, bot, monkeypatch):
    def latest(_self):
        raise AssertionError("the store was asked")

    monkeypatch.setattr(type(parts.config), "latest", latest)
    assert bot.poll()["cmd"] == "rbe"
    assert session_of(parts, bot).last_seen_config_ms == parts.config.cached().fetched_ms


@pytest.mark.spec("3.1.1.7", "1.4.1.2")
def test_poll_stores_the_dimensions_under_the_word_of_the_group(parts, bot):
    bot.poll(dimensions={"id": ["vm1"], "pool": ["mine", "yours"], "os": ["b", "a"]})
    assert stored_bot(parts).dimensions == ("id:vm1", "os:a", "os:b", "pool:default")


@pytest.mark.spec("3.1.1.7", "D.1.3")
def test_trusted_dimension_that_the_group_does_not_set_is_dropped_and_logged_once(
    parts, bot, caplog
):
    text = group().replace("trusted_dimensions", 'trusted_dimensions: "gpu"\ntrusted_dimensions')
    configure(parts, bots=text)
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        bot.poll(dimensions={"id": ["vm1"], "gpu": ["huge"], "os": ["a"]})
    assert stored_bot(parts).dimensions == ("id:vm1", "os:a", "pool:default")
    said = [text for text in caplog.messages if "trusted" in text]
    assert said == [
        'bot "vm1": only its group may set the trusted dimensions gpu; its own are dropped'
    ]


@pytest.mark.spec("3.1.1.6", "3.1.1.7")
@pytest.mark.parametrize(("count", "is_well"), [(178, True), (179, False)])
def test_poll_takes_so_many_dimension_values(parts, bot, count, is_well):
    before = stored_bot(parts).dimensions
    values = [str(n) for n in range(count)]
    reply = bot.poll(dimensions={"id": ["vm1"], "pool": ["default"], "x": values})
    assert count + 2 <= MAX_DIMENSION_VALUES or not is_well
    assert (reply["cmd"] == "rbe", stored_bot(parts).dimensions != before) == (is_well, is_well)


@pytest.mark.spec("1.4.1.3", "3.1.1.8")
def test_poll_replaces_the_state_when_there_is_one(parts, bot):
    bot.poll(state={"a": 1})
    assert live(parts).state == {"a": 1}
    for empty in ({}, None):
        bot.poll(state=empty)
        assert live(parts).state == {"a": 1}


@pytest.mark.spec("3.1.1.10", "3.7.1.2", "2.1.3.6", "7.5.1.4")
def test_pool_names_the_instance_in_reply_and_session(parts, bot):
    configure(parts, pools=POOLS.format(more=""))
    assert bot.poll()["rbe"]["instance"] == "projects/p/instances/one"
    assert session_of(parts, bot).bot_config.rbe_instance == "projects/p/instances/one"


@pytest.mark.spec("3.1.1.10", "D.1.2")
@pytest.mark.parametrize("percent", [0, 100])
def test_bot_is_well_whatever_the_mode_of_its_pool(parts, bot, percent):
    pools = POOLS.format(more="").replace("rbe_mode_percent: 100", f"rbe_mode_percent: {percent}")
    configure(parts, pools=pools)
    reply = bot.poll()
    ours, named = "projects/local/instances/default", "projects/p/instances/one"
    assert reply["rbe"]["instance"] == (named if percent else ours)
    assert (reply["cmd"], stored_bot(parts).quarantined) == ("rbe", "")


@pytest.mark.spec("9.1.1.18")
@pytest.mark.spec("3.1.1.11", "2.1.3.7", "2.1.3.8", "2.6.1.2", "6.2.1.9")
def test_effective_id_is_computed_at_the_poll_and_kept_when_it_cannot_be(parts, bot):
    configure(parts, pools=SERIAL)

    def name():
        return session_of(parts, bot).bot_config.rbe_effective_bot_id

    bot.poll(dimensions={**bot.dims, "serial": ["7"]})
    assert name() == "default:serial:7"
    assert stored_bot(parts).rbe_effective_bot_id == "default:serial:7"
    docs = parts.store.scan(codec.EVENT, "", "~", limit=1)
    assert codec.read_event(docs[0]).message == "the effective bot id is default:serial:7"
    reply = bot.poll(dimensions={**bot.dims, "serial": ["7", "8"]})
    assert (reply["cmd"], name()) == ("sleep", "default:serial:7")
    assert "the effective bot id needs one" in stored_bot(parts).quarantined
    bot.poll(dimensions={**bot.dims, "serial": []})
    assert name() == "default:serial:7", "bad dimensions: it is not even tried"
    bot.poll()
    assert name() == "vm1"
    assert session_of(parts, bot).bot_config.rbe_effective_bot_id_dimension == "serial"
    assert stored_bot(parts).rbe_effective_bot_id == ""


@pytest.mark.spec("13.1.2")
@pytest.mark.spec("2.6.1.2", "2.1.2.1", "2.1.2.2", "2.1.2.3", "2.1.2.4", "2.1.3.1", "3.2.1.4")
def test_poll_refreshes_the_session_and_keeps_who_it_is(parts, clock, bot):
    before = session_of(parts, bot)
    clock.advance(200)
    bot.poll()
    after = session_of(parts, bot)
    assert after.expiry_ms == before.expiry_ms + 200_000
    assert after.debug_info.created_ms == clock.now_ms()
    assert after.bot_config.expiry_ms == clock.now_ms() + 3_600_000
    kept = ("bot_id", "session_id", "handshake_config_hash", "rbe_bot_session_id", "epoch")
    assert all(getattr(after, name) == getattr(before, name) for name in kept)
    assert after.rbe_bot_session_id


@pytest.mark.spec("3.4.1.3")
@pytest.mark.spec("3.2.1.1", "3.3.1.5", "1.1.2.2", "7.5.1.3", "6.5.1.2")
@pytest.mark.parametrize("sick", [{}, {"state": {"quarantined": "q", "client": {"name": "skep"}}}])
@pytest.mark.parametrize("session", ["good", None, "%%%"])
def test_update_comes_before_all_else_and_carries_no_token(parts, bot, session, sick):
    bot.session = bot.session if session == "good" else session
    expected = bot.version
    reply = bot.poll(version="0" * 64, **sick)
    assert {**reply, "skep": None} == {"cmd": "update", "version": expected, "skep": None}
    assert events_of(parts)[-1] == "request_update"


@pytest.mark.spec("3.4.1.8")
@pytest.mark.spec("3.2.1.5", "3.3.1.6", "7.5.1.3", "6.5.1.2", "2.4.p1")
@pytest.mark.parametrize("state", [{}, {"quarantined": "q"}, {"maintenance": "m"}])
def test_bot_restarts_when_hooks_or_dimensions_of_its_group_change(parts, bot, state):
    configure(parts, bots=group('dimensions: "zone:eu"'))
    reply = bot.poll(state=state)
    assert (reply["cmd"], reply["message"]) == ("bot_restart", "new bots.cfg config")
    assert reply["session"]
    assert events_of(parts)[-1] == "request_restart"
    now = parts.config.latest().bots.group_of("vm1")
    assert session_of(parts, bot).handshake_config_hash != handshake_config_hash(now)


@pytest.mark.spec("7.5.1.4", "2.4.p1")
def test_bot_does_not_restart_for_what_is_not_in_the_hash(parts, bot):
    configure(parts, bots=group('owners: "a@b.cd"', 'logs_cloud_project: "x"'))
    assert bot.poll()["cmd"] == "rbe"
    assert stored_bot(parts).owners == ("a@b.cd",)


@pytest.mark.spec("7.5.1.5")
def test_bot_that_runs_a_task_hears_of_changes_afterwards(parts, bot):
    _, run_id = run_a_task(parts, bot)
    configure(parts, bots=group('dimensions: "zone:eu"'))
    reply = bot.task_update(run_id, b"x")
    assert (reply["ok"], reply["must_stop"]) == (True, False)
    bot.finish(run_id)
    assert bot.poll()["cmd"] == "bot_restart"


class Dice:
    """Draws always the same share of an interval."""

    def __init__(self, rng, share):
        self._rng, self._share = rng, share

    def __getattr__(self, name):
        return getattr(self._rng, name)

    def uniform(self, low, high):
        return low + self._share * (high - low)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        pytest.param({"session": None}, 300, 600, marks=pytest.mark.spec("3.2.1.3", "13.1.10")),
        pytest.param(
            {"state": {"quarantined": "q"}},
            60,
            240,
            marks=pytest.mark.spec("3.2.1.6", "13.1.11", "6.5.1.1"),
        ),
        pytest.param(
            {"state": {"maintenance": "m"}},
            10,
            60,
            marks=pytest.mark.spec("3.2.1.7", "13.1.12", "6.5.1.1"),
        ),
    ],
)
@pytest.mark.spec("3.3.1.1", "0.3.1.11")
def test_sleep_is_drawn_from_its_interval(parts, bot, body, low, high):
    for share in (0.0, 0.25, 0.999):
        object.__setattr__(parts.bots, "rng", Dice(parts.rng, share))
        reply = bot.poll(**body)
        assert reply["cmd"] == "sleep"
        assert reply["duration"] == pytest.approx(low + share * (high - low), abs=0.001)
        assert low <= reply["duration"] < high
    assert events_of(parts)[-1] == "request_sleep"


@pytest.mark.spec("6.4.p1", "6.5.1.1")
def test_quarantine_wins_over_maintenance_and_both_are_kept(parts, bot):
    reply = bot.poll(state={"quarantined": "q", "maintenance": "m"})
    assert (reply["cmd"], reply["duration"]) == ("sleep", 60.0)
    assert stored_bot(parts).composite[0] == 256
    assert stored_bot(parts).composite[2] == 4
    assert bot.poll(state={"maintenance": True})["cmd"] == "rbe"


@pytest.mark.spec("6.5.1.4")
@pytest.mark.parametrize("state", [{"quarantined": "q"}, {"maintenance": "m"}])
def test_sick_bot_is_not_idle(parts, bot, state):
    bot.poll(state={"rbe_idle": True})
    assert stored_bot(parts).idle_since_ms
    bot.poll(state={"rbe_idle": True, **state})
    assert stored_bot(parts).idle_since_ms == 0
    assert stored_bot(parts).composite[3] == 1


@pytest.mark.spec("6.2.1.10", "9.3.p12", "D.1.9")
def test_bot_that_an_admin_quarantined_sleeps_whatever_it_says(parts, bot):
    change(parts, admin_quarantine="bad disk")
    assert bot.poll()["cmd"] == "sleep"
    assert stored_bot(parts).quarantined == "quarantined by an admin: bad disk"
    bot.call("/event", event="bot_log", state={"fine": True})
    assert stored_bot(parts).quarantined == "quarantined by an admin: bad disk"
    change(parts, admin_quarantine="")
    assert bot.poll()["cmd"] == "rbe"


@pytest.mark.spec("6.2.1.1", "6.2.1.3", "6.2.1.5", "6.2.1.6")
def test_complaints_are_joined_in_their_order_after_the_bots_own_word(parts, bot):
    bot.poll(
        dimensions={"id": ["vm1"], "z": [], "quarantined": ["no disk"]}, state=[], version=None
    )
    assert stored_bot(parts).quarantined.splitlines() == [
        "no disk",
        'bad dimensions: key "z": no values',
        "bad state dict: a JSON object is expected, not list",
        "the bot does not say which version it runs",
    ]


@pytest.mark.spec("6.2.1.1")
def test_state_says_why_unless_the_bot_did(parts, bot):
    bot.poll(state={"quarantined": True, "a": 1}, version=None)
    text = "Bot self-quarantined.\nthe bot does not say which version it runs"
    assert live(parts).state == {"quarantined": text, "a": 1}
    bot.poll(state={"quarantined": "mine"}, version=None)
    assert live(parts).state == {"quarantined": "mine"}


@pytest.mark.spec("3.3.1.3", "3.3.1.4", "3.3.1.7", "3.3.1.8", "1.4.1.6")
def test_poll_hands_out_no_task_even_when_it_is_forced(parts, bot):
    """Tasks come through leases: each of the commands below would be one that we never send."""
    submit(parts)
    assert bot.poll(force=True)["cmd"] == "rbe"
    assert bot.update(nonblocking=False)["lease"]["state"] == "PENDING"


@pytest.mark.spec("3.6.p1", "9.3.p11")
@pytest.mark.parametrize(
    "body",
    [{"version": "0" * 64}, {"state": {"quarantined": "q"}}, {"state": {"maintenance": "m"}}, {}],
)
def test_any_reply_to_a_poll_abandons_the_run(parts, bot, body):
    request, _ = run_a_task(parts, bot)
    body = {"state": {**body.get("state", {}), "client": {"name": "skep"}}, **body}
    bot.poll(**body)
    assert bot.status == 200
    assert stored_task(parts, request).state == "BOT_DIED"
    assert stored_bot(parts).task_id == ""


@pytest.mark.spec("3.6.p1")
def test_poll_that_restarts_the_bot_abandons_the_run(parts, bot):
    request, _ = run_a_task(parts, bot)
    configure(parts, bots=group('dimensions: "zone:eu"'))
    assert bot.poll()["cmd"] == "bot_restart"
    assert stored_task(parts, request).state == "BOT_DIED"
    assert stored_bot(parts).task_id == ""


@pytest.mark.spec("3.6.p1", "5.5.1.3")
def test_run_that_is_being_killed_and_then_abandoned_was_killed(parts, bot):
    request, _ = run_a_task(parts, bot)
    (doc,) = parts.store.get(codec.TASK, codec.task_key(request.task_id))
    killed = codec.task_doc(replace(codec.read_task(doc), killing=True), doc)
    parts.store.transact(lambda txn: txn.put(codec.TASK, killed), label="test")
    bot.poll()
    assert stored_task(parts, request).state == "KILLED"


@pytest.mark.spec("1.1.3.2", "1.1.2.2", "1.4.1.5", "9.3.p6")
@pytest.mark.parametrize("ours", [True, False])
def test_poll_repeated_is_answered_alike_and_counts_for_nothing(parts, clock, make_bot, ours):
    bot = make_bot(ours=ours).start()
    first = bot.poll(request_uuid="u1", state={"rbe_idle": True, **bot.state})
    seen_ms, before = live(parts).seen_ms, dump(parts.store)
    clock.advance(5)
    again = bot.poll(request_uuid="u1", state={"rbe_idle": True, **bot.state})
    assert (again["cmd"], again["rbe"]) == (first["cmd"], first["rbe"])
    assert again["session"]
    assert (live(parts).seen_ms, dump(parts.store)) == (seen_ms, before)
    bot.poll(request_uuid="u2")
    assert live(parts).seen_ms == clock.now_ms()


@pytest.mark.spec("1.1.3.2")
def test_poll_is_known_again_among_the_last_sixteen(parts, clock, make_bot):
    bot = make_bot(ours=False).start()
    for number in range(16):
        bot.poll(request_uuid=f"u{number}")
    clock.advance(5)
    bot.poll(request_uuid="u0")
    assert live(parts).seen_ms < clock.now_ms()
    bot.poll(request_uuid="u16")
    clock.advance(5)
    bot.poll(request_uuid="u0")
    assert live(parts).seen_ms == clock.now_ms()


@pytest.mark.spec("1.1.2.2")
def test_older_session_that_polls_does_not_keep_the_bot_alive(parts, clock, make_bot):
    old, new = make_bot().start(), make_bot()
    new.session_id = "new"
    new.handshake()
    seen_ms = live(parts).seen_ms
    clock.advance(5)
    old.poll()
    assert live(parts).seen_ms == seen_ms


@pytest.mark.spec("3.4.1.1", "3.3.1.1", "13.1.13", "D.1.11")
def test_emergency_stop_lets_every_bot_sleep_whoever_it_is(parts, clock, bot, make_bot):
    configure(parts, settings=ASLEEP + "max_bot_sleep_time: 40\n")
    stranger = make_bot("other")
    before = dump(parts.store)
    clock.advance(5)
    for caller, body in [(bot, {}), (stranger, {"dimensions": {}}), (bot, {"version": "0" * 64})]:
        reply = caller.poll(**body)
        assert {**reply, "skep": None} == {"cmd": "sleep", "duration": 40.0, "skep": None}
    assert dump(parts.store) == before
    assert live(parts).seen_ms == clock.now_ms()
    assert "other" not in parts.last_seen.get("other")
    configure(parts)
    assert bot.poll()["cmd"] == "rbe"


@pytest.mark.spec("3.4.1.1")
def test_emergency_stop_offers_no_task(parts, bot):
    submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    configure(parts, settings=ASLEEP)
    reply = bot.update(nonblocking=False)
    assert (reply["status"], "lease" in reply, reply["skep"]) == ("OK", False, {"poll": True})
    configure(parts)
    assert bot.update(nonblocking=False)["lease"] == lease


@pytest.mark.spec("3.4.1.1")
def test_sleep_of_the_emergency_stop_ends_at_sixty_seconds_by_default(parts, bot):
    configure(parts, settings=ASLEEP)
    assert bot.poll()["duration"] == 60.0
    object.__setattr__(parts.bots, "rng", Dice(parts.rng, 0.96))
    assert bot.poll()["duration"] == 1.0
