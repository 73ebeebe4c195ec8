"""What each handler refuses, in which words, and that it changes nothing."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from botapi.auth.bootstrap import new_token, sign_token
from botapi.auth.keys import SIGNING
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.create_task import create_task
from botapi.transactions.enrol_bot import create_bootstrap_token, read_bootstrap_token
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg, make_request
from tests.fakes.sim_bot import JSON
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.transactions.stores import dump

REFUSED = "rpc error: code = InvalidArgument desc = {}\n"


@pytest.fixture
def running(parts, bot):
    """The bot runs a task; its run id."""
    submit(parts)
    return bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]


@contextmanager
def nothing_changes(store):
    before = dump(store)
    yield
    assert dump(store) == before


def refuses(parts, bot, path, text, **body):
    with nothing_changes(parts.store):
        bot.call(path, **body)
    assert (bot.status, bot.text) == (400, REFUSED.format(text))


@pytest.mark.spec("1.3.1.1", "1.3.2.2", "1.4.1.2", "3.1.1.2")
@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (None, "bad bot id: empty value"),
        ([], "bad bot id: empty value"),
        ([""], "bad bot id: empty value"),
        (["a:b"], 'bad bot id: ":" in a bot id'),
        ([" a"], "bad bot id: value has outer spaces"),
        (["x" * 257], "bad bot id: value too long: 257 > 256"),
    ],
)
@pytest.mark.parametrize("path", ["/handshake", "/poll"])
def test_bot_id_that_names_nobody_is_refused(parts, make_bot, path, ids, text):
    dims = {} if ids is None else {"id": ids}
    refuses(parts, make_bot(), path, text, dimensions=dims)


@pytest.mark.spec("1.3.1.4", "1.3.2.4", "13.1.3")
@pytest.mark.parametrize("session_id", ["A", "a b", "x" * 51, "ä"])
def test_handshake_refuses_a_session_id_of_another_form(parts, make_bot, session_id):
    text = f"session_id: not 1 to 50 of a-z0-9-_/: {session_id}"
    refuses(
        parts, make_bot(), "/handshake", text, dimensions={"id": ["vm1"]}, session_id=session_id
    )


@pytest.mark.spec("1.3.1.4")
def test_handshake_makes_up_a_session_id_when_there_is_none(parts, make_bot):
    make_bot().handshake(session_id="")
    assert stored_bot(parts).session_id.startswith("autogen-")


@pytest.mark.spec("1.6.1.6", "13.1.4")
@pytest.mark.parametrize("uuid", ["x" * 51, "a b", "ä", "x" * 5_000])
@pytest.mark.parametrize("path", ["/poll", "/event"])
def test_request_uuid_of_another_form_is_refused(parts, bot, path, uuid):
    text = "request_uuid: not 0 to 50 of a-zA-Z0-9-_/"
    body = {"dimensions": bot.dims, "version": bot.version, "event": "bot_log"}
    refuses(parts, bot, path, text, request_uuid=uuid, **body)


@pytest.mark.spec("1.6.1.2")
@pytest.mark.parametrize("kind", [None, "", "bot_idle", "task_completed", "bot_missing", "x"])
def test_event_of_another_kind_is_refused(parts, bot, kind):
    text = "event: not one of bot_error, bot_log, bot_rebooting, bot_shutdown"
    refuses(parts, bot, "/event", text, event=kind)


@pytest.mark.spec("1.6.1.4")
@pytest.mark.parametrize("state", ["x", 5, [], [1], True])
def test_event_with_a_state_that_is_no_object_is_refused(parts, bot, state):
    kind = type(state).__name__
    text = f"state: bad state dict: a JSON object is expected, not {kind}"
    refuses(parts, bot, "/event", text, event="bot_log", state=state)


GOOD_CLAIM = {"claim_id": "c", "task_id": "76d00eba71beef10", "task_to_run_id": 1}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"claim_id": None}, "claim_id: missing"),
        ({"claim_id": ""}, "claim_id: missing"),
        ({"claim_id": "a b"}, "claim_id: not 1 to 128 of a-zA-Z0-9-_./:"),
        ({"claim_id": "x" * 129}, "claim_id: not 1 to 128 of a-zA-Z0-9-_./:"),
        ({"task_id": ""}, "task_id: missing"),
        ({"task_id": "XYZ"}, "task_id: not a task id: 'XYZ'"),
        ({"task_to_run_id": 0}, "task_to_run_id: missing"),
        ({"task_to_run_id": -15}, "task_to_run_id: not 1 + 16 * slice: -15"),
        ({"task_to_run_id": 2}, "task_to_run_id: not 1 + 16 * slice: 2"),
    ],
)
def test_claim_that_says_too_little_is_refused(parts, bot, change, text):
    refuses(parts, bot, "/claim", text, **(GOOD_CLAIM | change))


def test_claim_of_a_task_nobody_knows_is_skipped(parts, bot):
    with nothing_changes(parts.store):
        assert bot.call("/claim", **GOOD_CLAIM) == {"cmd": "skip", "reason": "no such task"}


def test_claim_of_a_slice_that_is_none_is_skipped(parts, bot):
    request = submit(parts)
    body = GOOD_CLAIM | {"task_id": request.task_id, "task_to_run_id": 33}
    assert bot.call("/claim", **body) == {"cmd": "skip", "reason": "no such task"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cost_usd": -1.0}, "cost_usd: negative: -1.0"),
        ({"duration": -1.0, "exit_code": 0}, "duration: negative: -1.0"),
        ({"duration": 1.0}, "duration and exit_code: both or none, one is missing"),
        ({"exit_code": 0}, "duration and exit_code: both or none, one is missing"),
        ({"bot_overhead": 1.0}, "bot_overhead: needs duration"),
        ({"output": "%%%"}, "output: not base64"),
        (
            {"output": "aGk=", "output_chunk_start": -1},
            "output_chunk_start: not 0 to 999999999999999: -1",
        ),
        (
            {"output": "aGk=", "output_chunk_start": 2**70},
            f"output_chunk_start: not 0 to 999999999999999: {2**70}",
        ),
        ({"exit_code": 2**63, "duration": 1.0}, f"exit_code: over 64 bits: {2**63}"),
    ],
)
def test_task_update_that_makes_no_sense_is_refused(parts, bot, running, change, text):
    refuses(parts, bot, "/task_update", text, task_id=running, **change)


@pytest.mark.parametrize("path", ["/task_update", "/task_error"])
def test_task_call_without_a_task_id_is_refused(parts, bot, running, path):
    for task_id in (None, ""):
        refuses(parts, bot, path, "task_id: missing", task_id=task_id)


def test_task_update_about_another_task_stops_it_and_stores_nothing(parts, bot, running):
    for other in (running[:-1] + "0", "76d00eba71beef11", "not hex"):
        with nothing_changes(parts.store):
            reply = bot.task_update(other, b"x")
            assert reply == {
                "ok": False,
                "must_stop": True,
                "stop_reason": f"this bot does not run {other}",
            }
            assert bot.finish(other) == {"ok": False, "must_stop": False}
            assert bot.call("/task_error", task_id=other) == {}
            assert bot.text == "{}\n"


@pytest.mark.parametrize("digest", [None, "", "abc", "/5", "abc/", "abc/x", "a b/5"])
def test_task_error_with_a_digest_that_is_none_is_refused(parts, bot, running, digest):
    missing = {"missing_cas": [{"digest": "ab/1", "instance": "i"}, {"digest": digest}]}
    text = "client_error.missing_cas[1].digest: not <hash>/<size>"
    refuses(parts, bot, "/task_error", text, task_id=running, client_error=missing)


def test_task_that_vanished_is_answered_404_in_json(parts, bot, running):
    key = codec.task_key(running)
    parts.store.transact(lambda txn: txn.delete(codec.TASK, key), label="test")
    for path, body in [
        ("/task_update", {}),
        ("/task_update", {"output": "aGk="}),
        ("/task_update", {"exit_code": 0, "duration": 1}),
        ("/task_error", {}),
    ]:
        reply = bot.call(path, task_id=running, **body)
        assert bot.status == 404
        assert bot.headers["Content-Type"] == "application/json; charset=utf-8"
        assert reply["error"].startswith("no ")


@pytest.mark.spec("1.11.2.1")
def test_lease_call_without_a_lease_session_is_refused(parts, make_bot):
    bot = make_bot()
    bot.handshake()
    text = "no lease session: call rbe/session/create first"
    refuses(parts, bot, "/rbe/session/update", text, status="OK")


LEASE = {"id": "local-76d00eba71beef10-0-0", "state": "ACTIVE"}
NO_STATE = "lease.state: not ACTIVE or COMPLETED"
STATUSES = "BOT_TERMINATING, HOST_REBOOTING, INITIALIZING, MAINTENANCE, OK, UNHEALTHY"


@pytest.mark.spec("1.11.2.2", "1.11.2.5", "1.11.2.6")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"status": None}, f"status: not one of {STATUSES}"),
        ({"status": ""}, f"status: not one of {STATUSES}"),
        ({"status": "ok"}, f"status: not one of {STATUSES}"),
        ({"status": "OK", "lease": {"state": "ACTIVE"}}, "lease.id: missing"),
        ({"status": "OK", "lease": LEASE | {"id": ""}}, "lease.id: missing"),
        ({"status": "OK", "lease": LEASE | {"state": "PENDING"}}, NO_STATE),
        ({"status": "OK", "lease": LEASE | {"state": "CANCELLED"}}, NO_STATE),
        ({"status": "OK", "lease": {"id": "x"}}, NO_STATE),
    ],
)
def test_lease_call_that_makes_no_sense_is_refused(parts, bot, body, text):
    refuses(parts, bot, "/rbe/session/update", text, **body)


@pytest.mark.parametrize("lease_id", ["x", "a-b-c-d", "local-76d00eba71beef10-0-0", "----"])
def test_lease_nobody_gave_is_lost(parts, bot, lease_id):
    with nothing_changes(parts.store):
        for state in ("ACTIVE", "COMPLETED"):
            reply = bot.update(lease={"id": lease_id, "state": state})
            assert (reply["status"], "lease" in reply) == ("OK", False)


@pytest.mark.spec("1.11.2.2", "1.11.4.3")
@pytest.mark.parametrize("status", ["UNHEALTHY", "INITIALIZING", "MAINTENANCE"])
def test_lease_is_never_given_to_a_bot_that_is_not_ok(parts, bot, status):
    submit(parts)
    reply = bot.update(status, nonblocking=False)
    assert (reply["status"], "lease" in reply) == ("OK", False)


QUARANTINES = {
    "dimension": ({"dimensions": {"id": ["vm1"], "os": [""]}}, 'key "os": bad value "": empty'),
    "id twice": ({"dimensions": {"id": ["vm1", "vm2"]}}, "exactly one value expected"),
    "other id": ({"dimensions": {"id": ["vm2"]}}, 'the session belongs to "vm1"'),
    "many": (
        {"dimensions": {"id": ["vm1"], "x": [str(i) for i in range(200)]}},
        "more than 180 dimension values",
    ),
    "state": ({"state": [1]}, "bad state dict: a JSON object is expected, not list"),
    "big number": ({"state": {"a": 2**70}}, "bad state dict: a whole number has more than 64 bits"),
    "big state": ({"state": {"a": "x" * 900_000}}, "bad state dict: "),
    "no version": ({"version": None}, "the bot does not say which version it runs"),
    "long version": ({"version": "x" * 5_000}, "the bot does not say which version it runs"),
    "itself": ({"state": {"quarantined": "no disk"}}, "no disk"),
}


@pytest.mark.spec(
    "3.1.1.6",
    "3.1.1.8",
    "3.1.1.9",
    "1.4.1.4",
    "6.2.1.3",
    "6.2.1.4",
    "6.2.1.5",
    "6.2.1.6",
    "3.2.1.6",
)
@pytest.mark.parametrize("name", QUARANTINES)
def test_poll_quarantines_and_says_why(parts, bot, name):
    body, reason = QUARANTINES[name]
    dims = stored_bot(parts).dimensions
    reply = bot.poll(**body)
    assert (reply["cmd"], reply["duration"]) == ("sleep", 60.0), bot.text
    found = stored_bot(parts)
    assert reason in found.quarantined
    assert found.dimensions == dims
    docs = parts.store.scan(codec.EVENT, "", "~", limit=1)
    event = codec.read_event(docs[0])
    assert (event.kind, event.quarantined) == ("request_sleep", found.quarantined)
    assert reason in event.message
    assert bot.poll()["cmd"] == "rbe"
    assert stored_bot(parts).quarantined == ""
    assert parts.last_seen.flush(everything=True)


def test_poll_names_every_bad_dimension_but_not_without_end(parts, bot):
    dims = {"id": ["vm1"], **{f"{n} {'x' * 60}": ["y"] for n in range(170)}}
    assert bot.poll(dimensions=dims)["cmd"] == "sleep"
    assert len(stored_bot(parts).quarantined) < 5_000


@pytest.mark.spec("1.3.2.5", "1.3.2.8")
def test_handshake_quarantines_and_still_opens_a_session(parts, make_bot):
    bot = make_bot()
    bot.handshake(dimensions={"id": ["vm1"], "os": [""]}, state="x")
    assert bot.status == 200
    why = stored_bot(parts).quarantined
    assert why.splitlines() == [
        'bad dimensions: key "os": bad value "": empty value',
        "bad state dict: a JSON object is expected, not str",
    ]


def test_maintenance_lets_a_bot_sleep_for_a_shorter_time(parts, bot):
    reply = bot.poll(state={"maintenance": "disk"})
    assert (reply["cmd"], reply["duration"]) == ("sleep", 10.0)
    assert stored_bot(parts).maintenance == "disk"


@pytest.mark.spec("2.5.1.2", "3.2.1.3", "6.2.1.7")
def test_poll_without_a_session_sleeps_long_and_is_quarantined(parts, bot):
    bot.session = None
    reply = bot.poll()
    assert (reply["cmd"], reply["duration"], "session" in reply) == ("sleep", 300.0, False)
    assert stored_bot(parts).quarantined == "no session token in the poll"


@pytest.mark.spec("2.5.1.2", "3.1.1.1", "3.2.1.2")
@pytest.mark.parametrize("token", ["%%%", "aGVsbG8="])
def test_poll_with_a_broken_session_restarts_the_bot(bot, token):
    bot.session = token
    reply = bot.poll()
    assert (reply["cmd"], reply["message"]) == ("bot_restart", "session expired")
    assert "session" not in reply


@pytest.mark.spec("2.5.1.2", "3.2.1.2", "3.4.1.7")
def test_poll_with_an_expired_session_restarts_the_bot(clock, bot):
    clock.advance(3601)
    assert bot.poll()["message"] == "session expired"


ENROLLED = """\
trusted_dimensions: "pool"
bot_group {
  bot_id_prefix: "vm"
  auth { require_enrolled_secret: true }
  dimensions: "pool:default"
}
bot_group {
  auth { require_enrolled_secret: true }
  dimensions: "pool:other"
}
"""


@pytest.fixture
def enrolled(parts):
    head = parts.config.latest()
    push_config(
        parts.store, bots_cfg(ENROLLED), parent=head.digest, author="t", now_ms=parts.clock.now_ms()
    )


def bootstrap_token(parts, *, uses=1, ttl_s=3600, pool=""):
    """A stored token: its text and its record's id."""
    made = new_token(
        uses=uses,
        ttl_s=ttl_s,
        pool=pool,
        creator="alice",
        rng=parts.rng,
        now_ms=parts.clock.now_ms(),
    )
    create_bootstrap_token(parts.store, made)
    return sign_token(made, parts.bots.keys.keys(SIGNING)), made.token_id


