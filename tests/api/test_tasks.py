"""Tasks read, listed, collected and canceled."""

import pytest

from botapi.transactions.create_api_key import revoke_api_key

has_bot = pytest.mark.usefixtures("ready_bot")


def ids(reply):
    assert reply.status_code == 200, reply.text
    return [task["task_id"] for task in reply.json["items"]]


def claim(bot):
    """The run id of the next task, now running on this bot."""
    claimed = bot.claim(bot.update()["lease"])
    assert claimed["cmd"] == "run", claimed
    return claimed["task_id"]


def test_task_shows_its_whole_life(admin, ready_bot, clock):
    task_id = admin.submit("/bin/echo")["task_id"]
    clock.advance(2)
    run_id = claim(ready_bot)
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["state"], task["run_id"], task["bot_id"]) == ("RUNNING", run_id, "vm1")
    assert task["started_at"] == "2026-03-04T06:06:09.089Z"
    ready_bot.task_update(run_id, b"hello")
    assert admin.get(f"/tasks/{task_id}").json["output_bytes"] == 5
    clock.advance(1)
    ready_bot.finish(run_id, exit_code=3)
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["state"], task["exit_code"], task["failure"]) == ("COMPLETED", 3, True)
    assert (task["cause"], task["internal_failure"], task["error"]) == ("user", False, None)
    assert (task["completed_at"], task["duration_s"]) == ("2026-03-04T06:06:10.089Z", 0.1)
    assert (task["output_bytes"], task["missing_bytes"], task["output_limit_hit"]) == (5, 0, False)


@has_bot
def test_run_id_names_its_task(admin):
    task = admin.submit("x")
    run_id = task["task_id"][:-1] + "1"
    assert admin.get(f"/tasks/{run_id}").json["task_id"] == task["task_id"]


@pytest.mark.parametrize("name", ["zz", "76d045a8f1001990", "A" * 300, "0", "%00", "1e400"])
def test_unknown_task_is_404(admin, name):
    for method, path in (
        ("GET", f"/tasks/{name}"),
        ("GET", f"/tasks/{name}/output"),
        ("POST", f"/tasks/{name}/cancel"),
    ):
        reply = admin.call(method, path, json={} if method == "POST" else None)
        assert (reply.status_code, reply.json["code"]) == (404, "not_found")


@has_bot
def test_list_is_newest_first_and_pages(admin, clock):
    made = []
    for n in range(5):
        made.append(admin.submit("x", tags=[f"n:{n}"])["task_id"])
        clock.advance(1)
    made.reverse()
    assert ids(admin.get("/tasks")) == made
    found, cursor = [], ""
    while True:
        reply = admin.get(f"/tasks?limit=2&cursor={cursor}")
        found += ids(reply)
        cursor = reply.json["next_cursor"]
        if cursor is None:
            break
    assert found == made


def test_list_filters(admin, ready_bot):
    first = admin.submit("x", tags=["a:1", "b:1"], user="bob")["task_id"]
    run_id = claim(ready_bot)
    second = admin.submit("x", tags=["a:1"], user="eve")["task_id"]
    assert set(ids(admin.get("/tasks?tag=a:1"))) == {first, second}
    assert ids(admin.get("/tasks?tag=a:1&tag=b:1")) == [first]
    assert ids(admin.get("/tasks?user=eve")) == [second]
    assert set(ids(admin.get("/tasks?user=eve&user=bob"))) == {first, second}
    assert ids(admin.get("/tasks?bot=vm1")) == [first]
    assert ids(admin.get("/tasks?state=running")) == [first]
    assert ids(admin.get("/tasks?state=PENDING")) == [second]
    assert set(ids(admin.get("/tasks?state=PENDING&state=running"))) == {first, second}
    assert ids(admin.get("/tasks?state=final")) == []
    ready_bot.finish(run_id)
    assert ids(admin.get("/tasks?state=final&tag=&bot=")) == [first]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("state=done", '?state: "done" is no state; use pending, running, final, PENDING'),
        ("tag=x", '?tag: "x" has no colon'),
        ("limit=0", '?limit: "0" is not a whole number from 1 to 1000'),
        ("limit=1001", "?limit: "),
        ("limit=-1", "?limit: "),
        ("limit=9999999999999999999999", "?limit: "),
        ("cursor=x", "cursor: is damaged"),
        ("stat=x", "?stat: no such parameter"),
        ("&".join(f"user={n}" for n in range(26)), "the query: more than 25 values"),
    ],
)
def test_wrong_query_is_400(admin, query, complaint):
    reply = admin.get(f"/tasks?{query}")
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")
    assert reply.json["detail"].startswith(complaint)


