"""What people end: many tasks at once, a bot's work, a bot."""

import pytest

from botapi.domain.names import run_id
from botapi.store import codec
from botapi.store.protocol import Doc, join_key
from botapi.transactions import enrol_bot

has_bot = pytest.mark.usefixtures("ready_bot")
FIVE_DAYS_S = 432_000


def audit(admin, verb):
    return [entry for entry in admin.get("/audit?limit=100").json["items"] if entry["verb"] == verb]


def request_of(store, task_id):
    (doc,) = store.get(codec.REQ, codec.task_key(task_id))
    return codec.read_request(doc)


def terminate(admin, bot_id="vm1", reason="disk swap"):
    return admin.post(f"/bots/{bot_id}/terminate", {"reason": reason})


@has_bot
@pytest.mark.spec("10.6.p1", "prpc:5.4.p1", "13.1.44")
def test_terminate_makes_a_task_of_its_own_shape(admin, store):
    reply = terminate(admin, reason="disk\nswap")
    assert reply.status_code == 201, reply.text
    request = request_of(store, reply.json["task_id"])
    assert request.is_termination
    assert (request.name, request.priority) == ("Terminate vm1: disk swap", 0)
    assert (request.service_account, request.realm, request.user) == ("none", "", "")
    (only,) = request.slices
    assert (dict(only.dimensions), only.expiration_s) == ({"id": ("vm1",)}, FIVE_DAYS_S)
    assert (only.pool, only.command, only.wait_for_capacity) == ("", (), False)
    assert request.tags == (
        "authenticated:user:alice",
        "id:vm1",
        "priority:0",
        "rbe:none",
        "realm:none",
        "service_account:none",
        "swarming.pool.template:no_pool",
        "swarming.terminate:1",
        "user:none",
    )
    (entry,) = audit(admin, "bot.terminate")
    assert (entry["actor"], entry["target"], entry["reason"]) == ("alice", "bot vm1", "disk swap")


@has_bot
@pytest.mark.spec("10.6.p1")
def test_terminate_again_gives_the_task_on_its_way(admin, ready_bot, store):
    first = terminate(admin)
    again = terminate(admin, reason="another")
    assert (again.status_code, again.json) == (200, first.json)
    assert len(audit(admin, "bot.terminate")) == 1
    admin.post(f"/tasks/{first.json['task_id']}/cancel", {})
    assert terminate(admin).json != first.json
    assert ready_bot.update()["lease"]["payload"]["task_id"] != first.json["task_id"]


@pytest.mark.spec("10.6.p1", "9.1.1.18", "3.3.1.4")
def test_terminated_bot_says_goodbye_and_names_its_task(admin, ready_bot, store):
    task_id = terminate(admin).json["task_id"]
    lease = ready_bot.update()["lease"]
    assert ready_bot.claim(lease) == {"cmd": "terminate", "task_id": run_id(task_id)}
    ready_bot.task_update(run_id(task_id), duration=0, exit_code=0)
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["state"], task["exit_code"]) == ("COMPLETED", 0)
    ready_bot.call("/event", event="bot_shutdown", message="bye", dimensions=ready_bot.dims)
    (doc,) = store.get(codec.BOT, join_key("vm1"))
    bot = codec.read_bot(doc)
    assert (bot.dead, bot.termination_task_id) == (True, run_id(task_id))
    kinds = [event["event"] for event in admin.get("/bots/vm1/events").json["items"]]
    assert kinds[:3] == ["bot_shutdown", "task_completed", "bot_terminate"]


def test_terminate_goes_before_everything_else(admin, ready_bot):
    admin.submit("first", priority=1)
    task_id = terminate(admin).json["task_id"]
    assert ready_bot.update()["lease"]["payload"]["task_id"] == task_id


@pytest.mark.spec("10.6.p1", "10.4.1.2")
def test_termination_of_a_bot_that_never_was_ends_without_a_resource(admin, parts, clock):
    task_id = terminate(admin, "nobody").json["task_id"]
    for _ in range(2):
        clock.advance(60)
        parts.sweeps.round()
    assert admin.get(f"/tasks/{task_id}").json["state"] == "NO_RESOURCE"


@has_bot
@pytest.mark.spec("10.6.p1")
def test_termination_that_its_bot_does_not_take_expires(admin, parts, clock):
    task_id = terminate(admin).json["task_id"]
    clock.advance(FIVE_DAYS_S - 1)
    parts.sweeps.round()
    assert admin.get(f"/tasks/{task_id}").json["state"] == "PENDING"
    clock.advance(1)
    parts.sweeps.round()
    assert admin.get(f"/tasks/{task_id}").json["state"] == "EXPIRED"


@pytest.mark.parametrize("bot_id", ["a:b", "x" * 257])
def test_terminate_refuses_what_is_no_bot_id(admin, bot_id):
    reply = terminate(admin, bot_id)
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")


@has_bot
@pytest.mark.parametrize("length", [1000, 1001])
def test_reason_has_at_most_a_thousand_characters(admin, length):
    reply = terminate(admin, reason="x" * length)
    assert reply.status_code == (201 if length == 1000 else 400)
    reply = admin.call("DELETE", f"/bots/vm1?reason={'x' * length}")
    assert reply.status_code == (200 if length == 1000 else 400)


