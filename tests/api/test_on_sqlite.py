"""The same answers on the store with a file behind it."""

import pytest

from botapi import engines
from botapi.concurrency import Threads


@pytest.fixture
def store(settings, clock, rng):
    store = engines.open_store(settings, Threads(), clock, rng)
    yield store
    store.close()


@pytest.mark.slow
def test_life_of_a_task(admin, ready_bot, clock):
    task = admin.submit("x", tags=["a:b"])
    assert task["why"] == "1 bot matches: 1 idle"
    run_id = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    ready_bot.task_update(run_id, b"hello ")
    ready_bot.finish(run_id, b"world", 6)
    (found,) = admin.get("/tasks?tag=a:b&state=final&bot=vm1").json["items"]
    assert (found["task_id"], found["state"]) == (task["task_id"], "COMPLETED")
    output = admin.get(f"/tasks/{task['task_id']}/output?offset=3&wait=20")
    assert (output.data, output.headers["X-Skep-Final"]) == (b"lo world", "1")


@pytest.mark.slow
def test_pages_and_counts(admin, make_bot, clock):
    for n in range(3):
        make_bot(f"vm{n}").start()
    first = admin.get("/bots?limit=2&dimension=os:Linux").json
    second = admin.get(f"/bots?limit=2&dimension=os:Linux&cursor={first['next_cursor']}").json
    assert [bot["bot_id"] for bot in first["items"] + second["items"]] == ["vm0", "vm1", "vm2"]
    assert first["counts"]["idle"] == 3
    refused = admin.post("/tasks", {"command": ["x"], "dimensions": {"os": ["Mac"]}})
    assert (refused.status_code, refused.json["code"]) == (409, "no_capacity")
    assert admin.get("/tasks").json["items"] == []


@pytest.mark.slow
def test_idempotency_and_collect(admin, ready_bot):
    key = {"Idempotency-Key": "k"}
    first = admin.post("/tasks", {"command": ["x"]}, headers=key)
    again = admin.post("/tasks", {"command": ["y"]}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    ready_bot.work(ready_bot.update()["lease"])
    body = {"task_ids": [first.json["task_id"]], "wait": 20}
    assert admin.post("/tasks/collect", body).json["items"][0]["state"] == "COMPLETED"
