"""What each call leaves behind: being heard of, a fresh session, an event (bot-api 1.1, 2.6)."""

import json

import pytest

from botapi.auth.botsession import SESSION_LIFE_MS
from botapi.transactions.create_task import create_task
from tests.factories import make_request, make_slice
from tests.handlers.test_life_of_a_bot import events_of, output_of, stored_task, submit
from tests.transactions.stores import dump


class Trace:
    """What calls leave, from the moment it is made, a minute and a half later."""

    def __init__(self, parts, clock, bot):
        clock.advance(90)
        self._parts, self._clock, self._bot = parts, clock, bot
        self._events = len(events_of(parts))
        self._token = bot.session

    @property
    def is_heard_of(self):
        return self._parts.last_seen.get("vm1")["vm1"].seen_ms == self._clock.now_ms()

    @property
    def has_fresh_session(self):
        if self._bot.session == self._token:
            return False
        session = self._parts.bots.session_of(self._bot.session)
        assert session.expiry_ms == self._clock.now_ms() + SESSION_LIFE_MS
        return True

    @property
    def events(self):
        return events_of(self._parts)[self._events :]

    @property
    def left(self):
        return self.is_heard_of, self.has_fresh_session, self.events


def running(parts, bot):
    request = submit(parts)
    return request, bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]


@pytest.mark.spec("1.1.2.1")
def test_handshake_leaves_a_session_and_its_event(parts, clock, bot):
    trace = Trace(parts, clock, bot)
    bot.session_id = "second"
    bot.handshake()
    assert trace.left == (True, True, ["bot_connected"])


@pytest.mark.parametrize(
    ("body", "is_fresh", "event"),
    [
        pytest.param({"version": "0" * 64}, False, "request_update", id="update"),
        pytest.param({"session": "%%%"}, False, "request_restart", id="restart"),
        pytest.param({"session": None}, False, "request_sleep", id="no session"),
        pytest.param({"state": {"quarantined": "q"}}, True, "request_sleep", id="sleep"),
        pytest.param({"state": {"rbe_idle": True}}, True, "bot_idle", id="idle"),
    ],
)
@pytest.mark.spec("1.1.2.2")
def test_poll_leaves_what_its_command_says(parts, clock, make_bot, body, is_fresh, event):
    bot = make_bot().start()
    trace = Trace(parts, clock, bot)
    bot.poll(**{**body, "state": {**bot.state, **body.get("state", {})}})
    assert trace.left == (True, is_fresh, [event])


@pytest.mark.spec("1.1.2.3", "2.6.1.3", "1.1.1.7")
def test_claim_leaves_a_session_only_with_run(parts, clock, bot):
    submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    trace = Trace(parts, clock, bot)
    assert bot.claim(lease)["cmd"] == "run"
    assert trace.left == (True, True, ["request_task"])


@pytest.mark.spec("1.1.2.3", "2.6.1.3")
def test_claim_that_is_skipped_leaves_no_session_and_no_event(parts, clock, bot):
    trace = Trace(parts, clock, bot)
    reply = bot.call("/claim", claim_id="c", task_id="76d00eba71beef10", task_to_run_id=1)
    assert reply["cmd"] == "skip"
    assert (trace.has_fresh_session, trace.events) == (False, [])


@pytest.mark.spec("1.1.2.3", "2.6.1.3")
def test_claim_of_a_termination_leaves_its_event_and_no_session(parts, clock, bot):
    slices = [make_slice(command=(), dimensions={"id": ("vm1",)})]
    request = make_request(slices=slices, priority=0, now_ms=clock.now_ms())
    create_task(parts.store, request, request_uuid="")
    lease = bot.update(nonblocking=False)["lease"]
    trace = Trace(parts, clock, bot)
    assert bot.claim(lease)["cmd"] == "terminate"
    assert trace.left == (True, False, ["bot_terminate"])


@pytest.mark.spec("1.1.2.4", "2.6.1.4")
def test_event_leaves_itself_and_no_session(parts, clock, bot):
    trace = Trace(parts, clock, bot)
    bot.call("/event", event="bot_log")
    assert trace.left == (True, False, ["bot_log"])


@pytest.mark.spec("1.1.2.5", "2.6.1.4", "1.1.1.9", "1.1.1.10")
@pytest.mark.parametrize("output", [b"", b"x"])
def test_update_of_a_task_leaves_a_session_and_counts_after_a_while(parts, clock, bot, output):
    _, run_id = running(parts, bot)
    trace = Trace(parts, clock, bot)
    assert bot.task_update(run_id, output)["ok"]
    assert trace.left == (True, True, [])


@pytest.mark.spec("1.1.2.6", "2.6.1.4")
def test_end_of_a_task_leaves_a_session_and_its_event(parts, clock, bot):
    _, run_id = running(parts, bot)
    trace = Trace(parts, clock, bot)
    assert bot.finish(run_id)["ok"]
    assert trace.left == (True, True, ["task_completed"])