@has_bot
def test_cursor_belongs_to_its_query(admin, make_bot, clock):
    for _ in range(3):
        admin.submit("x", tags=["a:1"])
        clock.advance(1)
    make_bot("vm2").start()
    cursor = admin.get("/tasks?limit=1&tag=a:1").json["next_cursor"]
    assert admin.get(f"/tasks?tag=a:1&limit=2&cursor={cursor}").status_code == 200
    for path in (
        f"/tasks?limit=1&cursor={cursor}",
        f"/bots?limit=1&cursor={cursor}",
        f"/bots/vm1/events?cursor={cursor}",
        f"/audit?cursor={cursor}",
        f"/tasks?tag=a:1&cursor={cursor[:-2]}xx",
    ):
        reply = admin.get(path)
        assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument"), path
        assert reply.json["detail"].startswith("cursor: ")


@has_bot
def test_collect_answers_in_the_order_asked(admin, clock):
    made = []
    for _ in range(3):
        made.append(admin.submit("x")["task_id"])
        clock.advance(1)
    asked = [made[1], made[0], made[2], made[1]]
    reply = admin.post("/tasks/collect", {"task_ids": asked})
    assert ids(reply) == asked
    assert reply.json["items"][0] == admin.get(f"/tasks/{made[1]}").json


@has_bot
def test_collect_of_many_reads_all(admin, clock):
    made = [admin.submit("x")["task_id"] for _ in range(60)]
    assert ids(admin.post("/tasks/collect", {"task_ids": made})) == made


@pytest.mark.parametrize(
    ("body", "status", "complaint"),
    [
        ({"task_ids": []}, 400, "/task_ids: has 0 entries, not from 1 to 1000"),
        ({"task_ids": ["1"] * 1001}, 400, "/task_ids: has 1001 entries"),
        ({"task_ids": ["76d045a8f1001990"]}, 404, "there is no task"),
        ({"task_ids": ["zz"]}, 404, "there is no task"),
        ({"task_ids": ["76d045a8f1001990"], "wait": 21}, 400, "/wait: is 21, not from 0 to 20"),
        ({"task_ids": ["76d045a8f1001990"], "wait": -1}, 400, "/wait: is -1"),
        ({"task_ids": ["76d045a8f1001990"], "known_final": -1}, 400, "/known_final: is -1"),
        ({"task_ids": "x"}, 400, "/task_ids: Expected"),
        ({}, 400, "the body: Object missing required field"),
    ],
)
def test_wrong_collect(admin, body, status, complaint):
    reply = admin.post("/tasks/collect", body)
    assert reply.status_code == status
    assert reply.json["detail"].startswith(complaint)


@has_bot
def test_cancel_of_a_pending_task(admin):
    task_id = admin.submit("x")["task_id"]
    reply = admin.post(f"/tasks/{task_id}/cancel", {"reason": "wrong\nbranch"})
    assert reply.json | {"task": None} == {"canceled": True, "was_running": False, "task": None}
    assert (reply.json["task"]["state"], reply.json["task"]["cause"]) == ("CANCELED", "operator")
    entry = admin.get("/audit").json["items"][0]
    again = admin.get("/audit").json["items"][1]
    entry = entry if entry["verb"] == "task.cancel" else again
    assert entry == {
        "at": "2026-03-04T06:06:07.089Z",
        "actor": "alice",
        "verb": "task.cancel",
        "target": f"task {task_id}",
        "reason": "wrong branch",
        "before": "PENDING",
        "after": "CANCELED",
    }
    again = admin.post(f"/tasks/{task_id}/cancel", {}).json
    assert (again["canceled"], again["was_running"]) == (False, False)


def test_cancel_of_a_running_task_needs_kill(admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    run_id = claim(ready_bot)
    spared = admin.post(f"/tasks/{task_id}/cancel", {}).json
    assert (spared["canceled"], spared["was_running"]) == (False, True)
    killed = admin.post(f"/tasks/{task_id}/cancel", {"kill_running": True}).json
    assert (killed["canceled"], killed["was_running"]) == (True, True)
    assert (killed["task"]["state"], killed["task"]["killing"]) == ("RUNNING", True)
    assert ready_bot.task_update(run_id, b"x")["must_stop"] is True
    ready_bot.finish(run_id, offset=1, exit_code=-9)
    assert admin.get(f"/tasks/{task_id}").json["state"] == "KILLED"


@pytest.mark.parametrize(
    "body", [{"kill": True}, {"kill_running": 1}, {"reason": "x" * 1001}, {"reason": None}]
)
@has_bot
def test_wrong_cancel_changes_nothing(admin, body):
    task_id = admin.submit("x")["task_id"]
    assert admin.post(f"/tasks/{task_id}/cancel", body).status_code == 400
    assert admin.get(f"/tasks/{task_id}").json["state"] == "PENDING"


@has_bot
def test_revoked_key_ends_at_once(admin, store, clock):
    revoke_api_key(store, admin.key.split("_")[1], now_ms=clock.now_ms())
    assert admin.get("/tasks").status_code == 401
