"""The bounds of tasks (bot-api 13), each just within and just beyond, where tasks are made."""

import pytest

from botapi.domain.task import Task, TaskState
from botapi.store import codec
from tests.factories import make_request, make_slice
from tests.fakes.person import Person, new_key
from tests.handlers.test_life_of_a_bot import stored_bot, submit

SLICE = {"command": ["x"], "wait_for_capacity": True}


@pytest.fixture
def admin(client, store, clock, rng):
    return Person(client, new_key(store, clock, rng))


def asking(**dimensions):
    return {**SLICE, "dimensions": dimensions}


def numbered(count):
    return [str(number) for number in range(count)]


BOUNDS = [
    pytest.param(
        {"bot_ping_tolerance_s": 60},
        {"bot_ping_tolerance_s": 59},
        marks=pytest.mark.spec("13.1.22"),
        id="ping tolerance, least",
    ),
    pytest.param(
        {"bot_ping_tolerance_s": 1200},
        {"bot_ping_tolerance_s": 1201},
        marks=pytest.mark.spec("13.1.22"),
        id="ping tolerance, most",
    ),
    pytest.param(
        asking(**{"k" * 64: ["v"]}),
        asking(**{"k" * 65: ["v"]}),
        marks=pytest.mark.spec("13.1.25", "10.1.1.8"),
        id="dimension key",
    ),
    pytest.param(
        asking(k=["ü" * 128]),
        asking(k=["ü" * 128 + "v"]),
        marks=pytest.mark.spec("13.1.25", "10.1.1.8"),
        id="dimension value, in bytes",
    ),
    pytest.param(
        asking(k=["v" * 256 + "|w"]),
        asking(k=["v" * 257 + "|w"]),
        marks=pytest.mark.spec("13.1.25", "10.1.1.8"),
        id="each alternative of a dimension",
    ),
    pytest.param(
        asking(k=numbered(511)),
        asking(k=numbered(512)),
        marks=pytest.mark.spec("13.1.27", "10.1.1.6"),
        id="alternatives, the pool among them",
    ),
    pytest.param(
        asking(a=["1|2"], b=["1|2|3|4"]),
        asking(a=["1|2|3"], b=["1|2|3"]),
        marks=pytest.mark.spec("13.1.27", "10.1.1.7"),
        id="product of alternatives",
    ),
    pytest.param(
        asking(pool=["p"]),
        asking(pool=["p", "q"]),
        marks=pytest.mark.spec("10.1.1.1"),
        id="one pool",
    ),
    pytest.param(
        asking(pool=["p"]),
        asking(pool=["p|q"]),
        marks=pytest.mark.spec("10.1.1.1"),
        id="one pool without alternatives",
    ),
    pytest.param(
        {"slices": [asking(pool=["p"]), asking(pool=["p"], os=["a"])]},
        {"slices": [asking(pool=["p"]), asking(pool=["q"])]},
        marks=pytest.mark.spec("10.1.1.1"),
        id="the same pool in every slice",
    ),
    pytest.param(
        asking(id=["a"]),
        asking(id=["a", "b"]),
        marks=pytest.mark.spec("10.1.1.2"),
        id="one id",
    ),
    pytest.param(
        asking(id=["a"]),
        asking(id=["a|b"]),
        marks=pytest.mark.spec("10.1.1.2"),
        id="one id without alternatives",
    ),
    pytest.param(
        asking(k=["a|b"]),
        asking(k=["a|b|a"]),
        marks=pytest.mark.spec("10.1.1.5"),
        id="an alternative once",
    ),
    pytest.param(
        asking(k=["a|b", "a"]),
        asking(k=["a", "b", "a"]),
        marks=pytest.mark.spec("10.1.1.5"),
        id="a constraint once",
    ),
    pytest.param(
        {"slices": [asking(n=[n]) for n in numbered(8)]},
        {"slices": [asking(n=[n]) for n in numbered(9)]},
        marks=pytest.mark.spec("13.1.28"),
        id="slices",
    ),
    pytest.param(
        {"expiration_s": 30},
        {"expiration_s": 29},
        marks=pytest.mark.spec("13.1.29"),
        id="expiration, least",
    ),
    pytest.param(
        {"expiration_s": 604_800},
        {"expiration_s": 604_801},
        marks=pytest.mark.spec("13.1.29"),
        id="expiration, most",
    ),
    pytest.param({"hard_timeout_s": 0}, {"hard_timeout_s": -1}, id="execution, least"),
    pytest.param(
        {"hard_timeout_s": 601_140},
        {"hard_timeout_s": 601_141},
        marks=pytest.mark.spec("13.1.30"),
        id="execution, most",
    ),
    pytest.param({"io_timeout_s": 0}, {"io_timeout_s": -1}, id="silence, least"),
    pytest.param(
        {"io_timeout_s": 601_140},
        {"io_timeout_s": 601_141},
        marks=pytest.mark.spec("13.1.30"),
        id="silence, most",
    ),
    pytest.param(
        {"grace_period_s": 0},
        {"grace_period_s": -1},
        marks=pytest.mark.spec("13.1.31"),
        id="grace, least",
    ),
    pytest.param(
        {"grace_period_s": 3600},
        {"grace_period_s": 3601},
        marks=pytest.mark.spec("13.1.31"),
        id="grace, most",
    ),
    pytest.param(
        {"command": ["x"] * 128},
        {"command": ["x"] * 129},
        marks=pytest.mark.spec("13.1.32"),
        id="arguments, most",
    ),
    pytest.param(
        {"command": ["x"]},
        {"command": []},
        marks=pytest.mark.spec("13.1.32"),
        id="arguments, least",
    ),
    pytest.param(
        {"env": {f"A{n}": "" for n in range(64)}},
        {"env": {f"A{n}": "" for n in range(65)}},
        marks=pytest.mark.spec("13.1.33"),
        id="variables",
    ),
    pytest.param(
        {"env": {"A" * 64: ""}},
        {"env": {"A" * 65: ""}},
        marks=pytest.mark.spec("13.1.33"),
        id="name of a variable",
    ),
    pytest.param(
        {"env": {"A": "x" * 1024}},
        {"env": {"A": "x" * 1025}},
        marks=pytest.mark.spec("13.1.33"),
        id="value of a variable",
    ),
    pytest.param(
        {"env_prefixes": {f"A{n}": ["b"] for n in range(64)}},
        {"env_prefixes": {f"A{n}": ["b"] for n in range(65)}},
        marks=pytest.mark.spec("13.1.33"),
        id="variables with prefixes",
    ),
    pytest.param(
        {"tags": [f"k:{n}" for n in range(256)]},
        {"tags": [f"k:{n}" for n in range(257)]},
        marks=pytest.mark.spec("13.1.38"),
        id="tags",
    ),
    pytest.param(
        {"tags": ["k" * 64 + ":v"]},
        {"tags": ["k" * 65 + ":v"]},
        marks=pytest.mark.spec("13.1.38"),
        id="key of a tag",
    ),
    pytest.param(
        {"tags": ["k:" + "v" * 256]},
        {"tags": ["k:" + "v" * 257]},
        marks=pytest.mark.spec("13.1.38"),
        id="value of a tag",
    ),
    pytest.param(
        {"tags": ["swarming.terminated:1"]},
        {"tags": ["swarming.terminate:1"]},
        marks=pytest.mark.spec("9.4.1.10"),
        id="the tag of a termination task",
    ),
    pytest.param(
        {"priority": 1},
        {"priority": 0},
        marks=pytest.mark.spec("13.1.39", "9.4.1.10", "10.6.p1"),
        id="priority, least",
    ),
    pytest.param(
        {"priority": 255},
        {"priority": 256},
        marks=pytest.mark.spec("13.1.39"),
        id="priority, most",
    ),
    pytest.param({"relative_cwd": "x" * 256}, {"relative_cwd": "x" * 257}, id="folder"),
]