@pytest.mark.spec("2.6.1.4")
def test_update_that_is_not_accepted_leaves_nothing(parts, clock, bot):
    _, run_id = running(parts, bot)
    trace = Trace(parts, clock, bot)
    bot.task_update("76d00eba71beef11", b"x")
    assert (trace.has_fresh_session, trace.events) == (False, [])
    assert run_id


@pytest.mark.spec("1.1.2.7", "1.1.1.11", "1.1.1.12", "2.6.1.4")
@pytest.mark.parametrize("in_path", [True, False])
def test_task_error_leaves_its_event_and_no_session(parts, clock, bot, in_path):
    _, run_id = running(parts, bot)
    trace = Trace(parts, clock, bot)
    path = f"/task_error/{run_id}" if in_path else "/task_error"
    assert bot.call(path, task_id=run_id, message="x") == {}
    assert trace.left == (True, False, ["task_error"])


@pytest.mark.spec("1.1.2.8", "1.1.1.13", "1.1.1.14")
@pytest.mark.parametrize(
    ("path", "more"), [("/oauth_token", {"scopes": ["s"]}), ("/id_token", {"audience": "a"})]
)
def test_token_calls_leave_nothing(parts, clock, bot, path, more):
    trace = Trace(parts, clock, bot)
    reply = bot.call(path, account_id="system", **more)
    assert (bot.status, reply) == (200, {"service_account": "none"})
    assert trace.left == (False, False, [])


@pytest.mark.spec("1.1.2.9", "1.1.1.16", "2.6.1.5")
def test_lease_calls_leave_a_session_only(parts, clock, bot):
    for call in (bot.open_lease_session, bot.update):
        trace = Trace(parts, clock, bot)
        call()
        assert trace.left == (False, True, [])


@pytest.mark.spec("1.1.2.10", "1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4")
def test_ping_and_archive_leave_nothing(parts, clock, client, bot):
    trace = Trace(parts, clock, bot)
    before = dump(parts.store)
    headers = {"X-Luci-Swarming-Bot-ID": "vm1"}
    bots = "/swarming/api/v1/bot"
    paths = {
        f"{bots}/server_ping": 200,
        "/bot_code": 302,
        f"{bots}/bot_code": 302,
        f"{bots}/bot_code/{bot.version}": 200,
    }
    for path, status in paths.items():
        assert client.get(path, headers=headers).status_code == status
    assert trace.left == (False, False, [])
    assert dump(parts.store) == before
    assert client.get("/bootstrap").status_code == 403
    assert trace.left == (False, False, [])


@pytest.mark.spec("1.1.3.1")
def test_handshake_repeated_after_something_else_is_an_event_again(parts, bot):
    bot.handshake()
    assert events_of(parts) == ["bot_connected", "bot_polling", "bot_connected"]
    bot.handshake()
    assert events_of(parts).count("bot_connected") == 2


@pytest.mark.spec("1.1.3.5")
def test_update_repeated_rewrites_the_same_output_and_the_end_stays(parts, bot):
    request, run_id = running(parts, bot)
    for _ in range(2):
        assert bot.task_update(run_id, b"abc", 0)["ok"]
    assert bot.finish(run_id, b"d", 3)["ok"]
    for _ in range(2):
        assert bot.finish(run_id, b"d", 3, exit_code=9)["ok"] is False
    assert output_of(parts, request) == b"abcd"
    assert stored_task(parts, request).exit_code == 0


@pytest.mark.spec("1.1.3.6")
def test_task_error_about_a_task_that_is_not_current_records_nothing(parts, bot):
    _, run_id = running(parts, bot)
    bot.call("/task_error", task_id=run_id, message="x")
    before = dump(parts.store)
    assert bot.call("/task_error", task_id=run_id, message="x") == {}
    assert (bot.status, dump(parts.store)) == (200, before)


def everything_in(value):
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from everything_in(item)


@pytest.mark.spec("0.3.1.9", "0.3.1.10", "1.11.3.3")
def test_no_reply_holds_a_null_or_a_time(parts, bot, monkeypatch):
    """Every call of a bot's life: what is not there is left out, and tokens alone have times."""
    seen = []
    call = bot.call

    def record(path, **body):
        reply = call(path, **body)
        seen.append((path, json.loads(bot.text)))
        return reply

    monkeypatch.setattr(bot, "call", record)
    bot.handshake()
    bot.poll()
    bot.open_lease_session()
    bot.update()
    bot.poll(state={"quarantined": "q"})
    bot.poll()
    bot.poll(version="0" * 64)
    submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    active = {"id": lease["id"], "state": "ACTIVE"}
    run_id = bot.claim(lease)["task_id"]
    assert "lease" in bot.update(lease=active)
    bot.claim({**lease, "id": "another"})
    bot.task_update(run_id, b"x")
    bot.finish(run_id, b"y", 1)
    bot.task_update(run_id, b"z", 2)
    assert "lease" not in bot.update(lease=active)
    bot.call("/event", event="bot_log")
    bot.call("/task_error", task_id=run_id)
    bot.update("BOT_TERMINATING")
    bot.update()
    assert len(seen) == 19
    for path, reply in seen:
        for value in everything_in(reply):
            assert value is not None, path
            assert isinstance(value, bool | str | dict | list) or value < 10**9, path
