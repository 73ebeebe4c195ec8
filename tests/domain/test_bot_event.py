"""What each event does to a bot: every row of bot-api 9.2, every step of 9.3."""

from dataclasses import replace

import pytest

from botapi.domain.bot import Bot, Health
from botapi.domain.bot_event import (
    FROM_BOTS,
    RULES,
    BotUpdate,
    CallInfo,
    EventKind,
    apply,
    key_of_uuid,
    new_bot,
)

TABLE = """
bot_connected   -    reset alive     unchanged once     creates
bot_error       bot  keep  unchanged unchanged once     -
bot_log         bot  keep  unchanged unchanged once     -
bot_rebooting   bot  reset unchanged busy      once     -
bot_shutdown    bot  reset dead      idle      once     -
bot_idle        -    reset alive     idle      frequent creates
bot_polling     -    reset alive     busy      frequent creates
request_sleep   -    reset alive     idle      frequent creates
request_update  -    reset alive     busy      once     creates
request_restart -    reset alive     busy      once     creates
request_task    -    set   alive     busy      once     creates
bot_terminate   -    set   unchanged busy      once     -
task_update     -    keep  unchanged busy      frequent -
task_completed  -    reset unchanged busy      once     -
task_killed     -    reset unchanged busy      once     -
task_error      -    reset unchanged busy      once     -
bot_missing     -    keep  dead      idle      once     -
bot_deleted     -    reset dead      idle      once     -
"""
"""bot-api 9.2, written down a second time."""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
ABANDON = {
    "bot_connected",
    "bot_rebooting",
    "bot_shutdown",
    "bot_idle",
    "bot_polling",
    "request_sleep",
    "request_update",
    "request_restart",
    "request_task",
    "bot_terminate",
    "bot_missing",
    "bot_deleted",
}
"""Kinds that leave a recorded run behind without its having ended."""
OLD, NEW = "aaaa11", "bbbb11"
NOW = 5_000


def make_bot(**more):
    values = {"dimensions": ("id:vm1", "pool:p"), "first_seen_ms": 1, "task_id": OLD}
    return Bot("vm1", **{**values, **more})


def happen(bot, kind, **more):
    return apply(bot, BotUpdate(EventKind(kind), **more), event_id="e1", now_ms=NOW)


def test_table_has_a_row_for_every_kind():
    assert {row[0] for row in ROWS} == set(EventKind) == set(RULES)


@pytest.mark.spec("9.2.1.1", "9.2.1.2", "9.2.1.3", "9.2.1.4", "9.2.1.5", "9.2.1.6")
@pytest.mark.spec("9.2.1.7", "9.2.1.8", "9.2.1.9", "9.2.1.10", "9.2.1.11", "9.2.1.12")
@pytest.mark.spec("9.2.1.13", "9.2.1.14", "9.2.1.15", "9.2.1.16", "9.2.1.17", "9.2.1.18")
@pytest.mark.spec("3.6.p1", "9.3.p8")
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("was_dead", [False, True])
@pytest.mark.parametrize("was_idle", [0, 77])
def test_event_changes_the_bot_as_its_row_says(row, was_dead, was_idle):
    kind, source, task, live, idle, frequent, creates = row
    bot = make_bot(dead=was_dead, idle_since_ms=was_idle)
    change = happen(bot, kind, task_id=NEW, task_name="n", task_flags=1)
    after = change.bot
    assert after.task_id == {"reset": "", "keep": OLD, "set": NEW}[task]
    assert after.dead == {"alive": False, "dead": True, "unchanged": was_dead}[live]
    assert after.idle_since_ms == {"idle": was_idle or NOW, "busy": 0, "unchanged": was_idle}[idle]
    assert change.abandoned == (OLD if kind in ABANDON else "")
    assert after.last_abandoned_task == change.abandoned
    assert RULES[EventKind(kind)].creates == (creates == "creates")
    assert RULES[EventKind(kind)].frequent == (frequent == "frequent")
    assert (kind in FROM_BOTS) == (source == "bot")


@pytest.mark.spec("9.1.1.10", "9.3.p9")
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("health", [Health("bad"), Health("", "disk")])
def test_unhealthy_bot_is_never_idle_unless_it_stopped(row, health):
    change = happen(make_bot(task_id="", idle_since_ms=77), row[0], health=health)
    is_idle = row[0] in {"bot_shutdown", "bot_missing", "bot_deleted"}
    assert change.bot.idle_since_ms == (77 if is_idle else 0)


