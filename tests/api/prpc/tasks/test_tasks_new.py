"""NewTask and GetRequest: what is asked for, checked, stored and told again (prpc-api 6.1)."""

from copy import deepcopy

import pytest

from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Role
from botapi.store import codec
from tests.fakes.prpc_client import PrpcClient
from tests.fakes.prpc_tasks import ADMIN, caller, direct, new_task, one_slice

EXAMPLE = new_task(
    one_slice(
        command=["python3", "-u", "main.py"],
        dimensions=[{"key": "pool", "value": "default"}, {"key": "os", "value": "Linux|Mac"}],
        ioTimeoutSecs=120,
        env=[{"key": "B", "value": "2"}, {"key": "A", "value": "b"}],
        envPrefixes=[{"key": "PATH", "value": ["z", "bin"]}],
    ),
    name="build x64",
    requestUuid="5f0c",
    user="dev@example.com",
    tags=["job:nightly"],
)


def refused(swarming, **changes):
    answer = swarming("NewTask", EXAMPLE | {"requestUuid": ""} | changes)
    return answer.refused


def none_stored(store):
    return store.scan_keys(codec.TASK, "", "~", limit=1) == []


@pytest.mark.spec("prpc:6.1.p1", "prpc:9.1.11", "prpc:4.3.1", "prpc:4.3.2", "prpc:4.3.3")
@pytest.mark.spec("prpc:4.3.5", "prpc:4.3.6", "prpc:4.3.7", "prpc:4.3.8", "prpc:4.3.9")
@pytest.mark.spec("prpc:4.3.10", "prpc:4.3.11", "prpc:4.3.12", "prpc:4.3.13", "prpc:4.3.14")
@pytest.mark.spec("prpc:4.3.16", "prpc:4.3.17", "prpc:4.2.3", "prpc:4.2.5", "prpc:4.2.6")
@pytest.mark.spec("prpc:4.2.7", "prpc:4.2.8", "prpc:4.2.9", "prpc:4.2.12", "prpc:10.p10")
@pytest.mark.spec("prpc:10.p4", "prpc:4.4.23", "11.4.1.1", "11.4.1.4")
def test_new_task_is_told_in_three_parts(swarming, tasks):
    reply = swarming.json("NewTask", EXAMPLE).reply
    task_id = reply["taskId"]
    properties = {
        "command": ["python3", "-u", "main.py"],
        "dimensions": [{"key": "os", "value": "Linux|Mac"}, {"key": "pool", "value": "default"}],
        "env": [{"key": "A", "value": "b"}, {"key": "B", "value": "2"}],
        "envPrefixes": [{"key": "PATH", "value": ["z", "bin"]}],
        "executionTimeoutSecs": 600,
        "gracePeriodSecs": 30,
        "ioTimeoutSecs": 120,
    }
    tags = reply["request"].pop("tags")
    assert reply["request"] == {
        "taskId": task_id,
        "expirationSecs": 3600,
        "name": "build x64",
        "priority": 100,
        "properties": properties,
        "createdTs": "2026-03-04T06:06:07.089Z",
        "user": "dev@example.com",
        "authenticated": "user:alice",
        "taskSlices": [{"properties": properties, "expirationSecs": 3600}],
        "serviceAccount": "none",
        "realm": "proj:ci",
        "resultdb": {},
        "botPingToleranceSecs": 1200,
    }
    expected = {
        "authenticated:user:alice",
        "job:nightly",
        "os:Linux",
        "os:Mac",
        "pool:default",
        "priority:100",
        "realm:proj:ci",
        "service_account:none",
        "swarming.pool.task_template:none",
        "user:dev@example.com",
    }
    assert expected <= set(tags)
    assert tags == sorted(set(tags))
    result = reply["taskResult"]
    assert (result["state"], result["name"], result["user"]) == (
        "PENDING",
        "build x64",
        "dev@example.com",
    )
    assert result["tags"] == tags
    assert result == tasks.result(task_id)
    assert swarming("GetRequest", {"taskId": task_id}).reply == reply["request"] | {"tags": tags}


