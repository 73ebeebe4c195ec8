"""`GET /tasks/<id>/why`: each bot of the pool and what keeps it from the task."""

import pytest

TASK = {"command": ["/bin/true"], "wait_for_capacity": True}


def why(admin, task, query=""):
    reply = admin.get(f"/tasks/{task['task_id']}/why{query}")
    assert reply.status_code == 200, reply.text
    return reply.json


def test_why_names_each_bot_with_the_nearest_miss_first(admin, make_bot):
    make_bot("far", dims={"os": ["Linux"]}).start()
    make_bot("near", dims={"os": ["Linux"], "gpu": ["h100"]}).start()
    task = admin.submit("x", dimensions={"os": ["Mac"], "gpu": ["h100"]}, wait_for_capacity=True)
    found = why(admin, task)
    assert [(bot["bot_id"], bot["misses"]) for bot in found["bots"]] == [
        ("near", ["os:Mac"]),
        ("far", ["gpu:h100", "os:Mac"]),
    ]
    assert found["would_help"][0] == "give the bot os:Mac, or ask for less (near)"
    assert found["obstacles"]["dimensions"] == 2
    assert found["summary"] == "2 bots in the pool: 2 without the dimensions"


def test_why_tells_apart_who_could_take_it(admin, make_bot, ready_bot):
    task = admin.submit("x")
    make_bot("vm2").start()
    admin.post("/bots/vm2/quarantine", {"reason": "smoke"})
    found = why(admin, task)
    reasons = {bot["bot_id"]: bot["reason"] for bot in found["bots"]}
    assert reasons["vm2"] == "quarantined"
    assert reasons["vm1"] in {"none", "not_waiting"}


def test_why_of_a_dead_bot_asks_for_it_to_come_back(admin, ready_bot):
    ready_bot.call("/event", event="bot_shutdown", message="bye", dimensions=ready_bot.dims)
    found = why(admin, admin.submit("x"))
    assert found["would_help"] == ["the bot comes back (vm1)"]
    assert found["bots"][0]["reason"] == "dead"


def test_queue_position_counts_what_goes_before(admin, ready_bot):
    first = admin.submit("a")
    second = admin.submit("b")
    urgent = admin.submit("c", priority=50)
    other = admin.submit("d", dimensions={"os": ["Linux"]}, wait_for_capacity=True)
    assert [why(admin, task)["queue_position"] for task in (urgent, first, second, other)] == [
        1,
        2,
        3,
        1,
    ]
    assert why(admin, other)["pool_position"] == 4


def test_why_pages_through_the_bots(admin, make_bot):
    for number in range(3):
        make_bot(f"vm{number}", dims={"os": ["Linux"]}).start()
    task = admin.submit("x", dimensions={"os": ["Mac"]}, wait_for_capacity=True)
    first = why(admin, task, "?limit=2")
    rest = why(admin, task, f"?limit=2&offset={first['next_offset']}")
    assert [bot["bot_id"] for bot in first["bots"] + rest["bots"]] == ["vm0", "vm1", "vm2"]
    assert rest["next_offset"] is None


def test_why_without_any_bot_says_so(admin):
    found = why(admin, admin.submit("x", wait_for_capacity=True))
    assert (found["summary"], found["bots"]) == ("the pool has no bots", [])
    assert found["would_help"] == ["add a bot to the pool: it has none"]


def test_why_of_a_task_that_ended_says_how(admin):
    task = admin.submit("x", wait_for_capacity=True)
    admin.post(f"/tasks/{task['task_id']}/cancel", {})
    found = why(admin, task)
    assert (found["state"], found["summary"]) == ("CANCELED", "is not pending: CANCELED")


@pytest.mark.parametrize("query", ["?limit=0", "?offset=x", "?who=me"])
def test_why_refuses_parameters_it_does_not_know(admin, query):
    task = admin.submit("x", wait_for_capacity=True)
    assert admin.get(f"/tasks/{task['task_id']}/why{query}").status_code == 400


def test_why_of_an_unknown_task_is_not_found(admin):
    assert admin.get("/tasks/76d00eba71beef10/why").status_code == 404


def test_bots_are_not_named_to_somebody_who_may_not_list_them(parts, make_bot, admin):
    from botapi.api.why_pending import why as look
    from botapi.domain.permissions import Caller

    make_bot("vm1", dims={"os": ["Linux"]}).start()
    task = admin.submit("x", dimensions={"os": ["Mac"]}, wait_for_capacity=True)
    found = look(parts.api, Caller("user:x@example.com"), task["task_id"], {})
    assert (found["bots"], found["would_help"]) == ([], [])
    assert found["obstacles"]["dimensions"] == 1