@pytest.mark.parametrize(("within", "beyond"), BOUNDS)
def test_bound_holds_just_within_and_just_beyond(admin, within, beyond):
    start = {} if "slices" in within else SLICE
    made = admin.post("/tasks", start | within)
    assert made.status_code == 201, made.text
    reply = admin.post("/tasks", start | beyond)
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")
    assert len(admin.get("/tasks").json["items"]) == 1


@pytest.mark.spec("13.1.22")
def test_ping_tolerance_is_twenty_minutes_when_nothing_is_said(admin):
    assert admin.post("/tasks", SLICE).json["bot_ping_tolerance_s"] == 1200


@pytest.mark.spec("13.1.42", "9.5.1.5", "10.5.1.1")
def test_request_uuid_is_known_for_seven_days(admin, clock):
    key = {"Idempotency-Key": "u"}
    first = admin.post("/tasks", SLICE, headers=key).json["task_id"]
    clock.advance(7 * 24 * 3600 - 1)
    again = admin.post("/tasks", {**SLICE, "name": "other"}, headers=key)
    assert (again.status_code, again.json["task_id"]) == (200, first)
    clock.advance(1)
    assert admin.post("/tasks", SLICE, headers=key).status_code == 201


@pytest.mark.spec("13.1.45", "10.2.p1", "B.1.5")
def test_lease_names_the_shard_of_its_slice(parts, make_bot):
    bot = make_bot("vm1-m1").start()
    submit(parts, slices=[make_slice(command=(), dimensions={"id": ("vm1-m1",)})])
    lease = bot.update(nonblocking=False)["lease"]
    assert lease["payload"]["task_to_run_shard"] == 15
    assert bot.claim(lease)["cmd"] == "terminate"


