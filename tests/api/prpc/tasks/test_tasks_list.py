"""ListTasks, ListTaskRequests, CountTasks, CancelTasks: filters, pages, checks in their order."""

import pytest

from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.permissions import Role
from botapi.domain.task import TaskState
from botapi.store import codec
from tests.fakes.prpc_tasks import ADMIN, caller, direct, one_slice

LONG_AGO = "2020-01-01T00:00:00Z"
NOW = "2026-03-04T06:06:07.089Z"
LISTS = ("ListTasks", "ListTaskRequests")


def ids(answer):
    assert not answer.code, answer.text
    return [item["taskId"] for item in answer.reply.get("items", [])]


def count(swarming, **asked):
    answer = swarming("CountTasks", {"start": LONG_AGO, "end": "2600-01-01T00:00:00Z"} | asked)
    assert not answer.code, answer.text
    return answer.reply.get("count", 0)


@pytest.fixture
def every_state(tasks):
    """Task ids by the filter of states that finds them alone."""
    same = one_slice(idempotent=True)
    found = {
        "QUERY_COMPLETED_SUCCESS": tasks.finished(same),
        "QUERY_DEDUPED": tasks.made(same),
        "QUERY_COMPLETED_FAILURE": tasks.finished(exit_code=1),
        "QUERY_TIMED_OUT": tasks.finished(exit_code=-1, end={"io_timeout": True}),
        "QUERY_BOT_DIED": tasks.failed(),
        "QUERY_CLIENT_ERROR": tasks.failed({"missing_cipd": [{"package_name": "p"}]}),
        "QUERY_KILLED": tasks.killed(),
        "QUERY_EXPIRED": tasks.expired(),
        "QUERY_CANCELED": tasks.canceled(),
        "QUERY_NO_RESOURCE": tasks.canceled(),
    }
    tasks.change(found["QUERY_NO_RESOURCE"], state=TaskState.NO_RESOURCE)
    found["QUERY_RUNNING"] = tasks.claimed(one_slice())[0][:-1] + "0"
    found["QUERY_PENDING"] = tasks.made(one_slice())
    return found


@pytest.mark.slow
@pytest.mark.spec("prpc:2.5.1.1", "prpc:2.5.1.2", "prpc:2.5.1.3", "prpc:2.5.1.4")
@pytest.mark.spec("prpc:2.5.1.5", "prpc:2.5.1.6", "prpc:10.p7", "prpc:10.p6", "prpc:3.p1")
@pytest.mark.spec("11.4.1.8", "11.4.1.9", "11.4.1.11")
def test_each_filter_of_states_selects_its_own_in_lists_and_counts(every_state, swarming):
    success, failure, deduped = (
        every_state[f"QUERY_{word}"]
        for word in ("COMPLETED_SUCCESS", "COMPLETED_FAILURE", "DEDUPED")
    )
    expected = {name: {task_id} for name, task_id in every_state.items()} | {
        "QUERY_COMPLETED_SUCCESS": {success, deduped},
        "QUERY_COMPLETED": {success, failure, deduped},
        "QUERY_PENDING_RUNNING": {every_state["QUERY_PENDING"], every_state["QUERY_RUNNING"]},
        "QUERY_ALL": set(every_state.values()),
    }
    assert len(expected) == 15
    for state, wanted in expected.items():
        for method in LISTS:
            found = ids(swarming(method, {"state": state}))
            assert set(found) == wanted, (method, state)
            keys = [codec.task_key(task_id) for task_id in found]
            assert keys == sorted(keys)
        assert count(swarming, state=state) == len(wanted), state
    for method in LISTS:
        assert ids(swarming(method)) == [every_state["QUERY_PENDING"]]
    assert count(swarming) == 1


@pytest.mark.spec("prpc:2.6.1.4", "prpc:6.8.p1", "prpc:6.9.p1", "prpc:9.1.13", "11.2.1.5")
def test_lists_are_newest_first_and_tell_the_time(tasks, swarming, clock):
    made = []
    for number in range(3):
        made.append(tasks.made(name=f"n{number}"))
        clock.advance(0.001)
    for method in LISTS:
        answer = swarming(method)
        assert ids(answer) == made[::-1]
        assert answer.reply["now"] == "2026-03-04T06:06:07.092Z"
        assert [item["name"] for item in answer.reply["items"]] == ["n2", "n1", "n0"]
        assert set(answer.reply) == {"items", "now"}
    assert swarming("ListTasks").reply["items"][0] == tasks.result(made[2])
    assert swarming("ListTaskRequests").reply["items"][0]["taskSlices"]