@pytest.mark.spec("9.3.p10")
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_event_is_kept_unless_it_is_frequent_and_changes_nothing(row):
    kind, _, _, _, idle, frequent, _ = row
    bot = make_bot(task_id="", idle_since_ms=77 if idle == "idle" else 0)
    change = happen(bot, kind)
    assert (change.event is None) == (frequent == "frequent")
    for more in ({"dimensions": ("id:vm1",)}, {"message": "m"}, {"health": Health("q")}):
        assert happen(bot, kind, **more).event is not None


def test_only_four_kinds_come_from_bots():
    assert {"bot_error", "bot_log", "bot_rebooting", "bot_shutdown"} == FROM_BOTS


@pytest.mark.spec("9.1.1.14", "9.2.p1")
@pytest.mark.parametrize("kind", ["task_completed", "task_killed", "task_error"])
def test_finishing_event_names_the_run_that_ended(kind):
    change = happen(make_bot(task_flags=1, task_name="build"), kind)
    assert change.event.task_id == OLD
    assert (change.bot.last_finished_task, change.bot.last_finished_flags) == (OLD, 1)
    assert change.bot.last_finished_name == "build"
    assert change.abandoned == ""


@pytest.mark.spec("9.2.p1", "5.6.1.2")
@pytest.mark.parametrize("kind", ["bot_shutdown", "bot_missing", "bot_deleted"])
def test_stop_event_names_the_run_it_abandons(kind):
    event = happen(make_bot(), kind, message="bye").event
    assert (event.task_id, event.message) == (OLD, f"bye\nAbandoned task {OLD}")


@pytest.mark.spec("5.6.1.2", "5.6.1.3", "9.1.1.15")
def test_run_is_abandoned_once_when_the_bot_goes_missing_and_comes_back():
    missing = happen(make_bot(), "bot_missing").bot
    assert (missing.task_id, missing.dead) == (OLD, True)
    back = happen(missing, "bot_connected")
    assert (back.bot.task_id, back.bot.dead, back.abandoned) == ("", False, "")


def test_same_run_set_again_is_not_abandoned():
    assert happen(make_bot(), "request_task", task_id=OLD).abandoned == ""


@pytest.mark.spec("9.1.1.16", "9.3.p9")
def test_termination_id_is_set_by_the_shutdown_after_a_termination_task():
    done = happen(make_bot(task_flags=1), "task_completed").bot
    off = happen(done, "bot_shutdown").bot
    assert off.termination_task_id == OLD
    assert happen(off, "bot_log").bot.termination_task_id == ""
    plain = happen(make_bot(), "task_completed").bot
    assert happen(plain, "bot_shutdown").bot.termination_task_id == ""


@pytest.mark.spec("9.1.1.14")
def test_what_an_operator_asked_survives_a_poll_that_was_read_before_it():
    """The poll says that the bot is in order, and knows nothing of the pause."""
    idle = Bot("vm1", ("id:vm1",), 1, idle_since_ms=1).paused("p").kept_from_work("q")
    update = BotUpdate(EventKind.BOT_IDLE, health=Health())
    after = apply(idle, update, event_id="e1", now_ms=2).bot
    assert after.quarantined == "quarantined by an admin: q"
    assert after.maintenance == "paused by an operator: p"
    assert after.idle_since_ms == 0


def test_last_finished_task_is_forgotten_when_the_bot_connects():
    done = happen(make_bot(task_flags=1), "task_completed").bot
    back = happen(done, "bot_connected").bot
    assert (back.last_finished_task, back.last_finished_flags) == ("", 0)


@pytest.mark.spec("9.1.1.17", "9.3.p6")
def test_update_is_a_repeat_when_its_key_is_that_of_the_last_event():
    first = happen(make_bot(), "bot_log", dedup_key="k")
    again = happen(first.bot, "bot_log", dedup_key="k", message="other")
    assert (again.is_repeat, again.bot, again.event) == (True, first.bot, None)
    between = happen(first.bot, "bot_error").bot
    assert not happen(between, "bot_log", dedup_key="k").is_repeat
    assert not happen(first.bot, "bot_error", dedup_key="k").is_repeat