@pytest.mark.spec("13.1.46")
def test_page_has_a_hundred_items_and_at_most_a_thousand(admin, store):
    for number in range(101):
        store.transact(lambda txn, n=number: _put(txn, make_request(n)), label="test")
    assert len(admin.get("/tasks").json["items"]) == 100
    assert len(admin.get("/tasks?limit=1000").json["items"]) == 101
    assert admin.get("/tasks?limit=1001").status_code == 400
    assert admin.get("/tasks?limit=0").status_code == 400


def _put(txn, request):
    task = Task(request.task_id, TaskState.CANCELED, "t", "", "p", 1, (), 1, 1)
    txn.put(codec.REQ, codec.request_doc(request))
    txn.put(codec.TASK, codec.task_doc(task))


@pytest.mark.spec("13.1.47")
def test_thousand_tasks_may_be_asked_for_at_once(admin, store):
    request = make_request()
    store.transact(lambda txn: _put(txn, request), label="test")
    asked = {"task_ids": [request.task_id] * 1_000}
    assert len(admin.post("/tasks/collect", asked).json["items"]) == 1_000
    asked["task_ids"].append(request.task_id)
    assert admin.post("/tasks/collect", asked).status_code == 400


@pytest.mark.spec("9.4.1.5", "9.4.1.8", "9.4.1.9")
def test_task_is_found_by_both_ids_and_shown_with_both(parts, admin, make_bot):
    bot = make_bot().start()
    task_id = admin.post("/tasks", SLICE).json["task_id"]
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    assert (task_id[-1], run_id) == ("0", task_id[:-1] + "1")
    for name in (task_id, run_id, task_id[:-1] + "f"):
        shown = admin.get(f"/tasks/{name}").json
        assert (shown["task_id"], shown["run_id"]) == (task_id, run_id)
    assert stored_bot(parts).task_id == run_id
    assert admin.get("/bots/vm1").json["task_id"] == task_id


@pytest.mark.spec("9.1.1.1", "9.1.1.2", "9.1.1.9", "9.1.1.12")
def test_bot_is_kept_as_it_described_itself(parts, admin, make_bot, clock):
    bot = make_bot(dims={"z": ["2", "1"], "a": ["x"]}).start()
    flat = stored_bot(parts).dimensions
    assert (
        flat == tuple(sorted(flat)) == ("a:x", "id:vm1", "os:Linux", "pool:default", "z:1", "z:2")
    )
    clock.advance(5)
    bot.state = {"free_mb": 7, "nested": {"a": [1, None]}}
    bot.poll()
    shown = admin.get("/bots/vm1").json
    assert shown["state"] == bot.state
    assert (shown["first_seen_at"], shown["last_seen_at"]) == (
        "2026-03-04T06:06:07.089Z",
        "2026-03-04T06:06:12.089Z",
    )
    assert [item["bot_id"] for item in admin.get("/bots?dimension=z:1").json["items"]] == ["vm1"]
    assert admin.get("/bots?dimension=z:3").json["items"] == []


@pytest.mark.spec("9.1.1.9")
def test_update_of_a_task_is_heard_at_once_and_stored_later(parts, store, make_bot, clock):
    """The reference server writes at most every 20 s, and only then; ours keeps it in memory."""
    bot = make_bot().start()
    submit(parts)
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    before = store.get(codec.LIVE, codec.live_key("vm1"))
    clock.advance(19)
    assert bot.task_update(run_id)["ok"] is True
    live = parts.last_seen.get("vm1")["vm1"]
    assert live.seen_ms == live.run_seen_ms == clock.now_ms()
    assert store.get(codec.LIVE, codec.live_key("vm1")) == before
