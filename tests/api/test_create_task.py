"""`POST /tasks`: every row of the table in docs/api.md, and every way to get it wrong."""

import base64
import json

import pytest

from botapi.domain.names import new_request_id, task_id
from tests.fakes.person import Person, new_key

SLICE = {"command": ["/bin/true"]}
NO_FILES = {
    "idempotent": False,
    "caches": [],
    "cas_input_root": None,
    "cipd_input": None,
    "outputs": [],
    "containment": {
        "containment_type": "NOT_SPECIFIED",
        "lower_priority": False,
        "limit_processes": 0,
        "limit_total_committed_memory": 0,
    },
    "has_secret_bytes": False,
    "properties_hash": None,
}
AUTOMATIC = {
    "authenticated:user:alice", "pool:default", "priority:100", "rbe:none", "realm:none",
    "service_account:none", "swarming.pool.task_template:none", "swarming.pool.version:r1",
    "user:none",
}  # fmt: skip
VIEW_KEYS = {
    "task_id", "run_id", "name", "state", "cause", "error", "user", "priority", "tags",
    "bot_ping_tolerance_s", "service_account", "realm", "slices", "slice_index",
    "created_at", "started_at", "completed_at",
    "abandoned_at", "bot_id", "exit_code", "duration_s", "failure", "internal_failure", "killing",
    "output_bytes", "missing_bytes", "output_limit_hit", "why", "cost_usd", "performance",
    "cas_output_root", "cipd_pins", "missing_cas", "missing_cipd",
    "authenticated", "parent_task_id", "root_task_id", "pubsub_topic", "pubsub_userdata",
    "pool_task_template", "secrets", "max_retries", "retry_of", "retry_number", "retried_as",
    "deduped_from", "cost_saved_usd", "late_bytes",
}  # fmt: skip


has_bot = pytest.mark.usefixtures("ready_bot")


@has_bot
def test_created_task_has_the_defaults(admin, clock):
    reply = admin.post("/tasks", {"command": ["/bin/echo", "hi"]})
    task = reply.json
    assert (reply.status_code, reply.headers["Location"]) == (
        201,
        f"/api/v1/tasks/{task['task_id']}",
    )
    assert set(task) == VIEW_KEYS
    assert task["slices"] == [
        {
            "command": ["/bin/echo", "hi"],
            "dimensions": {"pool": ["default"]},
            "env": {},
            "env_prefixes": {},
            "relative_cwd": "",
            "expiration_s": 3600,
            "hard_timeout_s": 3600,
            "io_timeout_s": 0,
            "grace_period_s": 30,
            "wait_for_capacity": False,
            **NO_FILES,
        }
    ]
    assert task["name"] == "/bin/echo"
    assert (task["state"], task["priority"], task["user"]) == ("PENDING", 100, "")
    assert (task["tags"], task["bot_ping_tolerance_s"]) == (sorted(AUTOMATIC), 1200)
    assert task["authenticated"] == "user:alice"
    assert task["created_at"] == "2026-03-04T06:06:07.089Z"
    assert task["run_id"] is task["started_at"] is task["bot_id"] is task["exit_code"] is None
    assert admin.get(f"/tasks/{task['task_id']}").json == task