def enroll(client, **body):
    return client.post(
        "/skep/v1/enroll", data=json.dumps(body).encode(), headers={"Content-Type": JSON}
    )


def test_bot_without_its_secret_is_refused(parts, client, make_bot, enrolled):
    bot = make_bot()
    with nothing_changes(parts.store):
        bot.handshake()
        assert bot.status == 401
        assert "X-Skep-Bot-Secret is missing" in bot.text
        bot.poll()
        assert bot.status == 401
        bot.secret = "x" * 43
        bot.handshake()
        assert bot.status == 401
        assert "this host is not enrolled" in bot.text


def test_enrolled_bot_is_let_in_with_its_secret_only(parts, client, make_bot, enrolled):
    token, _ = bootstrap_token(parts)
    bot = make_bot()
    bot.secret = enroll(client, bot_id="vm1", token=token).json["secret"]
    bot.start()
    assert stored_bot(parts).authenticated_as == "bot:vm1"
    for secret in ("", "x" * 43):
        bot.secret = secret
        with nothing_changes(parts.store):
            bot.call("/event", event="bot_log")
        assert bot.status == 401


def test_last_use_of_a_token_may_be_asked_for_again(parts, client, enrolled):
    """The reply was lost; the bot made its secret itself so that it can ask again."""
    token, token_id = bootstrap_token(parts, uses=1)
    secret = "s" * 43
    for _ in range(3):
        response = enroll(client, bot_id="vm1", token=token, secret=secret)
        assert (response.status_code, response.json) == (200, {"secret": secret})
    assert read_bootstrap_token(parts.store, token_id).uses_left == 0


