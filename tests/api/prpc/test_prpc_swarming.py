"""`swarming.v2.Swarming`, row by row of prpc-api 7."""

import pytest
from swarmingpb import swarming_pb2 as pb

from botapi import __version__
from botapi.api.prpc.call import Call
from botapi.api.prpc.services import METHODS
from botapi.cfg.releases import Releases
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Grant, Role
from botapi.store import codec
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg, make_request, make_slice

spec = pytest.mark.spec
STRANGER = Caller("anonymous:anonymous")
POOLS = """\
trusted_dimensions: "pool"
bot_group { bot_id_prefix: "vm" auth { ip_whitelist: "loopback" } dimensions: "pool:ci" }
bot_group { bot_id_prefix: "xx" auth { ip_whitelist: "loopback" } dimensions: "pool:other" }
"""


@pytest.fixture(autouse=True)
def two_pools(store, clock):
    push_config(store, bots_cfg(POOLS), parent="", author="test", now_ms=clock.now_ms())


def somebody(role, *pools):
    return Caller("user:eve", frozenset(Grant(role, pool) for pool in pools))


def ask(parts, method, caller, message=None):
    handler = METHODS["swarming.v2.Swarming", method].handler
    return handler(Call(parts.api, caller, "http://fleet.example.com"), message)


def permissions(parts, caller, **asked):
    return ask(parts, "GetPermissions", caller, pb.PermissionsRequest(**asked))


@spec("prpc:9.1.17")
@spec("prpc:7.1.p1")
def test_details_name_the_versions(prpc, make_bot):
    found = prpc.good("Swarming/GetDetails")
    assert set(found) == {"serverVersion", "botVersion"}
    assert found["serverVersion"] == __version__
    make_bot("vm1").start()
    assert prpc.good("Bots/GetBot", {"botId": "vm1"})["version"] == found["botVersion"]


@spec("prpc:7.1.p1")
def test_details_without_an_archive_have_no_bot_version(prpc, monkeypatch):
    def none(_self, _url):
        raise Refusal(Code.UNAVAILABLE, "no archive")

    monkeypatch.setattr(Releases, "archive", none)
    assert set(prpc.good("Swarming/GetDetails")) == {"serverVersion"}


@spec("prpc:7.1.p1", "prpc:7.2.p1", "prpc:8.1.2.11", "prpc:8.1.1.1")
@pytest.mark.parametrize(
    ("method", "permission"),
    [("GetDetails", "servers.peek"), ("GetToken", "pools.createBot")],
)
def test_details_and_token_are_for_who_may_on_the_server(parts, method, permission):
    for caller in (STRANGER, somebody(Role.ADMIN, "ci")):
        with pytest.raises(Refusal, match=f"swarming.{permission} for the server") as caught:
            ask(parts, method, caller)
        assert caught.value.code is Code.PERMISSION_DENIED
    assert ask(parts, method, somebody(Role.BOOTSTRAP, "")).ByteSize()


@spec("prpc:7.2.p1")
def test_token_lets_machines_join(prpc, client, store):
    token = prpc.good("Swarming/GetToken")["bootstrapToken"]
    assert client.get(f"/bootstrap?tok={token}").status_code == 200
    assert client.get("/bootstrap?tok=no").status_code == 403
    (entry,) = [
        doc.body
        for doc in store.scan(codec.AUDIT, "", "\U0010ffff", limit=9)
        if doc.body["verb"] == "bootstrap.create"
    ]
    assert entry["actor"] == "alice"


@spec("prpc:7.3.p1", "prpc:8.1.2.12", *(f"prpc:7.3.1.{row}" for row in range(1, 10)))
def test_permissions_without_a_question_are_those_on_the_server(parts):
    everything = permissions(parts, somebody(Role.ADMIN, ""))
    assert everything == pb.ClientPermissions(
        delete_bot=True,
        delete_bots=True,
        terminate_bot=True,
        cancel_task=True,
        get_bootstrap_token=True,
        cancel_tasks=True,
        list_bots=["ci", "other"],
        list_tasks=["ci", "other"],
    )
    of_one_pool = permissions(parts, somebody(Role.OPERATOR, "ci"))
    assert of_one_pool == pb.ClientPermissions(list_bots=["ci"], list_tasks=["ci"])
    assert permissions(parts, STRANGER) == pb.ClientPermissions()


