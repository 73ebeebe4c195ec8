"""What `POST /tasks` makes of a task beyond its own words: the rows of bot-api 10.7, and dry runs.

On the store with a file behind it.
"""

import base64

import pytest

from botapi import engines
from botapi.cfg.bundle import Source
from botapi.concurrency import Threads
from botapi.domain.names import run_id
from botapi.transactions.push_config import push_config
from tests.domain.test_new_task import WRONG
from tests.factories import LOOPBACK_CFG

pytestmark = pytest.mark.slow
SLICE = {"command": ["/bin/true"], "wait_for_capacity": True}
DIGEST = {"hash": "ab" * 32, "size_bytes": 12}
PACKAGE = {"package_name": "tool", "version": "version:1", "path": "bin"}
CLIENT = {"package_name": "client", "version": "version:2", "path": ""}


@pytest.fixture
def store(settings, clock, rng):
    store = engines.open_store(settings, Threads(), clock, rng)
    yield store
    store.close()


@pytest.fixture
def configure(parts, clock):
    """Puts a pools.cfg and settings.cfg in force."""

    def put(pools="", settings=""):
        parent = parts.config.latest().digest
        source = Source(LOOPBACK_CFG, {}, pools, settings)
        push_config(parts.store, source, parent=parent, author="test", now_ms=clock.now_ms())

    return put


def refused(reply, status=400):
    assert reply.status_code == status, reply.text
    return reply.json["detail"]


def slice_with(**more):
    return {**SLICE, **more}


def packages(*found, **more):
    given = {"server": "https://p.example.com", "client_package": CLIENT, **more}
    return {"packages": list(found) or [PACKAGE], **given}


def row(number, body, complaint, *more):
    marks = pytest.mark.spec(f"10.7.1.{number}", *more)
    return pytest.param(body, complaint, marks=marks, id=f"{number}-{complaint}")


ROWS = [
    row(1, slice_with(name="n" * 257), "/name: has 257 characters"),
    row(2, {"slices": []}, "/slices: has 0 entries"),
    row(2, {"slices": [SLICE] * 9}, "/slices: has 9 entries"),
    row(2, {"slices": [SLICE, SLICE]}, "/slices/1: is the same as an earlier slice"),
    row(3, {"slices": [SLICE], "expiration_s": 60}, "/expiration_s: stands beside slices"),
    row(3, {"slices": [SLICE], "command": ["x"]}, "/command: stands beside slices"),
    row(4, slice_with(expiration_s=29), "/expiration_s: is 29, not from 30 to 604800"),
    row(5, slice_with(hard_timeout_s=601_141), "/hard_timeout_s: is 601141, not from 0 to 601140"),
    row(6, slice_with(io_timeout_s=601_141), "/io_timeout_s: is 601141"),
    row(7, slice_with(grace_period_s=3601), "/grace_period_s: is 3601"),
    row(8, slice_with(command=[]), "/command: has 0 strings"),
    row(9, slice_with(relative_cwd="/x"), '/relative_cwd: "/x" is not a plain path'),
    row(10, slice_with(env={"1": ""}), "/env/1: is no variable name"),
    row(10, slice_with(env_prefixes={"A": ["/x"]}), '/env_prefixes/A/0: "/x" is not'),
    row(11, slice_with(caches=[{"name": "A", "path": "a"}]), "/caches/0/name: is not 1 to 128"),
    row(
        11,
        slice_with(caches=[{"name": "a", "path": "x"}, {"name": "b", "path": "x/y"}]),
        '/caches/1/path: "x/y" overlaps "x"',
    ),
    row(
        11,
        slice_with(caches=[{"name": "a", "path": "bin"}], cipd_input=packages()),
        '/cipd_input/packages/0/path: "bin" overlaps the cache "a"',
    ),
    row(12, slice_with(cipd_input=packages(server="http://x.org")), "/cipd_input/server: is not"),
    row(
        13,
        slice_with(cas_input_root={"digest": {"hash": ""}}),
        "/cas_input_root/digest/hash: is missing",
    ),
    row(
        13,
        slice_with(cas_input_root={"cas_instance": "x", "digest": DIGEST}),
        "/cas_input_root/cas_instance: is not projects/<project>",
    ),
    row(14, slice_with(outputs=["../x"]), '/outputs/0: "../x" is not a plain path'),
    row(
        15,
        slice_with(secret_bytes_b64=base64.b64encode(b"x" * 20_481).decode()),
        "/secret_bytes: has 20481 bytes, at most 20480",
    ),
    row(
        15,
        {"slices": [slice_with(secret_bytes_b64="eA=="), slice_with(secret_bytes_b64="eQ==")]},
        "/slices/1/secret_bytes: differ from those of an earlier slice",
    ),
    row(16, slice_with(tags=["nocolon"]), "/tags/0: has no key and colon; write key:value"),
    row(16, slice_with(tags=["k:v"] + [f"k:{n}" for n in range(256)]), "/tags: has 257 entries"),
    row(16, slice_with(tags=["swarming.terminate:1"]), "/tags/0: the key swarming.terminate"),
    row(17, slice_with(priority=0), "/priority: is 0, not from 1 to 255"),
    row(18, slice_with(service_account="me"), "/service_account: is neither none, bot nor"),
    row(19, slice_with(bot_ping_tolerance_s=59), "/bot_ping_tolerance_s: is 59, not 0 or from"),
    row(20, slice_with(pubsub_topic="t"), "/pubsub_topic: is not projects/<project>/topics/"),
    row(20, slice_with(pubsub_userdata="u"), "/pubsub_userdata: needs a pubsub_topic"),
    row(21, slice_with(realm="x"), '/realm: is not "project:name"'),
    row(22, slice_with(parent_task_id="x"), '/parent_task_id: "x" is no task id'),
    row(23, slice_with(outputs=["a\\b"]), '/outputs/0: "a\\b" is not a plain path'),
    row(23, slice_with(caches=[{"name": "a", "path": ""}]), '/caches/0/path: "" is not a plain'),
]


