"""Bots and their events."""

import pytest

VIEW_KEYS = {
    "bot_id", "status", "dimensions", "state", "version", "expected_version", "task_id",
    "quarantine_reason", "maintenance", "first_seen_at", "last_seen_at", "external_ip",
    "authenticated_as", "session_id", "note", "quarantined_until", "paused_until", "restart_asked",
}  # fmt: skip
EVENT_KEYS = {
    "event_id", "at", "event", "message", "task_id", "version", "session_id", "external_ip",
    "quarantined", "maintenance",
}  # fmt: skip
NONE = dict.fromkeys(
    ("busy", "idle", "draining", "paused", "maintenance", "quarantined", "dead"), 0
)


@pytest.fixture
def fleet(make_bot):
    """An idle, a quarantined and a busy-with-upkeep bot."""
    make_bot("vm1", dims={"gpu": ["a", "b"]}).start()
    sick = make_bot("vm2", dims={"os": ["Mac"]})
    sick.state["quarantined"] = "no disk"
    sick.handshake()
    sick.poll()
    upkeep = make_bot("vm3")
    upkeep.state["maintenance"] = "cleaning"
    upkeep.handshake()
    upkeep.poll()


def ids(reply):
    assert reply.status_code == 200, reply.text
    return [bot["bot_id"] for bot in reply.json["items"]]


def test_there_are_no_bots(admin):
    assert admin.get("/bots").json == {"items": [], "next_cursor": None, "counts": NONE}


def test_list_by_id_with_counts(admin, fleet):
    reply = admin.get("/bots")
    assert ids(reply) == ["vm1", "vm2", "vm3"]
    assert reply.json["counts"] == NONE | {"idle": 1, "quarantined": 1, "maintenance": 1}
    first, second, third = reply.json["items"]
    assert set(first) == VIEW_KEYS
    assert first["dimensions"] == {
        "gpu": ["a", "b"], "id": ["vm1"], "os": ["Linux"], "pool": ["default"],
    }  # fmt: skip
    assert (second["status"], second["quarantine_reason"]) == ("quarantined", "no disk")
    assert (third["status"], third["maintenance"]) == ("maintenance", "cleaning")
    assert first["quarantine_reason"] is first["maintenance"] is first["task_id"] is None
    assert first["version"] == first["expected_version"]


def test_filters(admin, fleet):
    assert ids(admin.get("/bots?dimension=os:Linux")) == ["vm1", "vm3"]
    assert ids(admin.get("/bots?dimension=os:Linux|Mac&dimension=gpu:a")) == ["vm1"]
    assert ids(admin.get("/bots?status=idle")) == ["vm1"]
    assert ids(admin.get("/bots?status=idle&status=quarantined")) == ["vm1", "vm2"]
    assert ids(admin.get("/bots?dimension=os:Linux&status=&dimension=")) == ["vm1", "vm3"]


def test_counts_are_of_the_dimensions_in_any_status(admin, fleet):
    counts = admin.get("/bots?dimension=os:Linux&status=dead&limit=1").json["counts"]
    assert counts == NONE | {"idle": 1, "maintenance": 1}


def test_pages(admin, fleet):
    first = admin.get("/bots?limit=2")
    assert ids(first) == ["vm1", "vm2"]
    second = admin.get(f"/bots?limit=2&cursor={first.json['next_cursor']}")
    assert ids(second) == ["vm3"]
    assert second.json["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("dimension=os", '?dimension: "os": has no colon; write key:value'),
        ("dimension=1:x", '?dimension: "1:x": key does not match'),
        ("dimension=os:a||b", '?dimension: "os:a||b": empty value'),
        ("dimension=n:" + "|".join(map(str, range(26))), "?dimension: more than 25 values"),
        ("status=sick", '?status: "sick" is no status; use one of dead, quarantined'),
        ("limit=x", "?limit: "),
        ("p=x", "?p: no such parameter"),
    ],
)
def test_wrong_query_is_400(admin, query, complaint):
    reply = admin.get(f"/bots?{query}")
    assert reply.status_code == 400
    assert reply.json["detail"].startswith(complaint)


