"""Equal tasks that run once, through the API (bot-api 10.5)."""

import pytest

from botapi import engines
from botapi.cfg.bundle import Source
from botapi.concurrency import Threads
from botapi.domain.names import run_id
from botapi.store import codec
from botapi.transactions.delete_task import delete_output, delete_task
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG

BODY = {"command": ["/bin/echo", "hi"], "idempotent": True}
WEEK_S = 7 * 24 * 3600

pytestmark = pytest.mark.slow


@pytest.fixture
def store(settings, clock, rng):
    store = engines.open_store(settings, Threads(), clock, rng)
    yield store
    store.close()


@pytest.fixture
def run(admin, ready_bot):
    """Makes a task and runs it; its JSON when it has ended."""

    def through(body=BODY, exit_code=0, **more):
        task = admin.post("/tasks", body).json
        assert task["state"] == "PENDING"
        claimed = ready_bot.claim(ready_bot.update(nonblocking=False)["lease"])["task_id"]
        ready_bot.task_update(claimed, b"hello ")
        more = {"duration": 1.5, "cost_usd": 0.25, **more}
        ready_bot.task_update(claimed, b"world", 6, exit_code=exit_code, **more)
        return admin.get(f"/tasks/{task['task_id']}").json

    return through


def made(admin, **more):
    reply = admin.post("/tasks", {**BODY, **more})
    assert reply.status_code == 201, reply.text
    return reply.json


@pytest.mark.spec("10.5.1.2", "9.5.1.2", "9.5.1.6", "5.5.2.13", "13.1.43")
def test_equal_task_has_the_result_of_the_first_and_runs_no_second_time(admin, run, store, clock):
    original = run()
    clock.advance(60)
    task = made(admin, name="again", tags=["a:b"], priority=50, user="bob")
    assert task["task_id"] != original["task_id"]
    assert (task["state"], task["deduped_from"]) == ("COMPLETED", original["run_id"])
    same = ("bot_id", "started_at", "completed_at", "exit_code", "duration_s", "output_bytes")
    assert {key: task[key] for key in same} == {key: original[key] for key in same}
    assert (task["cost_usd"], task["cost_saved_usd"]) == (0.0, 0.25)
    assert (task["run_id"], task["why"]) == (original["run_id"], None)
    assert (task["name"], task["user"], task["priority"]) == ("again", "bob", 50)
    assert task["created_at"] > original["completed_at"]
    assert admin.get(f"/tasks/{task['task_id']}").json == task
    assert store.scan(codec.PEND, "", "\U0010ffff", limit=1) == []
    assert store.scan(codec.DUE, "", "\U0010ffff", limit=9) == []
    audit = admin.get("/audit").json["items"][0]
    assert (audit["target"], audit["after"]) == (f"task {task['task_id']}", "COMPLETED")


@pytest.mark.spec("10.5.1.2")
@pytest.mark.parametrize(("offset", "text"), [(0, b"hello world"), (8, b"rld"), (11, b"")])
def test_output_is_that_of_the_original(admin, run, offset, text):
    run()
    task = made(admin)
    reply = admin.get(f"/tasks/{task['task_id']}/output?offset={offset}&wait=20")
    assert (reply.data, reply.headers["X-Skep-Final"]) == (text, "1")


def test_output_ends_when_retention_has_taken_the_original(admin, run, store):
    original = run()
    task = made(admin)
    lo, hi = codec.output_range(original["task_id"])
    delete_output(store, store.scan_keys(codec.OUT, lo, hi, limit=10))
    assert delete_task(store, codec.task_key(original["task_id"]))
    reply = admin.get(f"/tasks/{task['task_id']}/output?wait=20")
    assert (reply.data, reply.headers["X-Skep-Final"]) == (b"", "1")
    assert admin.get(f"/tasks/{task['task_id']}").json["state"] == "COMPLETED"


@pytest.mark.spec("10.5.1.2")
def test_a_copy_is_never_copied_itself(admin, run):
    original = run()
    for _ in range(3):
        assert made(admin)["deduped_from"] == original["run_id"]


@pytest.mark.spec("10.5.1.2")
@pytest.mark.parametrize(
    "more",
    [
        {"idempotent": False},
        {"command": ["/bin/echo", "ho"]},
        {"env": {"A": "b"}},
        {"dimensions": {"os": ["Linux"]}},
        {"hard_timeout_s": 60},
    ],
)
def test_other_task_runs(admin, run, more):
    run()
    assert made(admin, **more)["state"] == "PENDING"