@pytest.mark.spec("prpc:6.8.p1", "prpc:4.4.25")
def test_list_gives_statistics_when_asked(tasks, swarming):
    tasks.finished(end={"bot_overhead": 2.0})
    body = {"state": "QUERY_ALL"}
    (item,) = swarming("ListTasks", body).reply["items"]
    assert "performanceStats" not in item
    (item,) = swarming("ListTasks", body | {"includePerformanceStats": True}).reply["items"]
    assert item["performanceStats"] == {"botOverhead": 2.0}


@pytest.mark.spec("prpc:2.3.p1", "11.2.1.3", "prpc:10.p10")
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], "ab"),
        (["job:nightly"], "ab"),
        (["job:nightly", "n:1"], "a"),
        (["n:1|2"], "ab"),
        (["n:1|2", "n:2|3"], "b"),
        (["n:1|1", "n:1"], "a"),
        (["n:3"], ""),
        (["N:1"], ""),
        (["url:http://x"], "a"),
        (["os:Linux"], "b"),
        (["os:Linux|Plan9"], "b"),
        (["pool:default"], "ab"),
        (["pool:default|other"], "ab"),
        (["priority:100", "authenticated:user:alice"], "ab"),
    ],
)
def test_tags_are_anded_and_their_alternatives_ored(tasks, swarming, tags, expected):
    linux = [{"key": "pool", "value": "default"}, {"key": "os", "value": "Linux|Mac"}]
    names = {
        tasks.made(tags=["job:nightly", "n:1", "url:http://x"]): "a",
        tasks.made(one_slice(dimensions=linux), tags=["job:nightly", "n:2"]): "b",
    }
    for method in LISTS:
        found = [names[task_id] for task_id in ids(swarming(method, {"tags": tags}))]
        assert "".join(sorted(found)) == expected
    assert count(swarming, tags=tags) == len(expected)


BAD_TAGS = ["nocolon", ":x", "k:", "k:a|", "k: a", " k:a", "k:a |b", ""]
METHODS = [("ListTasks", {}), ("ListTaskRequests", {}), ("CountTasks", {"start": LONG_AGO})]


@pytest.mark.spec("prpc:2.3.1.2", "prpc:2.3.1.3", "prpc:2.3.1.4", "prpc:9.1.5")
@pytest.mark.parametrize(("method", "body"), [*METHODS, ("CancelTasks", {})])
def test_bad_tags_are_the_callers_mistake(swarming, method, body):
    for tag in BAD_TAGS:
        code, text = swarming(method, body | {"tags": ["pool:default", tag]}).refused
        assert (code, "tags" in text) == (3, True), tag
    many = [f"k{number}:v" for number in range(26)]
    assert swarming(method, body | {"tags": many}).code == 3


@pytest.mark.spec("prpc:2.2.1.1", "prpc:6.8.p1", "prpc:6.9.p1", "prpc:6.6.p1", "11.2.1.1")
@pytest.mark.parametrize("method", [*LISTS, "CancelTasks"])
def test_limit_is_from_1_to_1000(swarming, method):
    for limit in (-1, 1001, 2**31 - 1, -(2**31)):
        code, text = swarming(method, {"limit": limit, "tags": ["a:b"]}).refused
        assert (code, "limit" in text) == (3, True)
    for limit in (0, 1, 1000):
        assert not swarming(method, {"limit": limit, "tags": ["a:b"]}).code


@pytest.mark.spec("prpc:6.8.p1", "11.4.1.8")
@pytest.mark.parametrize("method", LISTS)
def test_tasks_are_sorted_by_creation_only(swarming, method):
    for sort in ("QUERY_STARTED_TS", "QUERY_COMPLETED_TS", "QUERY_ABANDONED_TS"):
        assert swarming(method, {"sort": sort}).code == 3
    assert not swarming(method, {"sort": "QUERY_CREATED_TS"}).code


