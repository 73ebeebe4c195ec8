"""An operator pauses a bot, resumes it, and has it start over."""

import pytest


@pytest.fixture
def bot(make_bot):
    return make_bot("vm1").start()


def steer(admin, verb, **body):
    return admin.post(f"/bots/vm1/{verb}", body)


def pause(admin, **more):
    return steer(admin, "pause", reason="new disk", **more)


def test_paused_bot_is_shown_so_at_once_and_told_to_sleep_until_it_is_resumed(admin, bot):
    shown = pause(admin).json
    assert (shown["status"], shown["maintenance"]) == (
        "paused",
        "paused by an operator: new disk",
    )
    assert bot.poll()["cmd"] == "sleep"
    assert bot.poll()["cmd"] == "sleep"
    assert steer(admin, "resume").json["status"] == "idle"
    assert bot.poll()["cmd"] == "rbe"


def test_held_call_of_a_paused_bot_ends_and_it_is_offered_nothing(admin, bot):
    pause(admin)
    assert bot.update()["status"] == "BOT_TERMINATING"
    admin.submit("x", wait_for_capacity=True)
    bot.open_lease_session()
    assert "lease" not in bot.update()


def test_bot_that_is_paused_in_a_run_drains_and_is_paused_then(admin, bot):
    admin.submit("x")
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    assert pause(admin).json["status"] == "draining"
    assert not bot.finish(run_id)["must_stop"]
    assert admin.get("/bots/vm1").json["status"] == "paused"
    assert admin.get(f"/tasks/{run_id}").json["state"] == "COMPLETED"


def test_pause_ends_by_itself_at_the_next_poll_after_its_time(admin, bot, clock):
    shown = pause(admin, for_s=60).json
    assert shown["paused_until"] is not None
    clock.advance(59)
    assert bot.poll()["cmd"] == "sleep"
    clock.advance(1)
    assert bot.poll()["cmd"] == "rbe"
    shown = admin.get("/bots/vm1").json
    assert (shown["status"], shown["maintenance"], shown["paused_until"]) == ("idle", None, None)


def test_quarantine_ends_by_itself_too_and_other_reasons_stay(admin, bot, clock):
    steer(admin, "quarantine", reason="hot", for_s=60)
    pause(admin)
    clock.advance(60)
    assert bot.poll()["cmd"] == "sleep"
    shown = admin.get("/bots/vm1").json
    assert (shown["status"], shown["quarantine_reason"]) == ("paused", None)


def test_later_pause_replaces_the_earlier_one(admin, bot, clock):
    pause(admin, for_s=60)
    shown = steer(admin, "pause", reason="newer disk").json
    assert (shown["maintenance"], shown["paused_until"]) == (
        "paused by an operator: newer disk",
        None,
    )
    clock.advance(600)
    assert bot.poll()["cmd"] == "sleep"


def test_own_maintenance_of_a_bot_goes_before_the_pause(admin, make_bot):
    bot = make_bot("vm1").start()
    bot.state["maintenance"] = "cleans its disk"
    bot.poll()
    shown = pause(admin).json
    assert shown["status"] == "maintenance"
    assert shown["maintenance"].split("\n") == [
        "cleans its disk",
        "paused by an operator: new disk",
    ]
    assert steer(admin, "resume").json["maintenance"] == "cleans its disk"


def test_new_session_of_a_bot_does_not_end_its_pause(admin, bot):
    pause(admin)
    bot.session, bot.session_id = None, "another/2"
    bot.handshake()
    assert admin.get("/bots/vm1").json["status"] == "paused"
    assert bot.poll()["cmd"] == "sleep"


def test_paused_bots_are_found_and_counted_by_status(admin, bot):
    pause(admin)
    assert [b["bot_id"] for b in admin.get("/bots?status=paused").json["items"]] == ["vm1"]
    assert [b["bot_id"] for b in admin.get("/bots?q=status:paused").json["items"]] == ["vm1"]
    assert admin.get("/bots").json["counts"]["paused"] == 1


