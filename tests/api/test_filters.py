"""Lists by `q`: what passes, pages, counts, and filters that mean nothing."""

import pytest

from botapi.api import filters, task_lists
from botapi.api.bot_queries import BotFilter
from botapi.api.prpc import paging
from botapi.api.task_queries import TaskFilter
from botapi.domain.bot import BotStatus
from botapi.domain.filter_language import All
from botapi.domain.task import TaskState


def names(reply):
    assert reply.status_code == 200, reply.text
    return [task["name"] for task in reply.json["items"]]


def bot_ids(reply):
    assert reply.status_code == 200, reply.text
    return [bot["bot_id"] for bot in reply.json["items"]]


@pytest.fixture
def fleet(make_bot, clock):
    """Three bots; the third has been silent for two hours."""
    make_bot("vm3", dims={"os": ["Mac"], "cores": ["4"]}).start()
    clock.advance(7200)
    make_bot("vm1", dims={"os": ["Linux", "Linux-6"], "cores": ["8"]}).start()
    make_bot("vm2", dims={"os": ["Linux"], "cores": ["16"]}).start()


@pytest.fixture
def history(admin, ready_bot, clock):
    """One task that worked, one that failed after 90 s, one that is pending."""
    admin.submit("x", name="good", tags=["build:1", "lang:c"], user="ann", priority=50)
    ready_bot.work(ready_bot.update(nonblocking=False)["lease"])
    clock.advance(2400)
    ready_bot.start()
    admin.submit("x", name="bad", tags=["build:2"])
    ready_bot.work(ready_bot.update(nonblocking=False)["lease"], exit_code=3)
    clock.advance(60)
    admin.submit("x", name="later", tags=["build:2", "lang:c"], wait_for_capacity=True)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("", ["later", "bad", "good"]),
        ("build:2", ["later", "bad"]),
        ("build:1|2 lang:c", ["later", "good"]),
        ("-build:2", ["good"]),
        ("lang:*", ["later", "good"]),
        ("-lang:*", ["bad"]),
        ("state:success", ["good"]),
        ("state:failure", ["bad"]),
        ("state:pending", ["later"]),
        ("state:final", ["bad", "good"]),
        ("state:final state:completed", ["bad", "good"]),
        ("state:final state:pending", []),
        ("state!=final", ["later"]),
        ("cause:user", ["bad"]),
        ("exit>=1", ["bad"]),
        ("exit:0|3", ["bad", "good"]),
        ("exit:*", ["bad", "good"]),
        ("user:ann bot:vm1 pool:default", ["good"]),
        ("user:ann user:bob", []),
        ("priority<100", ["good"]),
        ("created:>30m", ["good"]),
        ("created:<30m", ["later", "bad"]),
        ("created:<30m created:>30s", ["bad"]),
        ("pending:>30s", []),
        ("name:good|later", ["later", "good"]),
        ('"LANG:C" -name:later', ["good"]),
        ("(name:good) OR (state:pending)", ["later", "good"]),
        ("tag.build:1", ["good"]),
    ],
)
def test_tasks_pass_their_filter(admin, q, found):
    assert names(admin.get("/tasks", query_string={"q": q})) == found


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("os:Linux", ["vm1", "vm2"]),
        ("os:Linux-6|Mac", ["vm1", "vm3"]),
        ("-os:Mac", ["vm1", "vm2"]),
        ("cores>=8", ["vm1", "vm2"]),
        ("cores<16 os:Linux", ["vm1"]),
        ("id:vm1|vm3", ["vm1", "vm3"]),
        ("dimension.id:vm1", ["vm1"]),
        ("status:idle|busy pool:default", ["vm1", "vm2", "vm3"]),
        ("status:dead", []),
        ("seen:>1h", ["vm3"]),
        ("seen:<1h", ["vm1", "vm2"]),
        ("first_seen:>1h", ["vm3"]),
        ("has:conflict", []),
        ("-task:*", ["vm1", "vm2", "vm3"]),
        ("ip:127.0.0.1 vm2", ["vm2"]),
        ("gpu:*", []),
    ],
)
def test_bots_pass_their_filter(admin, q, found):
    assert bot_ids(admin.get("/bots", query_string={"q": q})) == found


def test_bot_is_found_by_what_it_reports(admin, make_bot):
    bot = make_bot("vm1")
    bot.state |= {"disk": {"free_mb": 1500}, "names": ["a", "b"], "on": True}
    bot.start()
    bot.poll()
    for q, found in (
        ("state.disk.free_mb<2000", ["vm1"]),
        ("state.disk.free_mb>2000", []),
        ("state.names:b state.on:true", ["vm1"]),
        ("state.disk.none:*", []),
    ):
        assert bot_ids(admin.get("/bots", query_string={"q": q})) == found


@pytest.mark.parametrize(
    ("path", "q", "complaint"),
    [
        (
            "/tasks",
            "build:1 stat:final",
            '?q: "stat" at character 9: is no key; do you mean state?',
        ),
        ("/tasks", "state:gone", '?q: "gone" at character 7: there is no such state; use one of'),
        ("/tasks", "name:", '?q: "name:" at character 1: has no value'),
        ("/tasks", "created:>soon", '?q: "created:>soon" at character 1: "soon" is not'),
        ("/tasks", "(a:b", '?q: "(a:b" at character 1: is not closed'),
        ("/tasks", "a:b " * 101, "more than 100 terms"),
        ("/bots", "statsu:idle", "do you mean status? There are: first_seen, has, id, ip,"),
        ("/bots", "status:tired", "there is no such status; use one of busy, dead, draining"),
        ("/bots/nobody/tasks", "stat:x", "do you mean state?"),
    ],
)
def test_filter_that_means_nothing_is_400_and_names_the_part(admin, path, q, complaint):
    reply = admin.get(path, query_string={"q": q})
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")
    assert complaint in reply.json["detail"]


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00", "-2h", "0" * 50])
def test_time_that_is_none_is_400(admin, time):
    reply = admin.get("/tasks", query_string={"from": time})
    assert reply.status_code == 400
    assert reply.json["detail"].startswith("?from: ")