def pages(swarming, method, **asked):
    """Every page up to one without a cursor."""
    found, cursor = [], ""
    while True:
        answer = swarming.json(method, asked | {"cursor": cursor})
        found.append(ids(answer))
        cursor = answer.reply.get("cursor", "")
        if not cursor:
            return found


@pytest.mark.spec("prpc:2.2.1.2", "prpc:2.2.1.4", "prpc:10.p9", "11.2.1.2")
@pytest.mark.parametrize("method", LISTS)
def test_cursor_comes_exactly_with_full_pages(tasks, swarming, clock, method):
    made = []
    for _ in range(4):
        made.insert(0, tasks.made())
        clock.advance(1)
    assert pages(swarming, method, limit=2) == [made[:2], made[2:], []]
    assert pages(swarming, method, limit=3) == [made[:3], made[3:]]
    assert pages(swarming, method, limit=4) == [made, []]
    assert pages(swarming, method, limit=5) == [made]


@pytest.mark.spec("prpc:2.2.1.3", "prpc:2.2.1.5", "11.2.1.5")
@pytest.mark.parametrize("method", LISTS)
def test_cursor_goes_on_with_another_limit_past_tasks_that_came_and_went(
    tasks, swarming, clock, method
):
    made = []
    for _ in range(5):
        made.insert(0, tasks.made())
        clock.advance(1)
    first = swarming.json(method, {"limit": 2})
    tasks.made()
    swarming.json("CancelTask", {"taskId": made[1]})
    swarming.json("CancelTask", {"taskId": made[3]})
    rest = swarming.json(method, {"limit": 9, "cursor": first.reply["cursor"]})
    assert ids(first) + ids(rest) == [made[0], made[1], made[2], made[4]]


@pytest.fixture
def cursors(tasks, swarming, clock):
    """A good cursor of each method."""
    for _ in range(3):
        tasks.made(tags=["a:b"])
        clock.advance(1)
    body = {"limit": 1, "tags": ["a:b"]}
    return {
        method: swarming.json(method, body).reply["cursor"] for method in (*LISTS, "CancelTasks")
    }


@pytest.mark.spec("prpc:2.2.1.3", "prpc:10.p9", "prpc:6.9.p1", "11.2.1.2")
@pytest.mark.parametrize("method", [*LISTS, "CancelTasks"])
def test_cursor_that_is_foreign_or_damaged_is_refused(swarming, cursors, admin, method):
    own = cursors[method]
    strange = [cursor for name, cursor in cursors.items() if name != method]
    strange.append(admin.get("/tasks?limit=1").json["next_cursor"])
    strange += [own[:-1], own + "A", own[:4] + "x" + own[5:], "junk", "é", own.split(".")[0]]
    for cursor in strange:
        code, text = swarming.json(method, {"cursor": cursor, "tags": ["a:b"]}).refused
        assert (code, "cursor" in text) == (3, True), cursor
    assert not swarming.json(method, {"cursor": own, "tags": ["a:b"]}).code


@pytest.mark.spec("prpc:2.2.1.6")
@pytest.mark.parametrize("method", [*LISTS, "CancelTasks"])
def test_cursor_outside_of_the_range_is_refused(swarming, cursors, method):
    body = {"tags": ["a:b"], "cursor": cursors[method]}
    newest = "2026-03-04T06:06:09.089Z"
    assert not swarming.json(method, body | {"start": newest}).code
    for outside in ({"end": newest}, {"start": "2026-03-04T06:06:09.090Z"}):
        code, text = swarming.json(method, body | outside).refused
        assert (code, "cursor" in text) == (3, True)