@pytest.mark.spec("prpc:6.1.1.11", "prpc:6.1.p1", "prpc:4.3.1", "11.4.1.1")
def test_evaluation_stores_nothing_and_names_no_task(swarming, store):
    reply = swarming("NewTask", EXAMPLE | {"evaluateOnly": True}).reply
    assert set(reply) == {"request"}
    assert "taskId" not in reply["request"]
    assert "pool:default" in reply["request"]["tags"]
    assert none_stored(store)


@pytest.mark.spec("prpc:6.1.1.14", "prpc:6.1.p1")
def test_repeat_by_uuid_tells_the_stored_task_whatever_the_body_says(swarming, tasks):
    first = swarming.json("NewTask", EXAMPLE).reply
    swarming.json("CancelTask", {"taskId": first["taskId"]})
    again = swarming("NewTask", EXAMPLE | {"name": "other", "priority": 30}).reply
    assert (again["taskId"], again["request"]) == (first["taskId"], first["request"])
    assert again["taskResult"] == tasks.result(first["taskId"])
    assert again["taskResult"]["state"] == "CANCELED"
    assert swarming("NewTask", EXAMPLE | {"priority": 300}).code == 3
    other = swarming.json("NewTask", EXAMPLE | {"requestUuid": "5f0d"}).reply
    assert other["taskId"] != first["taskId"]


@pytest.mark.spec("prpc:6.1.1.1", "prpc:6.1.1.5", "prpc:6.1.1.2", "prpc:6.1.1.4")
@pytest.mark.spec("prpc:6.1.1.6", "prpc:6.1.1.9", "prpc:6.1.1.13", "prpc:6.1.1.3", "prpc:6.1.1.16")
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"expirationSecs": 5}, "expiration_secs"),
        ({"properties": {}}, "properties"),
        ({"properties": {"command": ["x"]}}, "properties"),
        ({"name": ""}, "name"),
        ({"priority": 0}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": 256}, "priority"),
        ({"taskSlices": []}, "slices"),
        ({"taskSlices": [{}]}, "pool"),
        ({"taskSlices": [one_slice(expiration=30 + n) for n in range(9)]}, "slices"),
        ({"taskSlices": [one_slice(), one_slice()]}, "same"),
        ({"taskSlices": [one_slice(), one_slice(pool="other")]}, "pool"),
        ({"taskSlices": [one_slice(expiration=29)]}, "expiration"),
        ({"taskSlices": [one_slice(executionTimeoutSecs=0)]}, "timeout"),
        ({"taskSlices": [one_slice(command=[])]}, "command"),
        ({"taskSlices": [one_slice(env=[{"key": "A"}, {"key": "A"}])]}, "env"),
        ({"taskSlices": [one_slice(envPrefixes=[{"key": "A", "value": ["x"]}] * 2)]}, "env_prefix"),
        (
            {
                "taskSlices": [
                    one_slice(secretBytes="YQ=="),
                    one_slice(secretBytes="Yg==", expiration=31),
                ]
            },
            "secret",
        ),
        ({"serviceAccount": "nobody"}, "service_account"),
        ({"botPingToleranceSecs": 59}, "ping_tolerance"),
        ({"botPingToleranceSecs": 1201}, "ping_tolerance"),
        ({"parentTaskId": "nonsense"}, "parent"),
        ({"realm": "no realm"}, "realm"),
        ({"requestUuid": "a b"}, "uuid"),
        ({"tags": ["nocolon"]}, "tags"),
        ({"tags": ["swarming.terminate:1"]}, "tags"),
        ({"pubsubTopic": "x"}, "topic"),
        ({"pubsubUserdata": "x"}, "pubsub"),
    ],
)
def test_wrong_task_is_the_callers_mistake_and_changes_nothing(swarming, store, changes, word):
    code, text = refused(swarming, **changes)
    assert (code, word in text) == (3, True), text
    assert "\n" not in text
    assert none_stored(store)


@pytest.mark.spec("prpc:6.1.1.15")
def test_resultdb_needs_one(swarming):
    assert refused(swarming, resultdb={"enable": True})[0] == 9
    assert not swarming.json("NewTask", EXAMPLE | {"resultdb": {}}).code