@pytest.mark.spec("10.6.p1", "9.3.p4", "9.2.1.18", "5.6.1.2", "prpc:5.2.p1")
def test_deleted_bot_is_gone_and_its_run_with_it(admin, ready_bot, store):
    task_id = admin.submit("x")["task_id"]
    run = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    assert admin.call("DELETE", "/bots/vm1?reason=old").json == {"deleted": True}
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    assert admin.get("/bots/vm1").status_code == 404
    assert admin.call("DELETE", "/bots/vm1").status_code == 404
    assert store.get(codec.LSESSION, join_key("vm1")) == [None]
    (last, *_) = store.scan(codec.EVENT, "", "\U0010ffff", limit=9)
    event = codec.read_event(last)
    assert (event.kind, event.task_id) == ("bot_deleted", run)
    (entry,) = audit(admin, "bot.delete")
    assert (entry["actor"], entry["target"], entry["reason"]) == ("alice", "bot vm1", "old")


@pytest.mark.spec("10.6.p1")
def test_deleted_bot_is_refused_until_it_polls(admin, ready_bot):
    admin.call("DELETE", "/bots/vm1")
    ready_bot.update()
    assert ready_bot.status == 403
    ready_bot.call("/event", event="bot_log", message="m")
    assert ready_bot.status == 403
    assert ready_bot.poll()["cmd"] == "rbe"
    assert admin.get("/bots/vm1").json["status"] != "dead"


@has_bot
def test_cancel_many_queues_and_is_done_by_the_sweeper(admin, parts, clock):
    asked = [admin.submit("x", tags=["job:a"])["task_id"] for _ in range(3)]
    other = admin.submit("x", tags=["job:b"])["task_id"]
    body = {"tags": ["job:a"], "limit": 2, "reason": "not needed"}
    reply = admin.post("/tasks/cancel", body)
    assert (reply.status_code, reply.json["matched"]) == (200, 2)
    rest = admin.post("/tasks/cancel", {**body, "cursor": reply.json["next_cursor"]}).json
    assert rest == {"matched": 1, "next_cursor": None}
    parts.sweeps.do_due()
    states = [admin.get(f"/tasks/{task_id}").json["state"] for task_id in (*asked, other)]
    assert states == ["CANCELED"] * 3 + ["PENDING"]
    wishes = audit(admin, "tasks.cancel")
    assert sorted((w["target"], w["reason"]) for w in wishes) == [
        ("1 tasks", "not needed"),
        ("2 tasks", "not needed"),
    ]
    assert len(audit(admin, "task.cancel")) == 3
    assert admin.post("/tasks/cancel", {"tags": ["job:a"]}).json["matched"] == 0


def test_cancel_many_kills_only_when_asked(admin, ready_bot, parts):
    admin.submit("x", tags=["job:a"])
    run = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    assert admin.post("/tasks/cancel", {"tags": ["job:a"]}).json["matched"] == 0
    body = {"tags": ["job:a"], "kill_running": True}
    assert admin.post("/tasks/cancel", body).json["matched"] == 1
    parts.sweeps.do_due()
    assert ready_bot.task_update(run, b"x")["must_stop"] is True


@has_bot
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"tags": []}, "/tags"),
        ({"tags": ["nocolon"]}, "/tags/0"),
        ({"tags": ["a:b"], "limit": 0}, "/limit"),
        ({"tags": ["a:b"], "limit": 1001}, "/limit"),
        ({"tags": ["a:b"], "cursor": "x"}, "cursor"),
        ({"tags": ["a:b"], "start": "yesterday"}, "?start"),
        ({"tags": ["a:b"], "reason": "x" * 1001}, "/reason"),
        ({"tags": [f"a:{n}" for n in range(26)]}, "/tags"),
        ({}, "the body"),
    ],
)
def test_cancel_many_refuses_what_is_wrong(admin, body, place):
    reply = admin.post("/tasks/cancel", body)
    assert reply.status_code == 400
    assert reply.json["detail"].startswith(place), reply.json


@pytest.mark.parametrize(("bot_id", "is_revoked"), [("vm1", True), ("vm1--phone", False)])
def test_deleted_host_is_not_enrolled_any_more(admin, parts, store, make_bot, bot_id, is_revoked):
    """A host with several bots loses its secret only when it is deleted itself."""
    doc = Doc(join_key("host", "vm1"), {"secret_sha256": b"x"})
    store.transact(lambda txn: txn.put(enrol_bot.KIND, doc), label="test")
    make_bot(bot_id).start()
    assert admin.call("DELETE", f"/bots/{bot_id}").status_code == 200
    assert (enrol_bot.enrolled_digest(store, "vm1") is None) is is_revoked


def test_offer_of_a_deleted_bot_goes_to_another(admin, ready_bot, make_bot, parts, clock):
    task_id = admin.submit("x")["task_id"]
    assert ready_bot.update()["lease"]["payload"]["task_id"] == task_id
    admin.call("DELETE", "/bots/vm1")
    other = make_bot("vm2").start()
    clock.advance(61)
    parts.sweeps.round()
    assert other.update()["lease"]["payload"]["task_id"] == task_id
