"""Tasks that no bot can run, and why a task is pending."""

import pytest

TASK = {"command": ["/bin/true"]}


def refused(reply):
    assert (reply.status_code, reply.json["code"]) == (409, "no_capacity")
    return reply.json["detail"]


def test_task_is_refused_while_there_is_no_bot_at_all(admin):
    line = refused(admin.post("/tasks", TASK))
    assert line.startswith("there are no bots yet; ")
    assert admin.get("/tasks").json["items"] == []
    assert admin.get("/audit").json["items"] == []


def test_refusal_names_the_one_constraint_that_no_bot_meets(admin, make_bot):
    make_bot("vm1", dims={"cpu": ["x86", "arm"]}).start()
    line = refused(
        admin.post("/tasks", {**TASK, "dimensions": {"os": ["Mac|BeOS"], "cpu": ["arm"]}})
    )
    assert line.startswith("no known bot has os:BeOS|os:Mac; ")
    assert "wait_for_capacity" in line


def test_refusal_names_several_when_one_is_not_enough(admin, ready_bot):
    line = refused(admin.post("/tasks", {**TASK, "dimensions": {"os": ["Mac"], "gpu": ["h100"]}}))
    assert line.startswith("no known bot has gpu:h100 and os:Mac; ")


def test_refusal_speaks_of_every_slice(admin, ready_bot):
    slices = [{**TASK, "dimensions": {"os": [name]}} for name in ("Mac", "BeOS")]
    line = refused(admin.post("/tasks", {"slices": slices}))
    assert line.startswith("/slices/0: no known bot has os:Mac; /slices/1: no known bot has os:Be")


@pytest.mark.parametrize("place", [0, 1])
def test_one_possible_slice_is_enough(admin, ready_bot, place):
    slices = [{**TASK, "dimensions": {"os": ["Mac"]}}]
    slices.insert(place, {**TASK, "dimensions": {"os": ["Linux"]}})
    assert admin.post("/tasks", {"slices": slices}).status_code == 201


def test_wait_for_capacity_accepts_and_says_so(admin):
    task = admin.submit("x", wait_for_capacity=True)
    assert task["why"] == "waits for capacity: no known bot has pool:default"


def test_dead_bots_count_as_known(admin, parts, ready_bot):
    ready_bot.call("/event", event="bot_shutdown", message="bye", dimensions=ready_bot.dims)
    assert admin.get("/bots/vm1").json["status"] == "dead"
    task = admin.submit("x")
    assert task["why"] == "1 bot matches: 1 dead"


def test_positive_answer_is_believed_for_a_minute(admin, store, clock, ready_bot):
    admin.submit("x")
    store.transact(lambda txn: txn.delete("bot", "vm1"), label="test")
    clock.advance(59)
    assert admin.submit("x")["why"] == "no known bot has pool:default"
    clock.advance(2)
    refused(admin.post("/tasks", TASK))


def test_more_alternatives_than_one_query_takes_are_looked_through(admin, make_bot):
    values = [str(n) for n in range(40)]
    make_bot("small", dims={"n": values[:20]}).start()
    make_bot("big", dims={"n": values}).start()
    reply = admin.post("/tasks", {**TASK, "dimensions": {"n": values}})
    assert reply.status_code == 201
    assert reply.json["why"] == "waits for a bot with its many dimensions"
    reply = admin.post("/tasks", {**TASK, "dimensions": {"n": [*values, "41"]}})
    assert refused(reply)


def test_why_counts_the_bots_that_match(admin, make_bot):
    make_bot("vm1").start()
    sick = make_bot("vm2")
    sick.state["quarantined"] = "no disk"
    sick.handshake()
    sick.poll()
    busy = make_bot("vm3").start()
    admin.submit("x", dimensions={"id": ["vm3"]})
    busy.claim(busy.update()["lease"])
    task = admin.submit("x")
    assert task["why"] == "3 bots match: 1 busy, 1 idle, 1 quarantined"


def test_why_names_the_bot_that_has_the_offer(admin, ready_bot):
    task = admin.submit("x")
    assert ready_bot.update()["lease"]
    why = admin.get(f"/tasks/{task['task_id']}").json["why"]
    assert why == "offered to vm1 since 2026-03-04T06:06:07.089Z"


def test_why_names_the_slice_and_ends_with_the_wait(admin, ready_bot):
    slices = [{"command": ["a"]}, {"command": ["b"]}]
    task = admin.post("/tasks", {"slices": slices}).json
    assert task["why"] == "slice 1 of 2: 1 bot matches: 1 idle"
    ready_bot.claim(ready_bot.update()["lease"])
    task = admin.get(f"/tasks/{task['task_id']}").json
    assert (task["state"], task["why"]) == ("RUNNING", None)


def test_why_of_a_long_list_asks_a_bounded_number_of_questions(admin, make_bot):
    make_bot("vm1", dims={"n": [str(n) for n in range(25)]}).start()
    for n in range(25):
        admin.submit("x", dimensions={"n": [str(n)]})
    reasons = [task["why"] for task in admin.get("/tasks").json["items"]]
    assert reasons.count("1 bot matches: 1 idle") == 20
    assert reasons.count("waits for a bot; its own page says more") == 5