def test_one_bot(admin, fleet, clock):
    bot = admin.get("/bots/vm1").json
    assert bot == admin.get("/bots").json["items"][0]
    assert (bot["first_seen_at"], bot["session_id"]) == (
        "2026-03-04T06:06:07.089Z",
        "vm1-session/1",
    )
    assert bot["state"]["client"] == {"name": "skep", "version": "1"}
    assert bot["external_ip"] == "127.0.0.1"


def test_busy_bot_names_its_task(admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    ready_bot.claim(ready_bot.update()["lease"])
    bot = admin.get("/bots/vm1").json
    assert (bot["status"], bot["task_id"]) == ("busy", task_id)
    assert {event["task_id"] for event in admin.get("/bots/vm1/events").json["items"]} == {
        None,
        task_id,
    }


def test_bot_id_may_hold_a_slash_and_blanks(admin, make_bot):
    bot = make_bot("a/b c%")
    bot.session_id = "s/1"
    bot.start()
    assert admin.get("/bots/a%2Fb%20c%25").json["bot_id"] == "a/b c%"
    assert admin.get("/bots/a%2Fb%20c%25/events").json["items"]


@pytest.mark.parametrize(
    "path", ["/bots/nobody", "/bots/nobody/events", "/bots/nobody/timeline", "/bots/" + "x" * 2000]
)
def test_unknown_bot_is_404(admin, path):
    reply = admin.get(path)
    assert (reply.status_code, reply.json["code"]) == (404, "not_found")
    assert reply.json["detail"].startswith('there is no bot "')


def test_events_are_newest_first_and_page(admin, ready_bot, clock):
    for n in range(3):
        clock.advance(1)
        ready_bot.call("/event", event="bot_log", message=f"line {n}", request_uuid=f"u{n}")
    items = admin.get("/bots/vm1/events").json["items"]
    assert set(items[0]) == EVENT_KEYS
    assert [event["message"] for event in items[:3]] == ["line 2", "line 1", "line 0"]
    assert items[-1]["event"] == "bot_connected"
    first = admin.get("/bots/vm1/events?limit=1").json
    rest = admin.get(f"/bots/vm1/events?cursor={first['next_cursor']}").json
    assert first["items"] + rest["items"] == items


def test_bot_of_another_version_is_told_from_the_others(admin, make_bot):
    bot = make_bot("vm1", version="f" * 64)
    bot.handshake()
    view = admin.get("/bots/vm1").json
    assert view["version"] != view["expected_version"]
    assert len(view["expected_version"]) == 64


def states(timeline):
    return [(one["state"], one["seconds"]) for one in timeline["intervals"]]


def test_timeline_is_what_the_bot_was_at(admin, make_bot, clock):
    bot = make_bot("vm1")
    clock.advance(100)
    bot.start()
    clock.advance(10)
    task_id = admin.submit("x")["task_id"]
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    clock.advance(30)
    bot.finish(run_id)
    clock.advance(5)
    admin.post("/bots/vm1/quarantine", {"reason": "smoke"})
    bot.poll()
    clock.advance(15)
    found = admin.get("/bots/vm1/timeline").json
    assert states(found) == [
        ("unknown", 86_400.0 - 60),
        ("idle", 10.0),
        ("busy", 30.0),
        ("idle", 5.0),
        ("quarantined", 15.0),
    ]
    assert [one["task_id"] for one in found["intervals"]] == [None, None, task_id, None, None]
    assert found["intervals"][-1]["reason"] == "quarantined by an admin: smoke"
    assert found["intervals"][0]["begin"] == found["from"] == "2026-03-03T06:08:47.089Z"
    assert found["intervals"][-1]["end"] == found["to"] == "2026-03-04T06:08:47.089Z"
    assert (found["bot_id"], found["cut"]) == ("vm1", False)
    assert found["shares"][1] == {"state": "busy", "seconds": 30.0, "share": 0.0003}


def test_timeline_of_a_span_begins_with_what_the_bot_was_at_before(admin, make_bot, clock):
    sick = make_bot("vm1")
    sick.state["quarantined"] = "no disk"
    sick.handshake()
    sick.poll()
    clock.advance(60)
    found = admin.get(
        "/bots/vm1/timeline?from=2026-03-04T06:06:17.089Z&to=2026-03-04T06:06:27.089Z"
    ).json
    assert states(found) == [("quarantined", 10.0)]
    future = admin.get("/bots/vm1/timeline?from=2026-03-04T06:07:00Z&to=2026-03-05T00:00:00Z").json
    assert (future["to"], states(future)) == ("2026-03-04T06:07:07.089Z", [("quarantined", 7.089)])


def test_timeline_says_when_there_were_more_events_than_it_reads(
    admin, ready_bot, clock, monkeypatch
):
    monkeypatch.setattr("botapi.api.bot_history.MAX_TIMELINE_EVENTS", 2)
    for n in range(3):
        clock.advance(10)
        ready_bot.call("/event", event="bot_log", message="x", request_uuid=f"u{n}")
    clock.advance(10)
    found = admin.get("/bots/vm1/timeline").json
    assert (found["cut"], found["from"]) == (True, "2026-03-04T06:06:27.089Z")
    assert states(found) == [("idle", 20.0)]
    before = admin.get(f"/bots/vm1/timeline?to={found['from']}").json
    assert (before["cut"], before["to"]) == (True, found["from"])


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("from=yesterday", '?from: "yesterday" is not a time with its zone'),
        ("from=2026-03-04T07:00:00Z", "?from: 2026-03-04T07:00:00.000Z is not before the end, "),
        ("from=2026-03-04T05:00:00Z&to=2026-03-04T05:00:00Z", "?from: 2026-03-04T05:00:00.000Z "),
        ("limit=1", "?limit: no such parameter"),
    ],
)
def test_timeline_refuses_a_span_that_is_none(admin, ready_bot, query, complaint):
    reply = admin.get(f"/bots/vm1/timeline?{query}")
    assert (reply.status_code, reply.json["detail"][: len(complaint)]) == (400, complaint)