@spec("prpc:7.3.1.1", "prpc:7.3.1.3", "prpc:8.1.1.3")
def test_permissions_on_a_bot_are_those_of_its_pool(parts):
    eve = somebody(Role.OPERATOR, "ci")
    for bot_id, may in (("vm1", True), ("xx1", False), ("nobody", False)):
        found = permissions(parts, eve, bot_id=bot_id)
        assert (found.delete_bot, found.terminate_bot) == (may, may)
        assert not found.delete_bots
    assert permissions(parts, somebody(Role.OPERATOR, ""), bot_id="nobody").delete_bot


@spec("prpc:7.3.p1", "prpc:7.3.1.2", "prpc:7.3.1.7", "prpc:7.3.1.8", "prpc:7.3.1.9")
@pytest.mark.parametrize(
    ("tags", "may"),
    [
        ([], False),
        (["pool:ci"], True),
        (["pool:ci", "pool:other"], False),
        (["pool:ci", "os:Linux", "no colon", ""], True),
        (["os:Linux"], False),
        (["pool:ci|other"], False),
        (["pool:"], False),
        (["pool:unknown"], False),
    ],
)
def test_permissions_in_named_pools(parts, tags, may):
    found = permissions(parts, somebody(Role.OPERATOR, "ci"), tags=tags)
    assert (found.delete_bots, found.cancel_tasks, found.cancel_task) == (may, may, may)
    assert list(found.list_bots) == list(found.list_tasks) == ["ci"]
    assert not found.delete_bot


@spec("prpc:7.3.1.5", "prpc:8.1.1.4")
def test_permission_to_cancel_a_task(parts, store):
    here = make_slice(dimensions={"pool": ("ci",)})
    request = make_request(slices=(here,), authenticated="user:bob")
    store.write_many([(codec.REQ, codec.request_doc(request))])
    for form in (request.task_id, request.task_id[:-1] + "1", request.task_id[:-1] + "f"):
        asked = {"task_id": form, "tags": ["pool:other"]}
        for caller, may in (
            (somebody(Role.OPERATOR, "ci"), True),
            (somebody(Role.OPERATOR, "other"), False),
            (Caller("user:bob"), True),
            (STRANGER, False),
        ):
            assert permissions(parts, caller, **asked).cancel_task is may


@spec("prpc:9.1.16")
@spec("prpc:7.3.p1", "prpc:2.1.1.1", "prpc:2.1.1.2", "prpc:2.1.1.3")
@pytest.mark.parametrize(
    ("task_id", "code"),
    [
        ("", 0),
        ("0", 3),
        ("76D00EBA71BEEF10", 3),
        ("xyz0", 3),
        ("ffffffffffffffff0", 3),
        ("76d00eba71beef10", 5),
    ],
)
def test_permissions_on_a_bad_or_unknown_task(prpc, stranger, task_id, code):
    assert prpc.call("Swarming/GetPermissions", {"taskId": task_id}).code == code
    assert stranger.call("Swarming/GetPermissions", {"taskId": task_id}).code == code


@spec("prpc:1.5.1.5")
def test_calls_that_clients_repeat_may_be_repeated(prpc, make_bot):
    make_bot("vm1").start()
    properties = {
        "command": ["true"],
        "executionTimeoutSecs": 60,
        "dimensions": [{"key": "pool", "value": "ci"}],
    }
    new = {
        "name": "x",
        "priority": 100,
        "requestUuid": "u1",
        "taskSlices": [{"expirationSecs": 600, "properties": properties}],
    }
    task_id = prpc.good("Tasks/NewTask", new)["taskId"]
    assert prpc.good("Tasks/NewTask", new)["taskId"] == task_id
    assert prpc.good("Tasks/CancelTask", {"taskId": task_id}) == {"canceled": True}
    assert prpc.good("Tasks/CancelTask", {"taskId": task_id}) == {}
    terminated = prpc.good("Bots/TerminateBot", {"botId": "vm1"})
    assert prpc.good("Bots/TerminateBot", {"botId": "vm1"}) == terminated
    for _ in range(2):
        assert prpc.call("Tasks/CancelTasks", {"tags": ["pool:ci"]}).code == 0
