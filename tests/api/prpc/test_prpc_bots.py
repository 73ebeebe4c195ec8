"""`swarming.v2.Bots`, row by row of prpc-api 5."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from swarmingpb import swarming_pb2 as pb

from botapi.api.known_dimensions import KEEP_S
from botapi.api.prpc.call import Call
from botapi.api.prpc.services import METHODS
from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import BotEvent, EventKind
from botapi.domain.dimensions import flatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Grant, Role
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg

spec = pytest.mark.spec
DAY_MS = 86_400_000
NOW_MS = 1_772_604_367_089
POOLS_CFG = """\
trusted_dimensions: "pool"
bot_group { bot_id_prefix: "vm" auth { ip_whitelist: "loopback" } dimensions: "pool:ci" }
bot_group { bot_id_prefix: "xx" auth { ip_whitelist: "loopback" } dimensions: "pool:other" }
"""
EXAMPLES = {
    one["method"]: one
    for one in json.loads(
        (Path(__file__).parents[2] / "vectors" / "prpc_examples.json").read_text(encoding="utf-8")
    )
}
D1 = EXAMPLES["Bots/GetBot"]["reply"]["version"]
SESSION = "f1e2d3c4b5a697887766554433221100/4242"


@pytest.fixture
def seed(store):
    """Store bots, events and tasks as they are given."""

    def put(*values, state=None, seen_ms=NOW_MS):
        docs = []
        for value in values:
            if isinstance(value, Bot):
                docs.append((codec.BOT, codec.bot_doc(value)))
                live = LiveBot(value.bot_id, seen_ms, state=state or {})
                docs.append((codec.LIVE, codec.live_doc(live)))
            elif isinstance(value, BotEvent):
                docs.append((codec.EVENT, codec.event_doc(value, DAY_MS)))
            else:
                docs.append((codec.TASK, codec.task_doc(value)))
        store.write_many(docs)

    return put


@pytest.fixture
def two_pools(store, clock):
    """Bots whose names begin with `vm` are in the pool `ci`, those with `xx` in `other`."""
    push_config(store, bots_cfg(POOLS_CFG), parent="", author="test", now_ms=clock.now_ms())


def bot(bot_id="vm1", **more):
    dims = {"id": [bot_id], "pool": ["ci"], **more.pop("dims", {})}
    values = {"first_seen_ms": NOW_MS - DAY_MS, "idle_since_ms": NOW_MS - 1000}
    return Bot(bot_id, flatten(dims), **{**values, **more})


def event(number, bot_id="vm1", **more):
    values = {
        "bot_id": bot_id,
        "at_ms": NOW_MS - DAY_MS + number,
        "event_id": f"e{number}",
        "kind": EventKind.BOT_LOG,
        "message": f"n {number}",
        "task_id": "",
        "session_id": "",
        "version": "",
        "external_ip": "",
        "authenticated_as": "",
        "dimensions": ("id:vm1",),
        "quarantined": "",
        "maintenance": "",
        "seq": number,
    }
    return BotEvent(**{**values, **more})


def viewer(*pools):
    return Caller("user:eve", frozenset(Grant(Role.VIEWER, pool) for pool in pools))


def ask(parts, method, caller, message):
    return METHODS["swarming.v2.Bots", method].handler(Call(parts.api, caller), message)


def denied(parts, method, caller, message):
    with pytest.raises(Refusal) as caught:
        ask(parts, method, caller, message)
    assert caught.value.code is Code.PERMISSION_DENIED
    return caught.value.message


def ids(reply):
    return [item["botId"] for item in reply.get("items", [])]


# One bot.


@spec(
    "prpc:4.6.1",
    "prpc:4.6.2",
    "prpc:4.6.3",
    "prpc:4.6.4",
    "prpc:4.6.5",
    "prpc:4.6.7",
    "prpc:4.6.10",
    "prpc:4.6.11",
    "prpc:4.6.12",
    "prpc:4.6.13",
    "prpc:4.6.15",
    "prpc:9.1.8",
)
@spec("prpc:5.1.p1", "prpc:5.p1")
def test_get_bot_as_in_the_example(seed, prpc):
    seen = 1_772_600_820_250
    seed(
        bot(
            "vm1-m1",
            dims={"os": ["Ubuntu", "Linux"]},
            task_id="76d00eba71beef11",
            task_name="build x64",
            external_ip="192.0.2.7",
            authenticated_as="anonymous:anonymous",
            first_seen_ms=1_772_352_000_100,
            version=D1,
            session_id=SESSION,
            idle_since_ms=0,
        ),
        state={"running_time": 7200.5, "sleep_streak": 0},
        seen_ms=seen,
    )
    example = EXAMPLES["Bots/GetBot"]
    assert prpc.good("Bots/GetBot", example["request"]) == example["reply"]
    binary = pb.BotInfo.FromString(prpc.binary("Bots/GetBot", example["request"]))
    assert binary == json_format.ParseDict(example["reply"], pb.BotInfo())


@spec("prpc:4.6.6", "prpc:4.6.8", "prpc:4.6.9", "prpc:4.6.16")
@spec("prpc:5.1.p1", "prpc:10.p4")
def test_dead_quarantined_bot_says_why_and_keeps_its_task(seed, prpc):
    seed(
        bot(
            dead=True,
            quarantined="no disk",
            maintenance="cleaning",
            task_id="76d00eba71beef11",
            termination_task_id="76d013bbbc123411",
        )
    )
    found = prpc.good("Bots/GetBot", {"botId": "vm1"})
    assert (found["isDead"], found["quarantined"], found["maintenanceMsg"]) == (
        True,
        True,
        "cleaning",
    )
    assert json.loads(found["state"]) == {"quarantined": "no disk"}
    assert found["taskId"] == "76d00eba71beef11"
    assert found["terminationTaskId"] == "76d013bbbc123410"


@spec("prpc:10.p4")
def test_state_of_a_bot_never_heard_of_parses(store, prpc):
    store.write_many([(codec.BOT, codec.bot_doc(bot()))])
    assert json.loads(prpc.good("Bots/GetBot", {"botId": "vm1"})["state"]) == {}


@spec("prpc:5.1.p1")
def test_get_bot_without_an_id_is_code_3(prpc):
    for body in ({}, {"botId": ""}):
        assert prpc.call("Bots/GetBot", body).code == 3


@spec("prpc:5.1.p1")
def test_get_bot_that_never_was_is_code_5(prpc):
    for bot_id in ("nobody", "a:b", "x" * 2000, " x"):
        assert prpc.call("Bots/GetBot", {"botId": bot_id}).code == 5


@spec("prpc:4.6.14", "prpc:9.1.7")
@spec("prpc:5.1.p1")
def test_deleted_bot_answers_from_its_last_event(seed, prpc):
    seed(
        event(1, message="first"),
        event(
            2,
            kind=EventKind.BOT_DELETED,
            dimensions=("id:vm1", "pool:ci"),
            version=D1,
            session_id=SESSION,
            external_ip="192.0.2.7",
            task_id="76d00eba71beef11",
            state={"a": 1},
        ),
    )
    assert prpc.good("Bots/GetBot", {"botId": "vm1"}) == {
        "botId": "vm1",
        "deleted": True,
        "lastSeenTs": "2026-03-03T06:06:07.091Z",
        "dimensions": [{"key": "id", "value": ["vm1"]}, {"key": "pool", "value": ["ci"]}],
        "state": '{"a":1}',
        "version": D1,
        "sessionId": SESSION,
        "externalIp": "192.0.2.7",
    }


@spec("prpc:2.1.p1", "prpc:8.1.2.1", "prpc:8.1.1.3")
@pytest.mark.usefixtures("two_pools")
def test_right_on_a_bot_comes_from_the_configuration_before_its_existence(parts, seed):
    seed(bot("xx1", dims={"pool": ["ci"]}))
    eve = viewer("ci")
    for method in ("GetBot", "ListBotEvents"):
        kind = pb.BotRequest if method == "GetBot" else pb.BotEventsRequest
        for bot_id in ("xx1", "xx2"):
            message = denied(parts, method, eve, kind(bot_id=bot_id))
            assert message == (
                f"user:eve has no permission swarming.pools.listBots for bot {bot_id}"
            )
    with pytest.raises(Refusal) as caught:
        ask(parts, "GetBot", eve, pb.BotRequest(bot_id="vm9"))
    assert caught.value.code is Code.NOT_FOUND


@spec("prpc:5.2.p1", "prpc:1.2.2.1", "prpc:1.2.2.2")
def test_delete_bot_in_both_encodings(seed, prpc):
    example = EXAMPLES["Bots/DeleteBot"]
    seed(bot("vm2-m1"))
    assert prpc.good("Bots/DeleteBot", example["request"]) == example["reply"]
    seed(bot("vm2-m1"))
    assert prpc.binary("Bots/DeleteBot", example["request"]).hex() == "0801"
    events = prpc.good("Bots/ListBotEvents", {"botId": "vm2-m1"})["items"]
    assert [one["eventType"] for one in events] == ["bot_deleted", "bot_deleted"]


@spec("prpc:5.2.p1", "prpc:8.1.2.3")
def test_delete_bot_is_refused(parts, seed, prpc):
    seed(event(1))
    for body, code in (({}, 3), ({"botId": "vm1"}, 5), ({"botId": "a:b"}, 5)):
        assert prpc.call("Bots/DeleteBot", body).code == code
    assert "pools.deleteBot" in denied(
        parts, "DeleteBot", viewer("", "default"), pb.BotRequest(bot_id="vm1")
    )


@spec("prpc:5.2.p1")
def test_deleted_bot_that_runs_comes_back_at_its_next_poll(make_bot, prpc):
    running = make_bot("vm1").start()
    prpc.good("Bots/DeleteBot", {"botId": "vm1"})
    assert prpc.good("Bots/GetBot", {"botId": "vm1"})["deleted"] is True
    running.poll()
    assert "deleted" not in prpc.good("Bots/GetBot", {"botId": "vm1"})


@spec("prpc:9.1.9")
@spec("prpc:5.4.p1", "prpc:2.1.p1")
def test_terminate_bot_makes_one_task_even_for_a_bot_nobody_knows(prpc):
    first = prpc.good("Bots/TerminateBot", {"botId": "vm1", "reason": "kernel\r\nupdate\n"})
    assert set(first) == {"taskId"}
    assert first["taskId"].endswith("0")
    request = prpc.good("Tasks/GetRequest", first)
    assert request["name"] == "Terminate vm1: kernel update"
    assert prpc.good("Bots/TerminateBot", {"botId": "vm1"}) == first


@spec("prpc:5.4.p1", "prpc:8.1.2.3")
def test_terminate_bot_is_refused(parts, prpc):
    assert prpc.call("Bots/TerminateBot", {"reason": "x"}).code == 3
    assert prpc.call("Bots/TerminateBot", {"botId": "vm1", "reason": "x" * 1000}).code == 0
    assert prpc.call("Bots/TerminateBot", {"botId": "vm2", "reason": "x" * 1001}).code == 3
    assert "pools.terminateBot" in denied(
        parts, "TerminateBot", viewer("", "default"), pb.TerminateRequest(bot_id="vm1")
    )


# Events of a bot.


@spec("prpc:5.3.p1", "prpc:2.6.1.2")
def test_events_as_in_the_example(seed, prpc):
    common = {"bot_id": "vm1-m1", "dimensions": ("id:vm1-m1", "pool:ci")}
    seed(
        event(0, **common),
        event(
            1,
            **common,
            at_ms=1_772_600_759_000,
            message="disk check ok",
            state={},
        ),
        event(
            2,
            **common,
            at_ms=1_772_600_768_512,
            kind=EventKind.REQUEST_TASK,
            message="",
            state={"sleep_streak": 0},
            external_ip="192.0.2.7",
            authenticated_as="anonymous:anonymous",
            version=D1,
            task_id="76d00eba71beef11",
            session_id=SESSION,
        ),
    )
    example = EXAMPLES["Bots/ListBotEvents"]
    found = prpc.good("Bots/ListBotEvents", example["request"])
    assert found["items"] == example["reply"]["items"]
    assert found["cursor"]
    assert found["now"] == "2026-03-04T06:06:07.089Z"


@spec("prpc:2.2.1.2", "prpc:2.2.1.3", "prpc:5.3.p1", "prpc:1.5.1.7", "prpc:10.p9")
def test_events_page_by_page(seed, prpc):
    seed(*(event(n) for n in range(5)))
    found, cursor, sizes = [], "", []
    while True:
        body = {"botId": "vm1", "limit": 2 if len(sizes) < 2 else 1, "cursor": cursor}
        page = prpc.good("Bots/ListBotEvents", body)
        found += [one["message"] for one in page.get("items", [])]
        sizes.append(len(page.get("items", [])))
        if "cursor" not in page:
            break
        cursor = page["cursor"]
    assert found == ["n 4", "n 3", "n 2", "n 1", "n 0"]
    assert sizes == [2, 2, 1, 0], "a full last page is followed by an empty one"
    other = {"botId": "vm2", "cursor": cursor}
    assert prpc.call("Bots/ListBotEvents", other).code == 3


@spec("prpc:2.4.p1", "prpc:5.3.p1")
def test_events_by_time(seed, prpc):
    seed(*(event(n) for n in range(5)))

    def between(start, end):
        body = {"botId": "vm1"}
        for name, text in (("start", start), ("end", end)):
            if text:
                body[name] = f"2026-03-03T06:06:07.{text}Z"
        items = prpc.good("Bots/ListBotEvents", body).get("items", [])
        return [int(one["message"][2:]) for one in items]

    assert between("", "") == [4, 3, 2, 1, 0]
    assert between("091", "093") == [3, 2]
    assert between("091000001", "093000001") == [4, 3], "bounds are not cut to milliseconds"
    assert between("092", "") == [4, 3]
    assert between("", "091") == [1, 0]
    assert between("092", "092") == between("093", "092") == []
    for start, end, items in (
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 5),
        ("9999-12-31T23:59:59Z", None, 0),
        (None, "1970-01-01T00:00:00Z", 0),
        (None, "0001-01-01T00:00:00Z", 0),
    ):
        body = {"botId": "vm1", "start": start, "end": end}
        assert len(prpc.good("Bots/ListBotEvents", body).get("items", [])) == items


@spec("prpc:9.1.10")
@spec("prpc:5.3.p1", "prpc:10.p8")
def test_events_of_an_unknown_bot_are_none(prpc):
    for bot_id in ("nobody", "x" * 2000, "a:b"):
        assert prpc.good("Bots/ListBotEvents", {"botId": bot_id}) == {
            "now": "2026-03-04T06:06:07.089Z"
        }


@spec("prpc:5.3.p1")
def test_checks_of_events_come_in_their_order(parts):
    nobody = Caller("user:eve")
    for message, words in (
        (pb.BotEventsRequest(limit=-1, cursor="x"), "bot_id"),
        (pb.BotEventsRequest(bot_id="vm1", limit=-1, cursor="x"), "limit"),
        (pb.BotEventsRequest(bot_id="vm1", cursor="x"), "cursor"),
        (pb.BotEventsRequest(bot_id="vm1"), "no permission"),
    ):
        with pytest.raises(Refusal, match=words):
            ask(parts, "ListBotEvents", nobody, message)


# Tasks of a bot.


def run(number, state=TaskState.COMPLETED, **more):
    """A run on vm1; the `number`-th created. Kept with its places in both orders."""
    values = {
        "task_id": f"76d00eba71be{number:03x}10",
        "state": state,
        "name": f"n {number}",
        "user": "",
        "pool": "ci",
        "priority": 100,
        "tags": ("pool:ci",),
        "created_ms": NOW_MS,
        "modified_ms": NOW_MS,
        "bot_id": "vm1",
        "started_ms": NOW_MS + 1000 - number,
        "completed_ms": NOW_MS + 2000 + number * 7 % 5,
    }
    return Task(**{**values, **more})


@pytest.fixture
def runs(store):
    def put(*tasks):
        docs = [(codec.TASK, codec.task_doc(task)) for task in tasks]
        for task in tasks:
            for column, at_ms in (
                (codec.RunTime.STARTED, task.started_ms),
                (codec.RunTime.COMPLETED, task.completed_ms),
            ):
                if at_ms:
                    docs.append((codec.RUN_TIME, codec.run_time_doc(task, column)))
        store.write_many(docs)

    return put


def names(reply):
    return [int(item["name"][2:]) for item in reply.get("items", [])]


ALL = {"botId": "vm1", "state": "QUERY_ALL"}


@spec("prpc:5.5.p1", "prpc:2.6.1.3", "prpc:10.p4")
def test_tasks_of_a_bot_by_each_time(runs, prpc):
    runs(*(run(n) for n in range(5)), run(5, TaskState.RUNNING, completed_ms=0))
    assert names(prpc.good("Bots/ListBotTasks", ALL)) == [5, 4, 3, 2, 1, 0]
    started = ALL | {"sort": "QUERY_STARTED_TS", "cursor": "", "limit": 30}
    assert names(prpc.good("Bots/ListBotTasks", started)) == [0, 1, 2, 3, 4, 5]
    completed = ALL | {"sort": "QUERY_COMPLETED_TS"}
    found = prpc.good("Bots/ListBotTasks", completed)
    assert names(found) == [2, 4, 1, 3, 0], "a run that goes on has no such time"
    assert all(item["costsUsd"] == [0] for item in found["items"])
    assert found["now"] == "2026-03-04T06:06:07.089Z"


@spec("prpc:5.5.p1")
def test_termination_task_is_a_run_of_its_bot(make_bot, prpc):
    ready = make_bot("vm1").start()
    made = prpc.good("Bots/TerminateBot", {"botId": "vm1"})
    claimed = ready.claim(ready.update()["lease"])
    assert claimed["cmd"] == "terminate"
    body = ALL | {"sort": "QUERY_STARTED_TS"}
    (item,) = prpc.good("Bots/ListBotTasks", body)["items"]
    assert item["taskId"] == made["taskId"]
    assert item["name"].startswith("Terminate vm1")


@spec("prpc:5.5.p1", "prpc:2.2.1.2", "prpc:2.2.1.5")
@pytest.mark.parametrize("sort", ["QUERY_CREATED_TS", "QUERY_STARTED_TS", "QUERY_COMPLETED_TS"])
def test_tasks_of_a_bot_page_by_page(runs, prpc, sort):
    runs(*(run(n) for n in range(4)))
    whole = names(prpc.good("Bots/ListBotTasks", ALL | {"sort": sort}))
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = prpc.good("Bots/ListBotTasks", ALL | {"sort": sort, "limit": 2, "cursor": cursor})
        found += names(page)
        cursor = page.get("cursor")
        pages += 1
        runs(run(9, created_ms=NOW_MS, started_ms=NOW_MS + 9000, completed_ms=NOW_MS + 9000))
    assert (found, pages) == (whole, 3)


@spec("prpc:5.5.1.2", "prpc:10.p6")
@pytest.mark.parametrize(
    "state",
    [
        None,
        "QUERY_PENDING",
        "QUERY_PENDING_RUNNING",
        "QUERY_EXPIRED",
        "QUERY_DEDUPED",
        "QUERY_NO_RESOURCE",
        "QUERY_CANCELED",
    ],
)
def test_state_that_no_run_can_have_is_code_3(prpc, state):
    reply = prpc.call("Bots/ListBotTasks", {"botId": "vm1", "state": state})
    assert reply.code == 3
    assert "matches no task that ran" in reply.text


@spec("prpc:5.5.p1", "prpc:2.5.1.1", "prpc:2.5.1.3", "prpc:2.5.1.4", "prpc:2.5.1.6")
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("QUERY_RUNNING", [0]),
        ("QUERY_COMPLETED", [2, 1]),
        ("QUERY_COMPLETED_SUCCESS", [1]),
        ("QUERY_COMPLETED_FAILURE", [2]),
        ("QUERY_TIMED_OUT", [3]),
        ("QUERY_BOT_DIED", [4]),
        ("QUERY_KILLED", [5]),
        ("QUERY_CLIENT_ERROR", [6]),
        ("QUERY_ALL", [6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_tasks_of_a_bot_by_state(runs, prpc, state, expected):
    runs(
        run(0, TaskState.RUNNING),
        run(1),
        run(2, failure=True, exit_code=3),
        run(3, TaskState.TIMED_OUT),
        run(4, TaskState.BOT_DIED),
        run(5, TaskState.KILLED),
        run(6, TaskState.CLIENT_ERROR),
        run(7, bot_id="vm2"),
        run(8, deduped_from="76d00eba71be00111"),
    )
    assert names(prpc.good("Bots/ListBotTasks", {"botId": "vm1", "state": state})) == expected


@spec("prpc:5.5.1.3")
def test_sort_that_is_not_possible_is_code_3(prpc):
    for sort in ("QUERY_ABANDONED_TS", 1, 7):
        assert prpc.call("Bots/ListBotTasks", ALL | {"sort": sort}).code == 3
    for sort in ("QUERY_STARTED_TS", "QUERY_COMPLETED_TS"):
        body = {"botId": "vm1", "state": "QUERY_RUNNING", "sort": sort}
        assert prpc.call("Bots/ListBotTasks", body).code == 3


@spec("prpc:2.4.p1", "prpc:5.5.1.6")
def test_tasks_of_a_bot_by_time(runs, prpc):
    runs(*(run(n) for n in range(4)))
    early, late = "2026-03-04T06:06:08.086Z", "2026-03-04T06:06:08.088Z"
    started = ALL | {"sort": "QUERY_STARTED_TS"}
    assert names(prpc.good("Bots/ListBotTasks", started | {"start": early, "end": late})) == [2, 3]
    assert names(prpc.good("Bots/ListBotTasks", started | {"start": late, "end": early})) == []
    for start, end in ((late, early), (early, early), ("2009-01-01T00:00:00Z", None)):
        body = ALL | {"start": start, "end": end}
        assert prpc.call("Bots/ListBotTasks", body).code == 3


@spec("prpc:2.2.1.6", "prpc:5.5.1.4")
def test_cursor_of_tasks_of_a_bot_is_checked(runs, prpc):
    runs(*(run(n) for n in range(2)))
    page = prpc.good("Bots/ListBotTasks", ALL | {"limit": 1})
    body = ALL | {"cursor": page["cursor"]}
    assert prpc.call("Bots/ListBotTasks", body).code == 0
    assert prpc.call("Bots/ListBotTasks", body | {"end": "2015-01-01T00:00:00Z"}).code == 3
    assert prpc.call("Bots/ListBotTasks", body | {"sort": "QUERY_STARTED_TS"}).code == 3
    assert prpc.call("Bots/ListBotTasks", ALL | {"cursor": "x"}).code == 3


@spec(*(f"prpc:5.5.1.{row}" for row in range(1, 7)), "prpc:8.1.2.2")
def test_checks_of_tasks_of_a_bot_come_in_their_order(parts):
    good = {"bot_id": "vm1", "state": pb.QUERY_ALL}
    reversed_ = pb.BotTasksRequest(**good)
    reversed_.start.FromMilliseconds(NOW_MS)
    reversed_.end.FromMilliseconds(NOW_MS)
    for message, words in (
        (pb.BotTasksRequest(limit=-1, sort=3), "bot_id"),
        (pb.BotTasksRequest(bot_id="vm1", limit=-1, sort=3), "limit"),
        (pb.BotTasksRequest(bot_id="vm1", sort=3), "state QUERY_PENDING"),
        (pb.BotTasksRequest(**good, sort=3, cursor="x"), "sort"),
        (pb.BotTasksRequest(**good, cursor="x"), "cursor"),
        (reversed_, "no permission swarming.pools.listTasks for bot vm1"),
    ):
        with pytest.raises(Refusal, match=words):
            ask(parts, "ListBotTasks", Caller("user:eve"), message)
    with pytest.raises(Refusal, match="start must be before end"):
        ask(parts, "ListBotTasks", viewer(""), reversed_)


@spec("prpc:9.1.10")
@spec("prpc:5.5.p1", "prpc:10.p8")
def test_tasks_of_an_unknown_bot_are_none(prpc):
    for bot_id in ("nobody", "x" * 2000):
        for sort in ("QUERY_CREATED_TS", "QUERY_STARTED_TS"):
            body = {"botId": bot_id, "state": "QUERY_ALL", "sort": sort}
            assert prpc.good("Bots/ListBotTasks", body).keys() == {"now"}


# Many bots.


@spec("prpc:5.6.p1", "prpc:2.6.1.1")
def test_list_bots_as_in_the_example(seed, prpc):
    seed(
        bot(
            "vm1-m1", dims={"os": ["Linux", "Ubuntu"]}, first_seen_ms=1_772_352_000_100, version=D1
        ),
        bot("vm3-m1", dims={"os": ["Windows"]}),
        bot("vm4-m1", dims={"os": ["Linux"]}, dead=True),
        seen_ms=1_772_600_820_250,
    )
    example = EXAMPLES["Bots/ListBots"]
    found = prpc.good("Bots/ListBots", example["request"])
    assert found == example["reply"] | {"now": "2026-03-04T06:06:07.089Z"}


@spec("prpc:2.6.1.1", "prpc:2.2.1.2", "prpc:2.2.1.5", "prpc:1.5.1.7")
def test_bots_page_by_page_in_the_order_of_their_ids(seed, prpc):
    all_names = ["A", "Z", "a", "vm10", "vm2", "ä", "😀"]
    seed(*(bot(name) for name in all_names))
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = prpc.good("Bots/ListBots", {"limit": 3 if pages < 2 else 1, "cursor": cursor})
        found += ids(page)
        cursor = page.get("cursor")
        pages += 1
        seed(bot("A0"))
    assert found == all_names
    assert pages == 4


FLEET = [
    bot("b0"),
    bot("b1", idle_since_ms=0, task_id="76d00eba71beef11"),
    bot("b2", quarantined="x", idle_since_ms=0),
    bot("b3", maintenance="x", idle_since_ms=0),
    bot("b4", dead=True),
    bot("b5", dead=True, idle_since_ms=0, quarantined="x"),
]


@spec("prpc:5.6.p1", "prpc:1.5.1.4")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"isDead": "NULL", "isBusy": "NULL"}, [0, 1, 2, 3, 4, 5]),
        ({"isDead": "TRUE"}, [4, 5]),
        ({"isDead": "FALSE"}, [0, 1, 2, 3]),
        ({"isBusy": "TRUE"}, [1, 2, 3, 5]),
        ({"isBusy": 1}, [0, 4]),
        ({"quarantined": "TRUE"}, [2, 5]),
        ({"quarantined": "FALSE", "isDead": "FALSE"}, [0, 1, 3]),
        ({"inMaintenance": "TRUE"}, [3]),
        ({"inMaintenance": "FALSE", "isBusy": "TRUE", "isDead": "FALSE"}, [1, 2]),
        ({"isDead": "TRUE", "inMaintenance": "TRUE"}, []),
    ],
)
def test_bots_by_state(seed, prpc, flags, expected):
    seed(*FLEET)
    assert ids(prpc.good("Bots/ListBots", flags)) == [f"b{n}" for n in expected]


@spec("prpc:5.7.p1")
def test_count_bots_as_in_the_example(seed, prpc):
    seed(
        bot("vm1"),
        bot("vm2", idle_since_ms=0, quarantined="x"),
        bot("vm3", dead=True),
        bot("xx1", dims={"pool": ["other"]}),
    )
    example = EXAMPLES["Bots/CountBots"]
    found = prpc.good("Bots/CountBots", example["request"])
    assert found == example["reply"] | {"now": "2026-03-04T06:06:07.089Z"}


@spec("prpc:5.7.p1", "prpc:10.p7")
@pytest.mark.parametrize("dims", [[], [("pool", "ci")], [("id", "b1|b2|b5"), ("pool", "ci|x")]])
def test_counts_and_lists_agree(seed, prpc, dims):
    seed(*FLEET, bot("xx1", dims={"pool": ["other"]}))
    wanted = {"dimensions": [{"key": key, "value": value} for key, value in dims]}
    counts = prpc.good("Bots/CountBots", wanted)
    for name, flag in (
        ("count", {}),
        ("quarantined", {"quarantined": "TRUE"}),
        ("maintenance", {"inMaintenance": "TRUE"}),
        ("dead", {"isDead": "TRUE"}),
        ("busy", {"isBusy": "TRUE"}),
    ):
        assert counts.get(name, 0) == len(ids(prpc.good("Bots/ListBots", wanted | flag)))
    alive = ids(prpc.good("Bots/ListBots", wanted | {"isDead": "FALSE"}))
    assert counts["count"] - counts.get("dead", 0) == len(alive)


@spec("prpc:2.3.p1")
def test_bots_by_dimensions(seed, prpc):
    seed(
        bot("b1", dims={"os": ["Linux", "Ubuntu"], "cpu": ["x86"]}),
        bot("b2", dims={"os": ["Mac"], "cpu": ["arm"]}),
        bot("b3", dims={"os": ["Linux"], "cpu": ["arm"]}),
    )

    def found(*pairs):
        dims = [{"key": key, "value": value} for key, value in pairs]
        return ids(prpc.good("Bots/ListBots", {"dimensions": dims}))

    assert found(("os", "Linux")) == ["b1", "b3"]
    assert found(("os", "Linux|Mac")) == ["b1", "b2", "b3"]
    assert found(("os", "Linux"), ("os", "Ubuntu")) == ["b1"]
    assert found(("os", "Linux|Linux"), ("os", "Linux"), ("cpu", "arm")) == ["b3"]
    assert found(("os", "linux")) == found(("os", "Lin")) == []


@spec("prpc:8.1.2.4", "prpc:10.p8", "prpc:2.3.p1", "prpc:8.1.1.2")
def test_bots_are_listed_to_who_may_in_every_pool_asked_for(parts, seed):
    seed(bot("vm1"), bot("xx1", dims={"pool": ["other"]}))
    pool = pb.StringPair(key="pool", value="ci")
    either = pb.StringPair(key="pool", value="ci|other")
    eve, both = viewer("ci"), viewer("ci", "other")
    for method, kind in (("ListBots", pb.BotsRequest), ("CountBots", pb.BotsCountRequest)):
        ask(parts, method, eve, kind(dimensions=[pool]))
        ask(parts, method, both, kind(dimensions=[either]))
        ask(parts, method, viewer(""), kind())
        assert "for the server" in denied(parts, method, both, kind())
        assert "pool ci, other" in denied(parts, method, eve, kind(dimensions=[either]))


@spec("prpc:5.6.p1")
def test_checks_of_list_bots_come_in_their_order(parts):
    dims = [pb.StringPair(key="", value="x")]
    for message, words in (
        (pb.BotsRequest(limit=1001, cursor="x", dimensions=dims), "limit"),
        (pb.BotsRequest(cursor="x", dimensions=dims), "cursor"),
        (pb.BotsRequest(dimensions=dims), "dimensions"),
        (pb.BotsRequest(), "no permission"),
    ):
        with pytest.raises(Refusal, match=words):
            ask(parts, "ListBots", Caller("user:eve"), message)


@spec("prpc:2.2.1.3")
def test_cursor_of_another_method_is_code_3(seed, prpc):
    seed(bot("b1"), event(1, "b1"))
    cursor = prpc.good("Bots/ListBotEvents", {"botId": "b1", "limit": 1})["cursor"]
    assert prpc.call("Bots/ListBots", {"cursor": cursor}).code == 3


# Dimensions.


@spec("prpc:5.8.p1")
@pytest.mark.usefixtures("two_pools")
def test_dimensions_as_in_the_example(seed, prpc):
    seed(
        bot("vm1-m1", dims={"os": ["Linux"]}),
        bot("vm2-m1", dims={"os": ["Ubuntu", "Linux"]}, dead=True),
        bot("xx1", dims={"pool": ["other"], "os": ["Mac"]}),
    )
    example = EXAMPLES["Bots/GetBotDimensions"]
    found = prpc.good("Bots/GetBotDimensions", example["request"])
    assert found == example["reply"] | {"ts": "2026-03-04T06:06:07.089Z"}


@spec("prpc:5.8.p1", "prpc:8.1.2.5")
@pytest.mark.usefixtures("two_pools")
def test_dimensions_are_those_of_pools_that_the_caller_may_list(parts, seed):
    seed(
        bot("vm1", dims={"os": ["Linux"]}),
        bot("xx1", dims={"pool": ["other"], "os": ["Mac"]}),
        bot("lost", dims={"pool": ["gone"], "os": ["Beos"]}),
    )

    def systems(caller, pool=""):
        found = ask(parts, "GetBotDimensions", caller, pb.BotsDimensionsRequest(pool=pool))
        return {value for pair in found.bots_dimensions if pair.key == "os" for value in pair.value}

    everything = viewer("")
    assert systems(everything) == {"Linux", "Mac", "Beos"}
    assert systems(everything, "gone") == {"Beos"}
    assert systems(everything, "unknown") == set()
    eve = viewer("ci", "gone")
    assert systems(eve) == systems(eve, "ci") == {"Linux"}
    assert systems(viewer("ci", "other")) == {"Linux", "Mac"}
    assert systems(Caller("user:eve")) == set()
    for pool in ("other", "unknown", "gone"):
        message = denied(parts, "GetBotDimensions", eve, pb.BotsDimensionsRequest(pool=pool))
        assert message == f"user:eve has no permission swarming.pools.listBots for pool {pool}"


@spec("prpc:5.8.p1")
def test_dimensions_are_looked_up_once_in_two_minutes(seed, prpc, clock, store, monkeypatch):
    seed(bot("vm1"))
    first = prpc.good("Bots/GetBotDimensions")
    seed(bot("vm2"))
    clock.advance(KEEP_S - 1)
    assert prpc.good("Bots/GetBotDimensions") == first
    clock.advance(1)
    again = prpc.good("Bots/GetBotDimensions")
    assert again["ts"] == "2026-03-04T06:08:07.089Z"
    assert again["botsDimensions"][0] == {"key": "id", "value": ["vm1", "vm2"]}
    assert KEEP_S <= 120