T0 = "2026-03-04T06:06:07.089Z"
"""When the clock of tests begins."""


def at(admin, seconds, more=""):
    """The fleet so long after the clock began."""
    return admin.get(
        f"/bots?at=2026-03-04T06:{6 + seconds // 60:02d}:{7 + seconds % 60:02d}.089Z{more}"
    )


@pytest.fixture
def changed_fleet(admin, make_bot, clock):
    """vm1 was idle, busy and idle; vm2 came after 30 s sick; vm3 was there for 20 s."""
    first = make_bot("vm1", dims={"gpu": ["a"]}).start()
    third = make_bot("vm3").start()
    clock.advance(10)
    admin.submit("x", dimensions={"pool": ["default"], "gpu": ["a"]})
    run_id = first.claim(first.update(nonblocking=False)["lease"])["task_id"]
    clock.advance(10)
    third.call("/event", event="bot_shutdown", message="bye", request_uuid="u1")
    clock.advance(2)
    third.call("/event", event="bot_log", message="late", request_uuid="u2")
    clock.advance(2)
    admin.call("DELETE", "/bots/vm3")
    clock.advance(6)
    second = make_bot("vm2")
    second.state["quarantined"] = "no disk"
    second.handshake()
    second.poll()
    clock.advance(10)
    first.finish(run_id)
    first.dims["gpu"] = ["b"]
    first.poll()
    clock.advance(10)


def status_of(reply):
    assert reply.status_code == 200, reply.text
    return {bot["bot_id"]: bot["status"] for bot in reply.json["items"]}