def test_every_row_of_the_table_is_here():
    held = {mark.args[0] for param in ROWS for mark in param.marks}
    assert held == {f"10.7.1.{n}" for n in range(1, 24)}
    assert {mark.args[0] for param in WRONG for mark in param.marks} == held - {"10.7.1.3"}


@pytest.mark.parametrize(("body", "complaint"), ROWS)
def test_row_of_the_table_is_refused_with_its_place_and_stores_nothing(admin, body, complaint):
    line = refused(admin.post("/tasks", body))
    assert line.startswith(complaint)
    assert "\n" not in line
    assert admin.get("/tasks").json["items"] == []
    assert admin.get("/audit").json["items"] == []


def test_ten_megabytes_of_tags_are_refused_at_once(admin):
    reply = admin.post("/tasks", slice_with(tags=["k:" + "v" * 250] * 40_000))
    assert (reply.status_code, reply.json["code"]) == (413, "too_large")


@pytest.mark.spec("9.5.1.1", "9.5.1.2", "9.5.1.3", "10.7.1.20")
def test_everything_that_was_said_is_shown_again(admin):
    body = {
        "name": "all",
        "pubsub_topic": "projects/p/topics/t",
        "pubsub_auth_token": "hidden",
        "pubsub_userdata": "u",
        "max_retries": 3,
        "slices": [
            slice_with(
                idempotent=True,
                caches=[{"name": "git", "path": "cache/git"}],
                cas_input_root={"cas_instance": "projects/a/instances/b", "digest": DIGEST},
                cipd_input=packages(),
                outputs=["out/a"],
                containment={
                    "containment_type": "JOB_OBJECT",
                    "lower_priority": True,
                    "limit_processes": 5,
                    "limit_total_committed_memory": 6,
                },
            )
        ],
    }
    reply = admin.post("/tasks", body)
    task = reply.json
    assert reply.status_code == 201, reply.text
    assert "hidden" not in reply.text
    (shown,) = task["slices"]
    assert len(shown["properties_hash"]) == 64
    (said,) = body["slices"]
    assert {key: shown[key] for key in said} == said
    assert (task["pubsub_topic"], task["pubsub_userdata"]) == ("projects/p/topics/t", "u")
    assert task["max_retries"] == 3
    assert admin.get(f"/tasks/{task['task_id']}").json == task