def test_enrolment_is_refused_in_one_line(parts, client, enrolled):
    used, _ = bootstrap_token(parts)
    assert enroll(client, bot_id="vm1", token=used).status_code == 200
    other_pool, _ = bootstrap_token(parts, pool="other")
    old, _ = bootstrap_token(parts, ttl_s=1)
    parts.clock.advance(2)
    rows = [
        ({"bot_id": "vm2", "token": used}, 403, "used up"),
        ({"bot_id": "vm2", "token": old}, 403, "expired"),
        ({"bot_id": "vm2", "token": "x" + used}, 403, "not valid"),
        ({"bot_id": "vm2", "token": other_pool}, 403, "is for the pool other"),
        ({"bot_id": "vm2"}, 400, "token: missing"),
        ({"token": used}, 400, "bad bot id"),
        ({"bot_id": "a:b", "token": used}, 400, "bad bot id"),
        ({"bot_id": "vm1", "token": used, "secret": "short"}, 400, "secret: not 43 to 128"),
    ]
    for body, status, text in rows:
        with nothing_changes(parts.store):
            response = enroll(client, **body)
        assert (response.status_code, text in response.text) == (status, True), response.text
        assert response.text.count("\n") == 1


def test_deeply_nested_state_is_kept_or_refused_and_never_an_error(parts, bot):
    for depth in (10, 100, 300, 500, 700, 900, 1_000, 1_100, 2_000):
        body = json.dumps(
            {"session": bot.session, "dimensions": bot.dims, "version": bot.version}
        ).encode()
        nested = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
        whole = body[:-1] + b', "state": ' + nested + b"}"
        status, _, raw = bot.post("/swarming/api/v1/bot/poll", whole, {"Content-Type": JSON})
        assert status in {200, 400}, (depth, raw)
        parts.last_seen.flush(everything=True)