def test_pending_task_says_that_its_bot_is_paused(admin, bot):
    pause(admin)
    task_id = admin.submit("x", wait_for_capacity=True)["task_id"]
    found = admin.get(f"/tasks/{task_id}/why").json
    assert "1 paused" in found["summary"]
    assert "resume the bot (vm1)" in found["would_help"]


def test_asked_bot_restarts_at_its_next_poll_and_only_once(admin, bot):
    shown = steer(admin, "restart", reason="stuck mount").json
    assert shown["restart_asked"] == "stuck mount"
    assert bot.update()["status"] == "BOT_TERMINATING"
    told = bot.poll()
    assert (told["cmd"], told["message"]) == ("bot_restart", "asked by an operator: stuck mount")
    assert bot.poll()["cmd"] == "bot_restart"  # an answer that was lost is given again
    bot.session, bot.session_id = None, "another/2"
    bot.handshake()
    assert admin.get("/bots/vm1").json["restart_asked"] is None
    assert bot.poll()["cmd"] == "rbe"


@pytest.mark.parametrize(
    ("verb", "cmd"), [("restart", "bot_restart"), ("pause", "sleep"), ("quarantine", "sleep")]
)
def test_steered_bot_is_told_to_poll_before_it_is_held_again(admin, bot, verb, cmd):
    steer(admin, verb, reason="stuck mount")
    assert bot.update(nonblocking=False)["status"] == "BOT_TERMINATING"
    bot.open_lease_session()
    assert bot.update(nonblocking=False)["skep"] == {"poll": True}
    assert bot.poll()["cmd"] == cmd


def test_bot_that_has_heard_of_its_pause_is_not_told_to_poll_again(admin, bot):
    steer(admin, "pause", reason="stuck mount")
    bot.poll()
    bot.open_lease_session()
    assert "skep" not in bot.update()


def test_run_of_a_bot_that_is_asked_to_restart_goes_on(admin, bot):
    admin.submit("x")
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    steer(admin, "restart", reason="stuck mount")
    assert not bot.finish(run_id)["must_stop"]
    assert bot.poll()["cmd"] == "bot_restart"
    assert admin.get(f"/tasks/{run_id}").json["state"] == "COMPLETED"


@pytest.mark.control("people.audit")
def test_pause_resume_and_restart_are_audited_once_each(admin, bot, clock):
    for verb in ("pause", "pause", "resume", "resume", "restart"):
        steer(admin, verb, reason="new disk")
        clock.advance(1)
    entries = [(e["verb"], e["reason"]) for e in admin.get("/audit").json["items"]]
    steered = [entry for entry in entries if entry[0].startswith("bot.")]
    assert steered == [(f"bot.{verb}", "new disk") for verb in ("restart", "resume", "pause")]


@pytest.mark.parametrize(
    ("verb", "body", "said"),
    [
        ("pause", {}, "say why (pause)"),
        ("restart", {"reason": " "}, "say why (restart)"),
        ("pause", {"reason": "x", "for_s": -1}, "/for_s"),
        ("pause", {"reason": "x", "for_s": 40_000_000}, "/for_s"),
        ("pause", {"reason": "x", "for_s": "1h"}, "for_s"),
        ("resume", {"for_s": 1}, "for_s"),
        ("restart", {"reason": "x", "for_s": 1}, "for_s"),
        ("pause", {"reason": "x" * 501}, "at most 500"),
    ],
)
def test_wrong_request_is_refused_in_one_line_and_changes_nothing(admin, bot, verb, body, said):
    before = admin.get("/bots/vm1").json
    reply = steer(admin, verb, **body)
    assert reply.status_code == 400
    assert said in reply.json["detail"]
    assert admin.get("/bots/vm1").json == before


def test_bot_that_nobody_knows_is_404(admin):
    assert pause(admin).status_code == 404