def test_files_are_of_the_servers_own_store_when_nothing_else_is_said(admin):
    task = admin.submit(wait_for_capacity=True, cas_input_root={"digest": DIGEST})
    root = task["slices"][0]["cas_input_root"]
    assert root == {"cas_instance": "projects/local/instances/default", "digest": DIGEST}


@pytest.mark.spec("10.7.1.12", "prpc:4.2.2")
def test_server_and_client_of_packages_come_from_the_configuration(admin, configure):
    asked = {"packages": [PACKAGE]}
    line = refused(admin.post("/tasks", slice_with(cipd_input=asked)))
    assert line.startswith("/cipd_input/server: is missing, and pools.cfg says none")
    configure(
        'default_external_services { cipd { server: "https://d.example.com" '
        'client_package { pkg: "c" version: "v:1" } } }'
    )
    shown = admin.submit(wait_for_capacity=True, cipd_input=asked)["slices"][0]["cipd_input"]
    assert shown == {
        "server": "https://d.example.com",
        "client_package": {"package_name": "c", "version": "v:1", "path": ""},
        "packages": [PACKAGE],
    }
    own = admin.submit(wait_for_capacity=True, cipd_input=packages())["slices"][0]["cipd_input"]
    assert (own["server"], own["client_package"]) == ("https://p.example.com", CLIENT)


def test_unknown_secret_is_refused(admin):
    line = refused(admin.post("/tasks", slice_with(secrets={"TOKEN": "npm"})))
    assert line == '/secrets/TOKEN: pool "default" has no secret "npm"'


POOL = 'pool {{ name: "default" realm: "p:x" default_task_realm: "p:x" {} }}'
DEPLOYMENT = """
task_template { name: "base" env { var: "BASE" value: "1" } }
task_template_deployment { name: "d"
  prod { include: "base" env { var: "KIND" value: "prod" } }
  canary { include: "base" env { var: "KIND" value: "canary" } }
  canary_chance: %d }
"""


@pytest.mark.spec("7.7.1.4", "prpc:6.1.1.12")
@pytest.mark.parametrize(
    ("choice", "chance", "name", "env"),
    [
        (None, 0, "prod", {"BASE": "1", "KIND": "prod"}),
        (None, 5000, "canary", {"BASE": "1", "KIND": "canary"}),
        ("CANARY_NEVER", 5000, "prod", {"BASE": "1", "KIND": "prod"}),
        ("CANARY_PREFER", 0, "canary", {"BASE": "1", "KIND": "canary"}),
        ("SKIP", 5000, "skip", {}),
    ],
)
def test_pool_template_is_applied_and_named(admin, configure, choice, chance, name, env):
    configure(DEPLOYMENT % chance + POOL.format('task_template_deployment: "d"'))
    more = {"pool_task_template": choice} if choice else {}
    task = admin.submit(wait_for_capacity=True, **more)
    assert (task["slices"][0]["env"], task["pool_task_template"]) == (env, name)
    assert f"swarming.pool.task_template:{name}" in task["tags"]
    assert "swarming.pool.version:r2" in task["tags"]


@pytest.mark.spec("7.7.1.4")
def test_task_that_contradicts_the_template_is_refused(admin, configure):
    configure(DEPLOYMENT % 0 + POOL.format('task_template_deployment: "d"'))
    line = refused(admin.post("/tasks", slice_with(env={"KIND": "own"})))
    assert line.startswith("/env/KIND: is set by the pool's task template")
    skipped = {"pool_task_template": "SKIP"}
    assert admin.post("/tasks", slice_with(env={"KIND": "own"}, **skipped)).status_code == 201


@pytest.mark.spec("10.7.1.19")
def test_ping_tolerance_of_zero_means_twenty_minutes(admin):
    assert (
        admin.submit(wait_for_capacity=True, bot_ping_tolerance_s=0)["bot_ping_tolerance_s"] == 1200
    )