@pytest.mark.spec("2.8.p1", "0.4.1.11")
def test_superseded_session_is_told_so_in_answers_that_bots_know(parts, make_bot):
    old = make_bot().start()
    submit(parts)
    lease = old.update(nonblocking=False)["lease"]
    new = make_bot()
    new.session_id = "other-session/2"
    new.handshake()
    task = stored_bot(parts)
    assert old.claim(lease) == {"cmd": "skip", "reason": "another process took this bot id over"}
    reply = old.update()
    assert (reply["status"], "lease" in reply) == ("BOT_TERMINATING", False)
    reply = old.task_update("76d00eba71beef11", b"x")
    assert (reply["ok"], reply["must_stop"]) == (False, True)
    assert old.call("/task_error", task_id="76d00eba71beef11") == {}
    assert old.call("/event", event="bot_shutdown") == {}
    assert stored_bot(parts) == task
    reply = old.poll()
    assert (reply["cmd"], reply["message"]) == (
        "bot_restart",
        "another process took this bot id over",
    )
    assert "session" not in reply
    assert stored_bot(parts).session_id == "other-session/2"
    assert new.poll()["cmd"] == "rbe"


@pytest.mark.spec("2.8.p1")
def test_three_swaps_in_ten_minutes_quarantine_the_id_and_name_both_ends(parts, clock, make_bot):
    bots = [make_bot(), make_bot()]
    for number in range(4):
        bot = bots[number % 2]
        bot.session_id = f"s{number}"
        bot.handshake()
        other = bots[(number + 1) % 2]
        if other.session:
            for _ in range(3):
                other.poll()
    assert len(stored_bot(parts).swaps) == 3
    reply = bots[1].poll()
    assert reply["cmd"] == "sleep"
    why = stored_bot(parts).quarantined
    assert why == "two processes use this bot id: 127.0.0.1"
    clock.advance(601)
    assert bots[1].poll()["cmd"] == "rbe"