@pytest.mark.spec("prpc:2.4.p1", "prpc:6.8.p1", "prpc:6.11.p1", "11.2.1.5")
@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"start": NOW}, 3),
        ({"start": "2026-03-04T06:06:07.089999999Z"}, 3),
        ({"start": "2026-03-04T06:06:07.090Z"}, 2),
        ({"end": "2026-03-04T06:06:08.089Z"}, 1),
        ({"end": "2026-03-04T06:06:08.089999Z"}, 1),
        ({"end": "2026-03-04T06:06:08.090Z"}, 2),
        ({"start": "2026-03-04T06:06:08.089Z", "end": "2026-03-04T06:06:08.090Z"}, 1),
        ({"start": "2010-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}, 3),
        ({"start": "2500-01-01T00:00:00Z"}, 0),
        ({"start": "2026-03-04T08:06:08.089+02:00"}, 2),
    ],
)
def test_range_is_cut_to_milliseconds_and_half_open(tasks, swarming, clock, bounds, expected):
    for _ in range(3):
        tasks.made()
        clock.advance(1)
    for method in LISTS:
        assert len(ids(swarming(method, bounds))) == expected
    assert count(swarming, **bounds) == expected


@pytest.mark.spec("prpc:2.4.p1", "prpc:9.1.4", "prpc:6.6.p1")
@pytest.mark.parametrize(
    "bounds",
    [
        {"start": NOW, "end": NOW},
        {"start": NOW, "end": "2026-03-04T06:06:07.089999Z"},
        {"start": NOW, "end": LONG_AGO},
        {"start": "2009-12-31T23:59:59.999Z"},
        {"start": NOW, "end": "2009-12-31T23:59:59.999Z"},
        {"start": "0001-01-01T00:00:00Z"},
    ],
)
def test_range_that_no_task_can_be_in_is_refused(swarming, bounds):
    for method in (*LISTS, "CountTasks", "CancelTasks"):
        code, text = swarming(method, bounds | {"tags": ["a:b"]}).refused
        assert (code, "start" in text or "end" in text) == (3, True)


@pytest.mark.spec("prpc:6.11.p1", "11.4.1.11")
def test_count_needs_a_start_and_ends_now(tasks, swarming, clock):
    assert swarming("CountTasks").refused == (3, "start is missing")
    tasks.made()
    assert swarming("CountTasks", {"start": LONG_AGO}).reply == {"now": NOW}
    clock.advance(1)
    reply = swarming("CountTasks", {"start": LONG_AGO}).reply
    assert reply == {"count": 1, "now": "2026-03-04T06:06:08.089Z"}
    assert swarming("CountTasks", {"start": "2026-03-04T06:06:08.089Z"}).code == 3


@pytest.mark.spec("prpc:8.1.2.6", "prpc:8.1.2.7", "prpc:9.1.6", "11.2.1.6", "prpc:10.p8")
@pytest.mark.parametrize(
    ("method", "body", "role"),
    [
        ("ListTasks", {}, Role.VIEWER),
        ("ListTaskRequests", {}, Role.VIEWER),
        ("CountTasks", {"start": LONG_AGO}, Role.VIEWER),
        ("CancelTasks", {}, Role.OPERATOR),
    ],
)
def test_every_pool_of_the_filter_counts_and_without_one_the_server(parts, method, body, role):
    def ask(who, *tags):
        return direct(parts, who, method, body | {"tags": ["a:b", *tags]})

    def denied(who, *tags):
        with pytest.raises(Refusal) as refusal:
            ask(who, *tags)
        return refusal.value.code is Code.PERMISSION_DENIED

    of_one, of_two, of_all = caller(role, "ci"), caller(role, "ci", "gpu"), caller(role)
    ask(of_one, "pool:ci")
    assert denied(of_one)
    assert denied(of_one, "pool:ci|gpu")
    assert denied(of_one, "pool:ci", "pool:gpu")
    assert denied(caller(), "pool:ci")
    ask(of_two, "pool:ci|gpu")
    ask(of_two, "pool:ci", "pool:gpu")
    ask(of_all)
    ask(of_all, "pool:unknown")
    if method == "CancelTasks":
        assert denied(caller(Role.VIEWER), "pool:ci")


