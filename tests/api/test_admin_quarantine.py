"""An admin keeps a bot from work, and lets it work again."""

import pytest


@pytest.fixture
def bot(make_bot):
    return make_bot("vm1").start()


def quarantine(admin, reason="smells of smoke", bot_id="vm1"):
    return admin.post(f"/bots/{bot_id}/quarantine", {"reason": reason})


@pytest.mark.spec("6.2.1.10", "D.1.9")
def test_quarantined_bot_is_shown_so_at_once_and_told_at_its_next_poll(admin, bot):
    shown = quarantine(admin).json
    assert shown["status"] == "quarantined"
    assert "quarantined by an admin: smells of smoke" in shown["quarantine_reason"]
    assert bot.poll()["cmd"] == "sleep"
    assert bot.poll()["cmd"] == "sleep"


def test_quarantined_bot_is_offered_nothing_before_it_polls(admin, bot):
    quarantine(admin)
    task_id = admin.submit("x", wait_for_capacity=True)["task_id"]
    assert "lease" not in bot.update()
    bot.open_lease_session()
    assert "lease" not in bot.update()
    assert admin.get(f"/tasks/{task_id}").json["state"] == "PENDING"


@pytest.mark.parametrize("has_worked", [False, True])
def test_lease_session_is_closed_with_the_quarantine_so_that_a_held_call_gets_nothing(
    admin, bot, has_worked
):
    if has_worked:
        admin.submit("x")
        bot.work(bot.update(nonblocking=False)["lease"])
    quarantine(admin)
    assert bot.update()["status"] == "BOT_TERMINATING"


def test_restart_of_the_bot_does_not_end_the_quarantine(admin, bot):
    quarantine(admin)
    bot.session, bot.session_id = None, "another/2"
    bot.handshake()
    assert "smells of smoke" in admin.get("/bots/vm1").json["quarantine_reason"]
    bot.open_lease_session()
    admin.submit("x", wait_for_capacity=True)
    assert "lease" not in bot.update()


def test_run_of_a_quarantined_bot_goes_on(admin, bot):
    admin.submit("x")
    lease = bot.update(nonblocking=False)["lease"]
    run_id = bot.claim(lease)["task_id"]
    quarantine(admin)
    assert bot.finish(run_id) == {"ok": True, "must_stop": False, "session": bot.session}
    assert admin.get(f"/tasks/{run_id}").json["state"] == "COMPLETED"


def test_released_bot_works_again(admin, bot):
    quarantine(admin)
    bot.poll()
    shown = admin.post("/bots/vm1/release", {"reason": "new fan"}).json
    assert not shown["quarantine_reason"]
    assert bot.poll()["cmd"] == "rbe"
    bot.open_lease_session()
    admin.submit("x")
    assert bot.update(nonblocking=False)["lease"]


def test_other_reasons_stay_when_an_admin_releases(admin, make_bot):
    bot = make_bot("vm1")
    bot.state["quarantined"] = "disk full"
    bot.handshake()
    bot.poll()
    quarantine(admin)
    assert "disk full" in admin.post("/bots/vm1/release", {}).json["quarantine_reason"]


def test_quarantine_and_release_leave_an_event_each_at_the_next_poll(admin, bot, clock):
    clock.advance(60)
    for verb, polls in (("quarantine", 3), ("release", 2)):
        admin.post(f"/bots/vm1/{verb}", {"reason": "smoke"})
        for _ in range(polls):
            bot.poll()
    said = [
        (event["event"], event["quarantined"])
        for event in admin.get("/bots/vm1/events").json["items"]
    ]
    assert said[0] == ("bot_polling", None)
    assert said[1] == ("request_sleep", "quarantined by an admin: smoke")
    assert [kind for kind, _why in said[2:]] == ["bot_polling", "bot_connected"]


@pytest.mark.control("people.audit")
def test_both_are_audited_with_their_reason(admin, bot, clock):
    quarantine(admin)
    quarantine(admin)
    clock.advance(1)
    admin.post("/bots/vm1/release", {"reason": "new fan"})
    entries = [(e["verb"], e["target"], e["reason"]) for e in admin.get("/audit").json["items"]]
    assert entries[:2] == [
        ("bot.release", "bot vm1", "new fan"),
        ("bot.quarantine", "bot vm1", "smells of smoke"),
    ]
    assert len([entry for entry in entries if entry[0].startswith("bot.")]) == 2


@pytest.mark.parametrize(
    ("bot_id", "reason", "status", "said"),
    [
        ("vm1", " ", 400, "say why"),
        ("vm1", "x" * 501, 400, "at most 500"),
        ("vm9", "x", 404, 'there is no bot "vm9"'),
    ],
)
def test_wrong_request_is_refused_in_one_line(admin, bot, bot_id, reason, status, said):
    reply = quarantine(admin, reason, bot_id)
    assert reply.status_code == status
    assert said in reply.json["detail"]
    assert admin.get("/bots/vm1").json["status"] != "quarantined"