@has_bot
def test_created_task_keeps_everything_that_was_said(admin):
    slices = [
        {
            "command": ["a", ""],
            "dimensions": {"pool": ["default"], "os": ["Linux|Mac"]},
            "env": {"A_1": "x", "B": ""},
            "env_prefixes": {"PATH": ["bin", "a/b"]},
            "relative_cwd": "sub/dir",
            "expiration_s": 30,
            "hard_timeout_s": 0,
            "io_timeout_s": 601_140,
            "grace_period_s": 0,
            "wait_for_capacity": True,
        },
        {
            "command": ["b"],
            "dimensions": {"id": ["vm1"], "pool": ["default"]},
            "env": {},
            "env_prefixes": {},
            "relative_cwd": "",
            "expiration_s": 604_800,
            "hard_timeout_s": 601_140,
            "io_timeout_s": 0,
            "grace_period_s": 3600,
            "wait_for_capacity": False,
        },
    ]
    body = {
        "name": "n" * 256,
        "priority": 255,
        "user": "bob",
        "tags": ["a:b", "c:", "a:b"],
        "bot_ping_tolerance_s": 60,
        "slices": slices,
    }
    task = admin.post("/tasks", body).json
    added = AUTOMATIC - {"priority:100", "user:none"}
    added |= {"priority:255", "user:bob", "os:Linux", "os:Mac", "id:vm1", "a:b", "c:"}
    slices = [slice_ | NO_FILES for slice_ in slices]
    expected = body | {"tags": sorted(added), "slices": slices}
    assert {key: task[key] for key in expected} == expected