@pytest.mark.usefixtures("history")
def test_tasks_are_bounded_by_the_time_they_were_made(admin):
    made = {task["name"]: task["created_at"] for task in admin.get("/tasks").json["items"]}
    since = admin.get("/tasks", query_string={"from": made["bad"]})
    assert names(since) == ["later", "bad"]
    assert names(admin.get("/tasks", query_string={"to": made["bad"]})) == ["good"]
    both = admin.get("/tasks", query_string={"from": made["good"], "to": made["later"]})
    assert names(both) == ["bad", "good"]


@pytest.mark.usefixtures("fleet")
def test_pages_of_a_filter_that_no_index_knows_join_up(admin, monkeypatch):
    monkeypatch.setattr(filters, "CHUNK", 1)
    monkeypatch.setattr(filters, "MAX_LOOKED", 2)
    query = {"q": "-os:Linux", "limit": 1}
    first = admin.get("/bots", query_string=query)
    assert bot_ids(first) == []
    second = admin.get("/bots", query_string=query | {"cursor": first.json["next_cursor"]})
    assert bot_ids(second) == ["vm3"]
    assert second.json["next_cursor"] is None
    other = admin.get("/bots", query_string={"q": "x:y", "cursor": first.json["next_cursor"]})
    assert other.status_code == 400
    assert "belongs to another list" in other.json["detail"]


def test_cursor_of_the_public_api_is_refused(admin, parts):
    foreign = paging.next_cursor(parts.api, "ListBots", "vm1", True)
    reply = admin.get("/bots", query_string={"cursor": foreign})
    assert reply.status_code == 400
    assert "belongs to another list" in reply.json["detail"]


@pytest.mark.usefixtures("history")
def test_page_that_is_full_goes_on_behind_its_last_task(admin):
    query = {"q": '"build"', "limit": 2}
    first = admin.get("/tasks", query_string=query)
    assert names(first) == ["later", "bad"]
    second = admin.get("/tasks", query_string=query | {"cursor": first.json["next_cursor"]})
    assert (names(second), second.json["next_cursor"]) == (["good"], None)


def count(admin, path, **query):
    found = admin.get(path, query_string=query).json
    return found["count"], found["count_kind"]


@pytest.mark.usefixtures("history")
def test_counts_say_how_good_they_are(admin, monkeypatch):
    assert "count" not in admin.get("/tasks").json
    assert count(admin, "/tasks", count="exact", limit=1) == (3, "exact")
    assert count(admin, "/tasks", q="build:2", count="estimate") == (2, "exact")
    assert count(admin, "/tasks", q="exit>=0", count="exact") == (2, "exact")
    monkeypatch.setattr(filters, "CHUNK", 1)
    monkeypatch.setattr(filters, "MAX_COUNT_LOOKED", 2)
    monkeypatch.setattr(filters, "SAMPLE", 2)
    assert count(admin, "/tasks", q="exit>=0", count="exact") == (1, "at_least")
    assert count(admin, "/tasks", q="exit>=0", count="estimate") == (2, "estimate")
    assert count(admin, "/bots", count="exact") == (1, "exact")
    assert count(admin, "/bots", q="seen:<1d", count="exact") == (1, "exact")
    assert admin.get("/tasks?count=some").status_code == 400


@pytest.mark.usefixtures("history")
def test_bot_has_a_list_of_its_tasks(admin):
    assert names(admin.get("/bots/vm1/tasks")) == ["bad", "good"]
    assert names(admin.get("/bots/vm1/tasks?q=exit:3&count=exact")) == ["bad"]
    assert names(admin.get("/bots/vm2/tasks")) == []
    assert admin.get("/bots/vm1/tasks?bot=vm2").status_code == 400


def plan(q, asked=None):
    return filters.plan_tasks(asked or TaskFilter(), {"q": [q]}, now_ms=10_000_000)


def test_index_is_asked_for_all_that_it_knows(parts):
    found = task_lists.planned(parts, {"q": ["build:1|2 state:running pool:ci user:a bot:b"]})
    assert found.rest == All()
    assert found.asked == TaskFilter(
        states=frozenset({TaskState.RUNNING}),
        tags=(frozenset({"build:1", "build:2"}),),
        bots=frozenset("b"),
        users=frozenset("a"),
        pools=frozenset({"ci"}),
    )
    times = plan("(created:<=1h created:>1m)").asked
    assert (times.start_ms, times.end_ms) == (6_400_000, 9_940_000)
    bots = filters.plan_bots(BotFilter(), {"q": ["os:a|b id:c status:dead"]}).asked
    assert bots.statuses == frozenset({BotStatus.DEAD})
    assert bots.dimensions == (frozenset({"os:a", "os:b"}), frozenset({"id:c"}))


def test_what_is_more_than_a_store_can_answer_is_looked_at():
    many = "|".join(map(str, range(26)))
    found = plan(f"a:{many} b:1")
    assert found.asked.tags == (frozenset({"b:1"}),)
    assert len(found.rest.parts) == 1


def test_parent_is_found_by_its_task_or_its_run():
    runs = frozenset({"parent_task_id:76d045a8f1001990", "parent_task_id:76d045a8f1001991"})
    assert plan("parent:76d045a8f1001990").asked.tags == (runs,)
    assert plan("parent:76d045a8f1001991").asked.tags == (runs,)