def test_one_superseded_session_is_one_swap_however_often_it_polls(parts, make_bot):
    old, new = make_bot().start(), make_bot()
    new.session_id = "new"
    new.handshake()
    for _ in range(5):
        old.poll()
    assert len(stored_bot(parts).swaps) == 1
    assert new.poll()["cmd"] == "rbe"


@pytest.mark.spec("1.1.3.1", "1.3.2.10")
def test_handshake_repeated_is_the_same_session_and_no_second_event(parts, make_bot):
    bot = make_bot()
    bot.handshake()
    first = parts.bots.session_of(bot.session)
    before = dump(parts.store)
    bot.handshake()
    assert dump(parts.store) == before
    again = parts.bots.session_of(bot.session)
    assert replace(again, debug_info=None, bot_config=None) == replace(
        first, debug_info=None, bot_config=None
    )
    assert events_of(parts) == ["bot_connected"]


def test_handshake_repeated_late_leaves_the_run_of_its_session_alone(parts, bot, running):
    request_id = running[:-1] + "0"
    with nothing_changes(parts.store):
        bot.handshake()
    assert bot.status == 200
    (doc,) = parts.store.get(codec.TASK, codec.task_key(request_id))
    assert codec.read_task(doc).state == "RUNNING"


@pytest.mark.spec("3.6.p1")
def test_handshake_of_a_new_process_abandons_the_run_of_the_old_one(parts, bot):
    request = submit(parts)
    bot.claim(bot.update(nonblocking=False)["lease"])
    bot.session_id = "second/2"
    bot.handshake()
    assert stored_task(parts, request).state == "BOT_DIED"
    assert stored_bot(parts).task_id == ""


