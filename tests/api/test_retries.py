"""A final task made anew because a person wants it."""

import pytest

from botapi.store import codec

has_bot = pytest.mark.usefixtures("ready_bot")


def request_of(store, task_id):
    (doc,) = store.get(codec.REQ, codec.task_key(task_id))
    return codec.read_request(doc)


def retry(admin, task_id, **body):
    return admin.post(f"/tasks/{task_id}/retry", body)


def canceled(admin, **more):
    task_id = admin.submit("/bin/echo", "x", **more)["task_id"]
    admin.post(f"/tasks/{task_id}/cancel", {})
    return task_id


@has_bot
def test_retry_is_a_new_task_that_asks_for_the_same(admin, store):
    first = canceled(admin, tags=["job:a"], env={"A": "1"}, priority=50, name="n", max_retries=2)
    reply = retry(admin, first, reason="try\nagain")
    assert (reply.status_code, reply.json["state"]) == (201, "PENDING"), reply.text
    assert reply.headers["Location"].endswith(reply.json["task_id"])
    before, after = request_of(store, first), request_of(store, reply.json["task_id"])
    assert (after.retry_of, after.retry_number, after.max_retries) == (first, 0, 2)
    assert after.slices == before.slices
    template = "swarming.pool.task_template"
    assert set(before.tags) - set(after.tags) == {f"{template}:none"}
    assert set(after.tags) - set(before.tags) == {f"{template}:skip"}
    assert (after.name, after.priority, after.user) == ("n", 50, before.user)
    entries = admin.get("/audit?limit=100").json["items"]
    (entry,) = [entry for entry in entries if entry["verb"] == "task.retry"]
    assert (entry["actor"], entry["reason"]) == ("alice", "try again")
    assert entry["target"] == f"task {after.task_id}"


def test_retry_on_the_same_bot_names_it(admin, ready_bot, store):
    task_id = admin.submit("x")["task_id"]
    ready_bot.work(ready_bot.update()["lease"], exit_code=1)
    reply = retry(admin, task_id, same_bot=True)
    (slice_,) = request_of(store, reply.json["task_id"]).slices
    assert dict(slice_.dimensions) == {"pool": ("default",), "id": ("vm1",)}
    assert ready_bot.update()["lease"]["payload"]["task_id"] == reply.json["task_id"]


@has_bot
def test_retry_runs_also_when_a_result_could_stand_for_it(admin, ready_bot, store):
    task_id = admin.submit("x", idempotent=True)["task_id"]
    ready_bot.work(ready_bot.update()["lease"])
    assert retry(admin, task_id).json["state"] == "PENDING"


@has_bot
def test_retry_with_one_idempotency_key_is_made_once(admin):
    task_id = canceled(admin)
    headers = {"Idempotency-Key": "k1"}
    first = admin.post(f"/tasks/{task_id}/retry", {}, headers=headers)
    again = admin.post(f"/tasks/{task_id}/retry", {}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json["task_id"] == first.json["task_id"]


@has_bot
@pytest.mark.parametrize(
    ("make", "body", "line"),
    [
        (lambda admin: admin.submit("x")["task_id"], {}, "is PENDING; only a task that has ended"),
        (canceled, {"same_bot": True}, "never had a bot"),
        (
            lambda admin: admin.post("/bots/vm1/terminate", {}).json["task_id"],
            {},
            "is a termination task",
        ),
    ],
)
def test_retry_is_refused_where_it_makes_no_sense(admin, make, body, line):
    reply = retry(admin, make(admin), **body)
    assert reply.status_code in {400, 409, 412}, reply.text
    assert reply.json["code"] == "failed_precondition"
    assert line in reply.json["detail"]


@has_bot
def test_retry_of_nothing_or_for_too_long_a_reason_is_refused(admin):
    assert retry(admin, "76d045a8f1001990").status_code == 404
    assert retry(admin, canceled(admin), reason="x" * 1001).status_code == 400
    assert retry(admin, canceled(admin), what=1).status_code == 400
