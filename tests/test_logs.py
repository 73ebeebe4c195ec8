"""What a log line says, whose it is, and what it never holds."""

import dataclasses
import json
import logging
import threading

import gevent
import pytest

from botapi import app as composition
from botapi import logs
from botapi.concurrency import Threads
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg
from tests.fakes.person import Person, new_key
from tests.fakes.sim_bot import SimBot, flask_post


@pytest.fixture
def written(capsys):
    """Begin to log in a form; then the lines."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def begin(form, at="debug"):
        logs.configure(form, at)

        def lines():
            return capsys.readouterr().err.splitlines()

        return lines

    yield begin
    root.handlers[:] = before
    root.setLevel(level)


def entries(lines):
    return [json.loads(line) for line in lines]


def record(text, *args, **more):
    return logging.makeLogRecord({"name": "x", "msg": text, "args": args, "levelno": 20} | more)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("task %s: tried again as %s", "task_tried_again_as"),
        ('bot "%s": a call of its older session %s', "bot_a_call_of_its_older_session"),
        ("%d of %d bytes", "of_bytes"),
        ("%s", "log"),
    ],
)
def test_line_without_a_name_is_named_by_what_does_not_change(message, name):
    assert (
        logs.entry_of(record(message, *("a1", "b2")[: message.count("%s")] or (1, 2)))["event"]
        == name
    )


def test_line_names_its_event_and_its_facts():
    extra = logs.event("clock_behind_store", behind_s=7)
    entry = logs.entry_of(record("behind", **extra))
    assert (entry["event"], entry["behind_s"]) == ("clock_behind_store", 7)


def test_error_has_type_message_and_stack(written):
    lines = written("json")
    try:
        {}["lost it"]
    except KeyError:
        logging.getLogger("x").exception("request %s failed", "r1")
    (entry,) = entries(lines())
    assert entry["error.type"] == "KeyError"
    assert entry["error.message"] == "'lost it'"
    assert "test_logs.py" in entry["error.stack"]
    assert entry["event"] == "request_failed"


def test_logfmt_has_pairs_that_a_blank_or_a_quote_does_not_break(written):
    lines = written("logfmt")
    logging.getLogger("x").info('a "quoted" b=c\nFORGED', extra=logs.event("said", n=3, of="a b"))
    (line,) = lines()
    assert " event=said " in line
    assert ' message="a \\"quoted\\" b=c\\nFORGED" ' in line
    assert line.endswith(' n=3 of="a b"')


def test_ids_belong_to_the_greenlet_that_noted_them():
    seen = {}

    def request(name):
        logs.begin(request_id=name)
        gevent.sleep(0)
        logs.note(bot_id=f"bot-{name}")
        gevent.sleep(0)
        seen[name] = dict(logs.noted())

    gevent.joinall([gevent.spawn(request, name) for name in ("a", "b", "c")])
    assert seen == {name: {"request_id": name, "bot_id": f"bot-{name}"} for name in ("a", "b", "c")}


def test_ids_belong_to_the_thread_that_noted_them():
    logs.begin(request_id="mine")
    other = threading.Thread(target=lambda: logs.begin(request_id="other"))
    other.start()
    other.join()
    assert logs.noted() == {"request_id": "mine"}
    logs.begin()
    assert logs.noted() == {}


def access(lines):
    return [entry for entry in entries(lines) if entry["event"] == "http_request"]


def test_request_is_logged_by_its_route_and_never_by_its_path(client, written, store, clock, rng):
    lines = written("json", "info")
    person = Person(client, new_key(store, clock, rng))
    task_id = person.submit("x", wait_for_capacity=True)["task_id"]
    lines()
    person.get(f"/tasks/{task_id}?wait=0")
    client.get("/nowhere/PathCanary?tok=QueryCanary")
    first, second = access(lines())
    assert first.items() >= {
        "method": "GET", "route": "/api/v1/tasks/<task_id>", "code": 200,
        "task_id": task_id, "actor": "alice", "address": "127.0.0.1",
    }.items()  # fmt: skip
    assert len(first["request_id"]) == 24
    assert first["duration_ms"] >= 0
    assert (second["route"], second["code"]) == ("none", 404)
    assert "Canary" not in json.dumps(second)
    assert "actor" not in second, "nothing is left of the request before"


@pytest.mark.parametrize(
    ("wanted", "routes"),
    [
        ("off", []),
        ("quiet", ["handshake", "rbe/session/create", "poll"]),
        ("all", ["handshake", "poll", "rbe/session/create", "poll"]),
    ],
)
def test_setting_says_which_requests_are_logged(
    settings, store, clock, rng, written, wanted, routes
):
    chosen = dataclasses.replace(settings, access_log=wanted)
    parts = composition.build(chosen, store, Threads(), clock, rng)
    push_config(store, bots_cfg(), parent="", author="test", now_ms=clock.now_ms())
    client = composition.create_app(parts).test_client()
    lines = written("json", "info")
    bot = SimBot(flask_post(client)).start()
    client.get("/healthz")
    bot.call("/poll", request_uuid="not a uuid!")
    seen = access(lines())
    shown = [entry["route"].removeprefix("/swarming/api/v1/bot/") for entry in seen]
    assert [route for route in shown if route != "/healthz"] == routes
    assert ("/healthz" in shown) == (wanted == "all")
    assert {entry.get("bot_id") for entry in seen if entry["code"] == 200} <= {"vm1", None}
    parts.release()


@pytest.mark.control("requests.log-injection")
@pytest.mark.parametrize("form", list(logs.FORMS))
def test_log_of_a_whole_life_holds_no_secret(client, make_bot, store, clock, rng, written, form):
    lines = written(form)
    key = new_key(store, clock, rng)
    person = Person(client, key)
    token = person.post("/bootstrap-tokens", {"uses": 1}).json["token"]
    client.get(f"/bootstrap?tok={token}")
    client.post("/skep/v1/enroll", json={"bot_id": "vm1", "token": token, "secret": "SecretCanary"})
    bot = make_bot("vm1")
    bot.state["note"] = "StateCanary"
    bot.start()
    person.submit("run", "CommandCanary", env={"A": "EnvCanary"})
    claimed = bot.claim(bot.update(nonblocking=False)["lease"])
    assert claimed["cmd"] == "run"
    bot.finish(claimed["task_id"], b"OutputCanary")
    bot.call("/event", event="bot_error", message="MessageCanary")
    bot.session = "SessionCanary"
    bot.poll()
    client.get("/api/v1/whoami", headers={"Authorization": "Bearer KeyCanary"})
    client.get("/tasks?q=QueryCanary", headers={"Cookie": "skep_session=CookieCanary"})
    client.get("/metrics", headers={"X-Forwarded-For": "1.2.3.4", "Authorization": "Bearer Canary"})
    text = "\n".join(lines())
    assert len(text) > 500
    sessions = [part for part in (claimed["session"],) if part]
    for hidden in ("Canary", key, key.split("_")[2], token, *sessions):
        assert hidden not in text