def test_fleet_is_what_it_was_at_that_time(admin, changed_fleet):
    assert status_of(at(admin, 0)) == {"vm1": "idle", "vm3": "idle"}
    assert status_of(at(admin, 15)) == {"vm1": "busy", "vm3": "idle"}
    assert status_of(at(admin, 23)) == {"vm1": "busy", "vm3": "dead"}
    assert status_of(at(admin, 25)) == {"vm1": "busy"}
    assert status_of(at(admin, 35)) == {"vm1": "busy", "vm2": "quarantined"}
    assert status_of(at(admin, 45)) == {"vm1": "idle", "vm2": "quarantined"}
    then = at(admin, 35).json
    assert (then["counts"], then["next_cursor"]) == (None, None)
    first, second = then["items"]
    assert set(first) == VIEW_KEYS
    assert first["task_id"]
    assert first["dimensions"]["gpu"] == ["a"]
    assert (first["last_seen_at"], first["first_seen_at"], first["note"]) == (None, None, None)
    assert (second["quarantine_reason"], second["version"]) == ("no disk", first["version"])


def test_fleet_of_then_is_filtered_by_what_it_was_then(admin, changed_fleet):
    assert status_of(at(admin, 35, "&q=status:busy")) == {"vm1": "busy"}
    assert status_of(at(admin, 45, "&q=status:busy")) == {}
    assert status_of(at(admin, 45, "&status=quarantined")) == {"vm2": "quarantined"}
    assert status_of(at(admin, 35, "&dimension=gpu:a|c")) == {"vm1": "busy"}
    assert status_of(at(admin, 45, "&dimension=gpu:a")) == {}
    assert status_of(at(admin, 45, "&q=-gpu:b")) == {"vm2": "quarantined"}
    assert status_of(at(admin, 35, "&q=disk OR id:vm1")) == {"vm1": "busy", "vm2": "quarantined"}


def test_fleet_of_then_comes_in_pages_of_a_bounded_work(admin, changed_fleet, monkeypatch):
    assert status_of(at(admin, 45, "&limit=1")) == {"vm1": "idle"}
    monkeypatch.setattr("botapi.api.bot_history.MAX_LOOKED", 2)
    one = at(admin, 15, "&limit=1").json
    assert [bot["bot_id"] for bot in one["items"]] == ["vm1"]
    rest = at(admin, 15, f"&cursor={one['next_cursor']}").json
    assert ([bot["bot_id"] for bot in rest["items"]], rest["next_cursor"]) == (["vm3"], None)
    short = at(admin, 15, "&q=id:vm3").json
    assert short["items"] == []
    again = at(admin, 15, f"&q=id:vm3&cursor={short['next_cursor']}")
    assert status_of(again) == {"vm3": "idle"}
    reply = at(admin, 25, f"&cursor={one['next_cursor']}")
    assert (reply.status_code, reply.json["detail"]) == (
        400,
        "cursor: belongs to another list; start again without a cursor",
    )


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("at=2026-03-04T06:07:07Z", f"?at: is in the future; here it is {T0}"),
        (
            "at=2026-02-01T00:00:00Z",
            "?at: events are kept for 28 days; give a time after 2026-02-04",
        ),
        ("at=yesterday", '?at: "yesterday" is not a time with its zone'),
        (f"at={T0}&count=exact", "?count: is not known of a time that is past; leave it out"),
        (f"at={T0}&q=seen:<1h", '?q: "seen" is not known of a time that is past'),
        (f"at={T0}&q=-(has:note OR id:x)", '?q: "has" is not known of a time that is past'),
        (f"at={T0}&q=version!=current", '?q: "version:current" is not known of a time'),
    ],
)
def test_fleet_of_a_time_that_nobody_knows_is_refused(admin, query, complaint):
    reply = admin.get(f"/bots?{query}")
    assert (reply.status_code, reply.json["detail"][: len(complaint)]) == (400, complaint)