@pytest.mark.spec("prpc:6.8.p1", "prpc:6.9.p1", "prpc:6.11.p1", "prpc:6.6.p1")
@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        *[
            (
                method,
                [
                    ("limit", {"limit": -1}),
                    ("sort", {"sort": "QUERY_STARTED_TS"}),
                    ("cursor", {"cursor": "junk"}),
                    ("tags", {"tags": ["nocolon"]}),
                    ("permission", {}),
                    ("start", {"start": NOW, "end": LONG_AGO}),
                ],
            )
            for method in LISTS
        ],
        (
            "CountTasks",
            [
                ("start is missing", {"start": None}),
                ("tags", {"start": NOW, "end": LONG_AGO, "tags": ["nocolon"]}),
                ("permission", {"start": NOW, "end": LONG_AGO}),
                ("start", {"start": NOW, "end": LONG_AGO}),
            ],
        ),
        (
            "CancelTasks",
            [
                ("limit", {"limit": -1, "tags": []}),
                ("tags are missing", {"tags": [], "cursor": "junk"}),
                ("cursor", {"cursor": "junk", "tags": ["nocolon"]}),
                ("tags", {"tags": ["nocolon"]}),
                ("permission", {"tags": ["a:b"]}),
                ("start", {"tags": ["a:b"], "start": NOW, "end": LONG_AGO}),
            ],
        ),
    ],
)
def test_checks_come_in_their_order(parts, method, wrong):
    """Everything from some check on is wrong: that check speaks."""
    stranger = caller()
    for index, (word, _) in enumerate(wrong):
        body = {}
        for _, later in reversed(wrong[index:]):
            body |= later
        who = stranger if "permission" in [name for name, _ in wrong[index:]] else ADMIN
        with pytest.raises(Refusal) as refusal:
            direct(parts, who, method, body)
        assert word in refusal.value.message, (word, refusal.value.message)
        expected = Code.PERMISSION_DENIED if word == "permission" else Code.INVALID_ARGUMENT
        assert refusal.value.code is expected


@pytest.mark.spec("prpc:6.6.p1", "prpc:2.6.1.4", "11.4.1.6")
def test_cancel_of_many_queues_a_page_at_a_time_newest_first(tasks, swarming, parts, clock):
    made = []
    for _ in range(5):
        made.insert(0, tasks.made(tags=["job:x"]))
        clock.advance(1)
    other = tasks.made(tags=["job:y"])
    body = {"tags": ["job:x", "pool:default"], "limit": 3}
    first = swarming.json("CancelTasks", body).reply
    assert (first["matched"], first["now"]) == (3, "2026-03-04T06:06:12.089Z")
    parts.sweeps.do_due()
    assert [tasks.stored(task_id).state for task_id in made] == ["CANCELED"] * 3 + ["PENDING"] * 2
    second = swarming.json("CancelTasks", body | {"cursor": first["cursor"]}).reply
    assert second == {"matched": 2, "now": "2026-03-04T06:06:12.089Z"}
    parts.sweeps.do_due()
    assert {tasks.stored(task_id).state for task_id in made} == {"CANCELED"}
    assert tasks.stored(other).state == "PENDING"
    assert swarming.json("CancelTasks", body).reply == {"now": "2026-03-04T06:06:12.089Z"}


@pytest.mark.spec("prpc:6.6.p1", "11.4.1.6")
def test_cancel_of_many_takes_running_ones_only_when_told_so(tasks, swarming, parts):
    run_id, _ = tasks.claimed(tags=["job:x"])
    pending = tasks.made(tags=["job:x"])
    done = tasks.canceled(tags=["job:x"])
    body = {"tags": ["job:x"]}
    assert swarming.json("CancelTasks", body).reply["matched"] == 1
    parts.sweeps.do_due()
    assert tasks.stored(pending).state == "CANCELED"
    assert not tasks.stored(run_id).killing
    assert swarming.json("CancelTasks", body | {"killRunning": True}).reply["matched"] == 1
    parts.sweeps.do_due()
    assert tasks.stored(run_id).killing
    assert tasks.stored(parse_task_id(done)).abandoned_ms


@pytest.mark.spec("prpc:6.6.p1")
def test_cancel_of_many_keeps_to_its_range(tasks, swarming, parts, clock):
    early = tasks.made(tags=["job:x"])
    clock.advance(10)
    late = tasks.made(tags=["job:x"])
    body = {"tags": ["job:x"], "start": LONG_AGO, "end": "2026-03-04T06:06:10Z"}
    assert swarming.json("CancelTasks", body).reply["matched"] == 1
    parts.sweeps.do_due()
    assert (tasks.stored(early).state, tasks.stored(late).state) == ("CANCELED", "PENDING")