@pytest.mark.spec("prpc:6.1.p1", "prpc:8.1.2.12")
@pytest.mark.parametrize(
    "wrong",
    [
        {"expirationSecs": 5},
        {"properties": {}},
        {"name": ""},
        {"taskSlices": [one_slice(env=[{"key": "A"}, {"key": "A"}])]},
        {"taskSlices": [one_slice(secretBytes="YQ=="), one_slice(secretBytes="Yg==")]},
        {"priority": 999, "realm": "no realm"},
    ],
)
def test_who_may_not_make_tasks_hears_nothing_else_of_a_task(parts, wrong):
    def said(who, body):
        with pytest.raises(Refusal) as refusal:
            direct(parts, who, "NewTask", body)
        return refusal.value.code, refusal.value.message

    body = EXAMPLE | {"requestUuid": ""} | wrong
    code, text = said(caller(Role.VIEWER), body)
    assert (code, "pools.createTask" in text) == (Code.PERMISSION_DENIED, True)
    assert said(caller(Role.AUTHOR, "default"), body)[0] is Code.INVALID_ARGUMENT
    no_pool = {"taskSlices": [one_slice(dimensions=[])]}
    code, text = said(caller(), body | no_pool)
    assert (code, "pool" in text) == (Code.INVALID_ARGUMENT, True)


@pytest.mark.spec("prpc:6.1.p1", "prpc:8.1.1.2")
def test_pool_that_is_unknown_is_told_as_one_that_is_forbidden(parts):
    texts = set()
    for pool in ("default", "nowhere"):
        with pytest.raises(Refusal) as refusal:
            direct(parts, caller(), "NewTask", new_task(one_slice(pool=pool)))
        assert refusal.value.code is Code.PERMISSION_DENIED
        texts.add(refusal.value.message.replace(pool, "POOL"))
    assert len(texts) == 1


@pytest.mark.spec("prpc:6.1.1.4")
def test_priority_below_20_needs_the_right_and_is_raised_silently(parts):
    def priority(who):
        body = EXAMPLE | {"priority": 5, "evaluateOnly": True}
        return direct(parts, who, "NewTask", body).request.priority

    assert priority(caller(Role.AUTHOR)) == 20
    assert priority(ADMIN) == 5


@pytest.mark.spec("prpc:6.1.1.3", "prpc:6.1.1.8", "prpc:4.3.4")
def test_child_needs_a_parent_that_goes_on_and_has_its_user(swarming, tasks):
    run_id, _ = tasks.claimed(user="ann@example.com")
    reply = swarming.json("NewTask", new_task(parentTaskId=run_id, user="eve")).reply
    assert reply["request"]["parentTaskId"] == run_id
    assert reply["request"]["user"] == reply["taskResult"]["user"] == "ann@example.com"
    assert f"parent_task_id:{run_id}" in reply["request"]["tags"]
    assert refused(swarming, parentTaskId="76d00eba71beef11")[0] == 5
    assert refused(swarming, parentTaskId=tasks.canceled())[0] == 9
    bots = PrpcClient(swarming.client, swarming.key, "Bots")
    termination = bots.json("TerminateBot", {"botId": "vm9"}).reply["taskId"]
    assert refused(swarming, parentTaskId=termination)[0] == 3


@pytest.mark.spec("prpc:4.2.1", "prpc:4.2.4", "prpc:4.2.10", "prpc:4.2.11", "prpc:4.2.13")
@pytest.mark.spec("prpc:4.2.2", "prpc:4.2.15", "prpc:4.p2", "prpc:9.1.15", "prpc:4.3.15")
@pytest.mark.spec("prpc:6.1.1.7", "prpc:6.1.1.10", "prpc:4.3.2")
def test_everything_that_is_asked_for_is_told_again(swarming):
    full = one_slice(
        wait=True,
        relativeCwd="a/b",
        idempotent=True,
        caches=[{"name": "git", "path": "cache/git"}],
        casInputRoot={
            "casInstance": "projects/p/instances/i",
            "digest": {"hash": "a" * 64, "sizeBytes": "12"},
        },
        cipdInput={
            "server": "https://cipd.example.com",
            "clientPackage": {"packageName": "client", "version": "git_revision:1"},
            "packages": [{"packageName": "tool", "version": "version:2", "path": "bin"}],
        },
        outputs=["out/log"],
    )
    containment = {"lowerPriority": True, "containmentType": "AUTO", "limitProcesses": "5"}
    asked = deepcopy(full)
    asked["properties"]["containment"] = containment
    full["properties"]["containment"] = {"containmentType": "AUTO"}
    last = one_slice(expiration=60)
    body = new_task(
        asked,
        last,
        pubsubTopic="projects/p/topics/t",
        pubsubAuthToken="hidden",
        pubsubUserdata="data",
        serviceAccount="bot",
        botPingToleranceSecs=60,
        poolTaskTemplate="CANARY_NEVER",
    )
    request = swarming("NewTask", body | {"evaluateOnly": True}).reply["request"]
    assert request["taskSlices"] == [full, last]
    assert request["properties"] == full["properties"]
    assert request["expirationSecs"] == 3660
    assert (request["pubsubTopic"], request["pubsubUserdata"]) == ("projects/p/topics/t", "data")
    assert (request["serviceAccount"], request["botPingToleranceSecs"]) == ("bot", 60)
    assert "hidden" not in str(request)