@pytest.mark.spec("9.1.1.17")
def test_update_without_a_key_is_a_repeat_only_of_its_own_event():
    first = happen(make_bot(), "bot_log").bot
    assert happen(first, "bot_log").is_repeat
    other = apply(first, BotUpdate(EventKind.BOT_LOG), event_id="e2", now_ms=NOW)
    assert not other.is_repeat


@pytest.mark.spec("9.1.1.3", "9.1.1.4", "9.1.1.5", "9.1.1.11", "9.3.p2", "9.3.p7")
def test_update_says_who_called_and_keeps_what_it_does_not_say():
    bot = make_bot(version="v1", owners=("a",), quarantined="q")
    call = CallInfo("s2", "1.2.3.4", "bot:vm1")
    after = happen(bot, "bot_log", call=call, changes={"note": "n"}).bot
    assert replace(after, last_event_dedup_key="", event_count=0) == replace(
        bot,
        session_id="s2",
        external_ip="1.2.3.4",
        authenticated_as="bot:vm1",
        note="n",
    )
    told = BotUpdate(
        EventKind.BOT_LOG, call=replace(call, version="v2"), owners=("b",), health=Health()
    )
    after = apply(bot, told, event_id="e9", now_ms=NOW).bot
    assert (after.version, after.owners, after.quarantined) == ("v2", ("b",), "")


@pytest.mark.spec("9.2.p1")
@pytest.mark.parametrize(
    ("health", "message", "shown"),
    [
        (Health("q", "m"), "own", "own"),
        (Health("q", "m"), "", "m"),
        (Health("q"), "", "q"),
        (Health(), "", ""),
    ],
)
def test_message_is_the_callers_then_maintenance_then_quarantine(health, message, shown):
    event = happen(make_bot(task_id=""), "request_update", health=health, message=message).event
    assert event.message == shown


@pytest.mark.spec("9.1.1.12", "9.3.p5")
def test_new_bot_is_alive_healthy_and_not_idle_before_it_says_so():
    bot = new_bot("vm1", ("id:vm1",), NOW)
    assert (bot.first_seen_ms, bot.composite) == (NOW, (512, 128, 8, 1))
    assert happen(bot, "bot_connected").bot.composite == (512, 128, 8, 1)


@pytest.mark.spec("9.3.p10")
def test_change_is_visible_unless_only_the_dedup_key_differs():
    bot = happen(make_bot(task_id="", idle_since_ms=7), "bot_idle", dedup_key="a").bot
    idle = happen(bot, "bot_idle", dedup_key="b")
    assert not idle.is_visible(bot)
    assert idle.is_visible(None)
    assert happen(bot, "bot_idle", changes={"note": "n"}).is_visible(bot)
    assert happen(bot, "bot_log").is_visible(bot)


@pytest.mark.spec("9.2.p1")
def test_event_copies_the_bot_as_it_is_afterwards():
    bot = make_bot(event_count=4, idle_since_ms=77, owners=("a",))
    call = CallInfo("s2", "1.2.3.4", "bot:vm1", "v2")
    health = Health("q", "m")
    more = {"message": "m", "state": {"a": 1}, "call": call, "health": health}
    change = happen(bot, "bot_shutdown", **more)
    event, after = change.event, change.bot
    assert (event.seq, after.event_count) == (5, 5)
    assert (event.bot_id, event.at_ms, event.event_id) == ("vm1", NOW, "e1")
    assert (event.kind, event.message) == ("bot_shutdown", f"m\nAbandoned task {OLD}")
    assert (event.state, event.task_id) == ({"a": 1}, OLD)
    copied = ("dimensions", "session_id", "external_ip", "authenticated_as", "version")
    copied += ("quarantined", "maintenance", "owners", "idle_since_ms")
    assert [getattr(event, name) for name in copied] == [getattr(after, name) for name in copied]
    assert event.version == "v2"


@pytest.mark.spec("5.1.1.4")
def test_key_of_a_uuid_is_short_and_plain_whatever_it_is():
    assert key_of_uuid("") == ""
    assert key_of_uuid("a-B/9_") == "a-B/9_"
    odd = {key_of_uuid(text) for text in ("a b", "x" * 51, "y" * 10**6, "\ud800")}
    assert len(odd) == 4
    assert all(len(key) == 64 for key in odd)