WRONG = [
    ({}, "/command: is missing"),
    ({"command": []}, "/command: has 0 strings, not from 1 to 128"),
    ({"command": ["x"] * 129}, "/command: has 129 strings"),
    ({"command": [""]}, "/command/0: is empty"),
    ({"command": ["a", "b\0"]}, "/command/1: holds a NUL"),
    ({"command": "ls"}, "/command: Expected"),
    ({"command": ["a", 1]}, "/command/1: Expected"),
    ({**SLICE, "comand": []}, 'the body: Object contains unknown field "comand"'),
    ({"slices": [{**SLICE, "prio": 1}]}, '/slices/0: Object contains unknown field "prio"'),
    ({"slices": []}, "/slices: has 0 entries, not from 1 to 8"),
    ({"slices": [SLICE] * 9}, "/slices: has 9 entries"),
    ({"slices": [SLICE, SLICE]}, "/slices/1: is the same as an earlier slice"),
    ({"slices": [SLICE], "env": {}}, "/env: stands beside slices"),
    ({**SLICE, "priority": 0}, "/priority: is 0, not from 1 to 255"),
    ({**SLICE, "priority": 256}, "/priority: is 256"),
    ({**SLICE, "priority": True}, "/priority: Expected"),
    ({**SLICE, "name": "n" * 257}, "/name: has 257 characters"),
    ({**SLICE, "user": " x"}, "/user: has outer blanks"),
    ({**SLICE, "user": "x" * 257}, "/user: has 257 bytes"),
    ({**SLICE, "tags": ["a"]}, "/tags/0: has no key and colon; write key:value"),
    ({**SLICE, "tags": ["a:b", ":b"]}, "/tags/1: has no key and colon"),
    ({**SLICE, "tags": ["a:b "]}, "/tags/0: has outer blanks"),
    ({**SLICE, "tags": ["k" * 65 + ":v"]}, "/tags/0: its key has more than 64 bytes"),
    ({**SLICE, "tags": ["k:" + "v" * 257]}, "/tags/0: its value has more than 256 bytes"),
    ({**SLICE, "tags": ["swarming.terminate:1"]}, "/tags/0: the key swarming.terminate"),
    ({**SLICE, "tags": [f"k:{n}" for n in range(257)]}, "/tags: has 257 entries"),
    ({**SLICE, "bot_ping_tolerance_s": 59}, "/bot_ping_tolerance_s: is 59, not 0 or from"),
    ({**SLICE, "bot_ping_tolerance_s": 1201}, "/bot_ping_tolerance_s: is 1201"),
    ({**SLICE, "expiration_s": 29}, "/expiration_s: is 29, not from 30 to 604800"),
    ({**SLICE, "expiration_s": 604_801}, "/expiration_s: is 604801"),
    ({**SLICE, "expiration_s": "1h"}, "/expiration_s: Expected"),
    ({**SLICE, "hard_timeout_s": -1}, "/hard_timeout_s: is -1, not from 0 to 601140"),
    ({**SLICE, "io_timeout_s": 601_141}, "/io_timeout_s: is 601141"),
    ({**SLICE, "grace_period_s": 3601}, "/grace_period_s: is 3601, not from 0 to 3600"),
    ({**SLICE, "relative_cwd": "/etc"}, '/relative_cwd: "/etc" is not a plain path'),
    ({**SLICE, "relative_cwd": "a/../../b"}, "/relative_cwd: "),
    ({**SLICE, "relative_cwd": "a\\..\\..\\b"}, "/relative_cwd: "),
    ({**SLICE, "relative_cwd": "a//b"}, "/relative_cwd: "),
    ({**SLICE, "relative_cwd": "C:x"}, "/relative_cwd: "),
    ({**SLICE, "relative_cwd": "x" * 257}, "/relative_cwd: has 257 bytes"),
    ({**SLICE, "env": {"1A": "x"}}, "/env/1A: is no variable name"),
    ({**SLICE, "env": {"a/b~": "x"}}, "/env/a~1b~0: is no variable name"),
    ({**SLICE, "env": {"A": "x" * 1025}}, "/env/A: has 1025 bytes, at most 1024"),
    ({**SLICE, "env": {"A": "\0"}}, "/env/A: holds a NUL"),
    ({**SLICE, "env": {f"A{n}": "" for n in range(65)}}, "/env: has 65 keys, at most 64"),
    ({**SLICE, "env": {"A": 1}}, "/env/...: Expected"),
    ({**SLICE, "env_prefixes": {"PATH": []}}, "/env_prefixes/PATH: has no paths"),
    ({**SLICE, "env_prefixes": {"PATH": ["../x"]}}, "/env_prefixes/PATH/0: "),
    ({**SLICE, "env_prefixes": {"PATH": ["a\\b"]}}, "/env_prefixes/PATH/0: "),
    ({**SLICE, "dimensions": {"1k": ["v"]}}, "/dimensions/1k: key does not match"),
    ({**SLICE, "dimensions": {"k": []}}, "/dimensions/k: has no values"),
    ({**SLICE, "dimensions": {"k": [" v"]}}, "/dimensions/k/0: value has outer spaces"),
    ({**SLICE, "dimensions": {"k": ["a||b"]}}, "/dimensions/k/0: empty value"),
    ({**SLICE, "dimensions": {"k": ["v" * 257]}}, "/dimensions/k/0: value too long: 257 > 256"),
    ({**SLICE, "dimensions": {"pool": ["a", "b"]}}, '/dimensions: dimensions need exactly one'),
    ({**SLICE, "dimensions": {"pool": ["a|b"]}}, '/dimensions: dimensions need exactly one'),
    ({**SLICE, "dimensions": {"id": ["a|b"]}}, '/dimensions: dimensions may name at most'),
    ({**SLICE, "dimensions": {"k": ["v", "v"]}}, '/dimensions: dimension "k" repeats'),
    ({**SLICE, "dimensions": {"k": ["1|2|3"], "l": ["1|2|3"]}}, "/dimensions: dimensions combine"),
    ({**SLICE, "secret_bytes_b64": "e"}, "/secret_bytes_b64: is not base64"),
    ({"slices": [SLICE, {"command": []}]}, "/slices/1/command: has 0 strings"),
    ([], "the body: Expected"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "complaint"), WRONG)
def test_wrong_body_is_400_with_its_place_and_stores_nothing(admin, body, complaint):
    reply = admin.post("/tasks", body)
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")
    assert reply.json["detail"].startswith(complaint)
    assert admin.get("/tasks").json["items"] == []
    assert admin.get("/audit").json["items"] == []


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b'{"command": ["\xff"]}', b"[" * 5000])
def test_body_that_is_not_json_is_400(admin, text):
    reply = admin.post("/tasks", data=text)
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")
    assert "\n" not in reply.json["detail"]