def test_new_bot_is_stored_as_the_transcript_says(parts, make_bot):
    bot = make_bot()
    bot.handshake()
    found = stored_bot(parts)
    assert found.composite == (512, 128, 8, 1)
    assert found.dimensions == ("id:vm1", "pool:default")
    bot.poll()
    assert stored_bot(parts).composite == (512, 128, 8, 1)
    bot.state["rbe_idle"] = True
    bot.poll()
    assert stored_bot(parts).composite == (512, 128, 8, 2)
    assert events_of(parts) == ["bot_connected", "bot_polling", "bot_idle"]


@pytest.mark.spec("1.1.3.4", "1.6.1.6")
def test_event_with_a_uuid_is_kept_once_however_late_it_comes_again(parts, bot):
    for kind in ("bot_log", "bot_error", "bot_log"):
        bot.call("/event", event=kind, message="m", request_uuid=f"u-{kind}")
    assert events_of(parts)[2:] == ["bot_log", "bot_error"]


@pytest.mark.spec("1.1.1.8", "1.6.1.2", "3.6.p1")
@pytest.mark.parametrize(
    ("kind", "abandons", "dead"),
    [
        ("bot_error", False, False),
        ("bot_log", False, False),
        ("bot_rebooting", True, False),
        ("bot_shutdown", True, True),
    ],
)
def test_event_of_a_bot_has_its_effect_on_the_run(parts, bot, kind, abandons, dead):
    request = submit(parts)
    bot.claim(bot.update(nonblocking=False)["lease"])
    assert bot.call("/event", event=kind, message="m") == {}
    assert stored_task(parts, request).state == ("BOT_DIED" if abandons else "RUNNING")
    assert stored_bot(parts).dead is dead


def test_termination_task_tells_the_bot_to_exit(parts, bot):
    from tests.factories import make_slice

    slices = [make_slice(command=(), dimensions={"id": ("vm1",)})]
    request = make_request(slices=slices, priority=0, now_ms=parts.clock.now_ms())
    create_task(parts.store, request, request_uuid="")
    lease = bot.update(nonblocking=False)["lease"]
    run = request.task_id[:-1] + "1"
    assert bot.claim(lease) == {"cmd": "terminate", "task_id": run}
    assert bot.claim(lease) == {"cmd": "terminate", "task_id": run}
    assert bot.task_update(run, duration=0, exit_code=0)["ok"]
    bot.call("/event", event="bot_shutdown")
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    assert codec.read_bot(doc).termination_task_id == run
    kinds = ["bot_terminate", "task_completed", "bot_shutdown"]
    assert events_of(parts)[-3:] == kinds