@pytest.mark.spec("prpc:4.2.14", "11.4.1.4")
def test_secret_is_never_told(swarming):
    with_secret = one_slice(secretBytes="c2VjcmV0")
    body = new_task(with_secret, one_slice(expiration=60))
    reply = swarming("NewTask", body | {"evaluateOnly": True}).reply["request"]
    assert reply["properties"]["secretBytes"] == "PFJFREFDVEVEPg=="
    assert "secretBytes" not in reply["taskSlices"][1]["properties"]
    assert "c2VjcmV0" not in str(reply)


@pytest.mark.spec("prpc:6.1.p1")
def test_web_client_submits_a_task_again(swarming, tasks):
    """All slices of the old one as they were told, with keys that nobody knows."""
    task_id = tasks.finished(
        one_slice(expiration=60, idempotent=True), one_slice(expiration=120), tags=["job:x"]
    )
    old = swarming("GetRequest", {"taskId": task_id}).reply
    slice_ = deepcopy(old["taskSlices"][0])
    slice_["expirationSecs"] = old["expirationSecs"]
    slice_["propertiesHash"] = None
    slice_["properties"] |= {"idempotent": False, "secretBytes": "", "someNewKey": {"a": [1]}}
    body = {
        "expirationSecs": 0,
        "name": old["name"] + " (retry)",
        "poolTaskTemplate": "SKIP",
        "priority": old["priority"],
        "properties": None,
        "realm": old["realm"],
        "serviceAccount": old["serviceAccount"],
        "tags": old["tags"],
        "taskSlices": [slice_],
        "user": old.get("user", ""),
        "newTaskDialogue": True,
    }
    answer = swarming.json("NewTask", body)
    assert not answer.code, answer.text
    request = answer.reply["request"]
    assert request["expirationSecs"] == 180
    assert "secretBytes" not in request["properties"]
    assert "idempotent" not in request["properties"]
    assert "job:x" in request["tags"]


@pytest.mark.spec("prpc:6.4.p1", "prpc:4.3.5", "11.4.1.4", "10.6.p1")
def test_termination_task_says_only_which_bot_is_meant(swarming, tasks):
    bots = PrpcClient(swarming.client, swarming.key, "Bots")
    reply = bots.json("TerminateBot", {"botId": "vm1-m1", "reason": "kernel update"}).reply
    task_id = reply["taskId"]
    found = swarming("GetRequest", {"taskId": task_id}).reply
    tags = found.pop("tags")
    properties = {"dimensions": [{"key": "id", "value": "vm1-m1"}]}
    assert found == {
        "taskId": task_id,
        "expirationSecs": 432000,
        "name": "Terminate vm1-m1: kernel update",
        "properties": properties,
        "createdTs": "2026-03-04T06:06:07.089Z",
        "authenticated": "user:alice",
        "taskSlices": [{"properties": properties, "expirationSecs": 432000}],
        "serviceAccount": "none",
        "resultdb": {},
    }
    assert {"id:vm1-m1", "priority:0", "swarming.terminate:1", "user:none"} <= set(tags)
    listed = swarming("ListTasks", {"tags": ["swarming.terminate:1"]}).reply["items"]
    assert [item["taskId"] for item in listed] == [task_id]
    assert listed[0] == tasks.result(task_id)