def test_half_a_surrogate_pair_is_400(admin):
    reply = admin.post("/tasks", data=b'{"command": ["a\\ud800"]}')
    assert reply.status_code == 400


def test_body_over_one_mib_is_413(admin):
    body = json.dumps({"command": ["x" * 1024 * 1024]})
    reply = admin.post("/tasks", data=body)
    assert (reply.status_code, reply.json["code"]) == (413, "too_large")


@has_bot
def test_request_larger_than_a_document_is_413(admin):
    words = [base64.b64encode(bytes(5000)).decode()] * 128
    slices = [{"command": [*words, str(n)][-128:]} for n in range(2)]
    reply = admin.post("/tasks", {"slices": slices})
    assert (reply.status_code, reply.json["code"]) == (413, "too_large")


@has_bot
def test_idempotency_key_gives_the_first_task(admin):
    key = {"Idempotency-Key": "build-7/a_B"}
    first = admin.post("/tasks", SLICE, headers=key)
    again = admin.post("/tasks", {**SLICE, "priority": 7}, headers=key)
    other = admin.post("/tasks", SLICE, headers={"Idempotency-Key": "other"})
    assert [r.status_code for r in (first, again, other)] == [201, 200, 201]
    assert again.json == first.json
    assert other.json["task_id"] != first.json["task_id"]
    assert len(admin.get("/tasks").json["items"]) == 2
    assert len(admin.get("/audit").json["items"]) == 2


@has_bot
def test_idempotency_key_is_per_person(admin, client, store, clock, rng):
    bob = Person(client, new_key(store, clock, rng, "bob"))
    key = {"Idempotency-Key": "same"}
    tasks = [who.post("/tasks", SLICE, headers=key).json["task_id"] for who in (admin, bob)]
    assert len(set(tasks)) == 2


@has_bot
def test_idempotent_repeat_needs_no_bot_any_more(admin, store):
    key = {"Idempotency-Key": "once"}
    first = admin.post("/tasks", SLICE, headers=key).json
    store.transact(lambda txn: txn.delete("bot", "vm1"), label="test")
    again = admin.post("/tasks", {**SLICE, "dimensions": {"os": ["BeOS"]}}, headers=key)
    assert (again.status_code, again.json["task_id"]) == (200, first["task_id"])


@pytest.mark.parametrize("key", ["a b", "x" * 51, "é"])
def test_bad_idempotency_key_is_400(admin, key):
    reply = admin.post("/tasks", SLICE, headers={"Idempotency-Key": key})
    assert reply.status_code == 400
    assert "1 to 50" in reply.json["detail"]


@pytest.mark.spec("9.4.1.7")
@has_bot
def test_equal_tasks_of_one_millisecond_that_draw_one_id_stay_two(admin, parts, clock, monkeypatch):
    wanted = new_request_id(clock.now_ms(), 7)
    draws = iter([7, 7, 8])

    def randbits(count, real=parts.rng.randbits):
        return next(draws) if count == 16 else real(count)

    monkeypatch.setattr(parts.rng, "randbits", randbits)
    first, second = admin.submit("/bin/true"), admin.submit("/bin/true")
    assert first["task_id"] == task_id(wanted)
    assert second["task_id"] == task_id(new_request_id(clock.now_ms(), 8))


@has_bot
def test_creation_is_in_the_audit_record(admin):
    task = admin.submit("/bin/true")
    (entry,) = admin.get("/audit").json["items"]
    assert entry == {
        "at": "2026-03-04T06:06:07.089Z",
        "actor": "alice",
        "verb": "task.create",
        "target": f"task {task['task_id']}",
        "reason": "",
        "before": "",
        "after": "PENDING",
    }


def test_unknown_parameter_is_400(admin):
    reply = admin.post("/tasks?wiat=1", SLICE)
    assert reply.status_code == 400
    assert reply.json["detail"] == "?wiat: no such parameter; there are: dry_run, wait"