@pytest.mark.spec("10.5.1.2")
def test_how_long_it_may_wait_makes_no_other_task(admin, run):
    run()
    more = {"expiration_s": 60, "wait_for_capacity": True}
    assert made(admin, **more)["state"] == "COMPLETED"


@pytest.mark.spec("5.5.2.13", "10.5.1.2")
@pytest.mark.parametrize(
    "end", [{"exit_code": 1}, {"hard_timeout": True, "exit_code": 0}, {"canceled": True}]
)
def test_failure_stands_for_nothing(admin, run, end):
    run(**end)
    assert made(admin)["state"] == "PENDING"


@pytest.mark.spec("5.5.2.13")
def test_success_that_is_not_idempotent_stands_for_nothing(admin, run):
    run({"command": BODY["command"]})
    assert made(admin)["state"] == "PENDING"


@pytest.mark.spec("10.5.1.2")
def test_any_idempotent_slice_may_find_its_result(admin, run):
    original = run()
    slices = [{"command": ["other"], "idempotent": True}, {"command": ["third"]}, BODY]
    task = admin.post("/tasks", {"slices": slices}).json
    assert (task["deduped_from"], task["slice_index"]) == (original["run_id"], 0)


@pytest.mark.spec("10.5.1.2", "13.1.43")
def test_result_is_used_for_a_week(admin, run, clock, ready_bot):
    original = run()
    clock.advance(WEEK_S)
    assert made(admin)["deduped_from"] == original["run_id"]
    clock.advance(0.001)
    ready_bot.poll()
    assert made(admin)["state"] == "PENDING"


@pytest.mark.spec("7.8.1.2", "13.1.43")
def test_settings_say_how_long_a_result_is_used(admin, run, parts, clock):
    run()
    push_config(
        parts.store,
        Source(LOOPBACK_CFG, {}, settings="reusable_task_age_secs: 10"),
        parent=parts.config.latest().digest,
        author="test",
        now_ms=clock.now_ms(),
    )
    clock.advance(10)
    assert made(admin)["state"] == "COMPLETED"
    clock.advance(0.001)
    assert made(admin)["state"] == "PENDING"


@pytest.mark.spec("10.5.1.2")
def test_newest_result_is_taken(admin, ready_bot, clock):
    for _ in range(2):
        newest = made(admin)
        clock.advance(1)
    for _ in range(2):
        ready_bot.work(ready_bot.update(nonblocking=False)["lease"])
    assert made(admin)["deduped_from"] == run_id(newest["task_id"])


def test_equal_task_needs_no_bot(admin, run, store, clock):
    run()
    store.transact(lambda txn: txn.delete("bot", "vm1"), label="test")
    clock.advance(61)
    assert made(admin)["state"] == "COMPLETED"
    assert admin.post("/tasks", {"command": ["x"]}).json["code"] == "no_capacity"


def test_equal_tasks_that_wait_at_once_both_run(admin, ready_bot):
    tasks = [made(admin) for _ in range(2)]
    assert [task["state"] for task in tasks] == ["PENDING", "PENDING"]
    for _ in tasks:
        ready_bot.work(ready_bot.update(nonblocking=False)["lease"])
    ended = [admin.get(f"/tasks/{task['task_id']}").json for task in tasks]
    assert [(task["state"], task["deduped_from"]) for task in ended] == [("COMPLETED", None)] * 2


def test_copy_is_found_under_its_own_tags_and_not_as_a_run_of_the_bot(admin, run):
    original = run()
    task = made(admin, tags=["mine:1"])
    found = admin.get("/tasks?tag=mine:1&state=final").json["items"]
    assert [found_["task_id"] for found_ in found] == [task["task_id"]]
    runs = admin.get("/tasks?bot=vm1").json["items"]
    assert [found_["task_id"] for found_ in runs] == [original["task_id"]]


def test_copy_has_a_parent_as_any_task(admin, run, ready_bot):
    run()
    parent = admin.submit("other", user="carol")
    copy = made(admin, parent_task_id=parent["task_id"])
    assert (copy["state"], copy["user"]) == ("COMPLETED", "carol")
    assert copy["parent_task_id"] == run_id(parent["task_id"])