@pytest.fixture
def running(admin, ready_bot):
    """A task that goes on: its run id, and the bot."""
    admin.submit(user="carol")
    return ready_bot.claim(ready_bot.update()["lease"])["task_id"]


@pytest.mark.spec("10.7.1.22", "9.5.1.1", "prpc:6.1.1.3", "prpc:6.1.1.8")
def test_child_has_the_user_and_the_root_of_its_parent(admin, running):
    child = admin.submit(parent_task_id=running, user="mallory", wait_for_capacity=True)
    assert (child["user"], child["parent_task_id"]) == ("carol", running)
    assert child["root_task_id"] == running
    assert {f"parent_task_id:{running}", "user:carol"} <= set(child["tags"])
    by_task_id = admin.submit(parent_task_id=child["task_id"], wait_for_capacity=True)
    assert by_task_id["parent_task_id"] == run_id(child["task_id"])
    assert by_task_id["root_task_id"] == running
    found = admin.get(f"/tasks?tag=parent_task_id:{running}").json["items"]
    assert [task["task_id"] for task in found] == [child["task_id"]]


@pytest.mark.spec("10.7.1.22", "prpc:6.1.1.3")
def test_parent_must_be_there_and_go_on(admin, running, ready_bot):
    unknown = admin.post("/tasks", slice_with(parent_task_id="76d00eba71bee010"))
    assert refused(unknown, 404) == '/parent_task_id: there is no task "76d00eba71bee010"'
    ready_bot.finish(running)
    line = refused(admin.post("/tasks", slice_with(parent_task_id=running)))
    assert line.startswith(f'/parent_task_id: task "{running}" has ended')


@pytest.mark.spec("10.7.1.22", "prpc:6.1.1.3")
def test_termination_task_has_no_children(admin, ready_bot):
    task = admin.post("/bots/vm1/terminate", {"reason": "update"}).json
    line = refused(admin.post("/tasks", slice_with(parent_task_id=task["task_id"])))
    assert line.endswith("is a termination task, which has no children")


@pytest.mark.spec("prpc:6.1.1.14")
def test_repeat_gives_the_first_task_only_after_all_checks(admin, clock):
    key = {"headers": {"Idempotency-Key": "once"}}
    first = admin.post("/tasks", SLICE, **key).json
    wrong = admin.post("/tasks", slice_with(priority=0), **key)
    assert refused(wrong) == "/priority: is 0, not from 1 to 255"
    again = admin.post("/tasks", slice_with(priority=7, name="other"), **key)
    assert (again.status_code, again.json) == (200, first)
    clock.advance(7 * 24 * 3600)
    late = admin.post("/tasks", SLICE, **key)
    assert late.status_code == 201
    assert late.json["task_id"] != first["task_id"]


@pytest.mark.spec("prpc:6.1.1.11")
def test_dry_run_says_what_would_be_stored_and_stores_nothing(admin, make_bot, configure):
    configure(DEPLOYMENT % 0 + POOL.format('task_template_deployment: "d"'))
    make_bot("vm1").start()
    make_bot("vm2").start()
    body = {"slices": [{"command": ["a"]}, {"command": ["a"], "dimensions": {"os": ["Mac"]}}]}
    reply = admin.post("/tasks?dry_run=1", body)
    assert reply.status_code == 200
    assert reply.json["matching_bots"] == [2, 0]
    request = reply.json["request"]
    assert "task_id" not in request
    assert (request["realm"], request["pool_task_template"]) == ("p:x", "prod")
    assert request["slices"][0]["env"] == {"BASE": "1", "KIND": "prod"}
    assert "priority:100" in request["tags"]
    assert admin.get("/tasks").json["items"] == []
    assert admin.get("/audit").json["items"] == []
    made = admin.post("/tasks", body).json
    assert {key: made[key] for key in request} == request


def test_dry_run_is_checked_as_the_task_would_be(admin):
    line = refused(admin.post("/tasks?dry_run=1", slice_with(priority=0)))
    assert line == "/priority: is 0, not from 1 to 255"
    line = refused(admin.post("/tasks?dry_run=2", SLICE))
    assert line.startswith("?dry_run: ")
