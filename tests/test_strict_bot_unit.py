"""The strict bot is strict: a scripted server breaks one rule at a time, and is caught."""

import base64
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.strict_bot import archive
from tests.strict_bot.life import Options, Signals, live
from tests.strict_bot.task import Pace
from tests.strict_bot.wire import (
    FatalMint,
    NoAnswer,
    RealClock,
    Transcript,
    Violation,
    Wire,
    back_off_s,
    encode,
)

API = "/swarming/api/v1/bot/"
JSON = "application/json; charset=utf-8"
LEASE = "local-76d00eba71beef10-0-0"
TASK, RUN = "76d00eba71beef10", "76d00eba71beef11"
RBE = {"instance": "i", "hybrid_mode": False, "sleep": 0, "poll_token": ""}
MANIFEST = {
    "task_id": RUN,
    "bot_id": "vm1",
    "bot_dimensions": {"id": ["vm1"], "pool": ["ci"]},
    "dimensions": {"pool": ["ci"]},
    "hard_timeout": 60,
    "io_timeout": 0,
    "grace_period": 1,
    "command": ["sh", "-c", "printf hello; exit 3"],
}


class Clock:
    """Stands still but for what is slept; every chance is its low end."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def uniform(self, low, high):
        return low


class Raw:
    """A reply that is no JSON object with 200."""

    def __init__(self, status, body=b"", content_type="text/plain", **headers):
        self.status, self.body = status, body
        self.headers = {"Content-Type": content_type, **headers}


class Scripted:
    """Answers a bot's whole life well, but for what `replies` say: a list for each call, of
    which the last one stays. It ends the life with a termination task."""

    def __init__(self):
        self.calls = []
        self.replies = {}
        self.tokens = 0
        self.kind = "terminate"
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            log_message = lambda *_words: None  # noqa: E731

            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                owner.respond(self, json.loads(content), content)

            def do_GET(self):
                owner.respond(self, None, b"")

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def on(self, name, *replies):
        self.replies[name] = list(replies)

    def named(self, name):
        return [body for called, body, _headers, _content in self.calls if called == name]

    def respond(self, handler, body, content):
        name = handler.path.removeprefix(API).partition("?")[0]
        name = name.removesuffix("/" + RUN)
        self.calls.append((name, body, dict(handler.headers.items()), content))
        script = self.replies.get(name, [])
        reply = (script.pop(0) if len(script) > 1 else script[0]) if script else None
        if callable(reply):
            reply = reply(body)
        if reply is None:
            reply = self.good(name, body)
        if isinstance(reply, dict):
            reply = Raw(200, json.dumps(reply).encode() + b"\n", JSON)
        if reply.status == 0:
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response(reply.status)
        for key, value in reply.headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body)

    def token(self):
        self.tokens += 1
        return base64.b64encode(f"token {self.tokens}".encode()).decode()

    def good(self, name, body):
        """What a server that keeps to the page answers."""
        session = {"session": self.token()}
        if name == "server_ping":
            return Raw(200, b"Server up", "text/plain; charset=utf-8")
        if name == "handshake":
            return session | {
                "bot_version": "v" * 64,
                "server_version": "1",
                "bot_config_name": "bot_config.py",
                "bot_config_rev": "r",
                "bot_group_cfg": {"dimensions": {"pool": ["ci"]}},
                "rbe": RBE,
            }
        if name == "claim":
            return session | self.claimed()
        return {
            "poll": session | {"cmd": "rbe", "rbe": RBE},
            "rbe/session/create": session | {"session_id": "ls-1"},
            "rbe/session/update": session | {"status": "OK"} | self.lease(body),
            "task_update": session | {"ok": True, "must_stop": False},
            "event": {},
            "task_error": {},
            "oauth_token": session | {"service_account": "none"},
            "id_token": session | {"service_account": "bot"},
        }[name]

    def claimed(self):
        if self.kind == "terminate":
            return {"cmd": "terminate", "task_id": RUN}
        self.kind = "terminate"
        return {"cmd": "run", "task_id": RUN, "manifest": MANIFEST}

    def lease(self, body):
        reported = (body or {}).get("lease", {})
        if reported.get("state") == "ACTIVE":
            return {"lease": {"id": LEASE, "state": "ACTIVE"}}
        return {"lease": lease()} if (body or {}).get("status") == "OK" else {}


def lease(state="PENDING", **payload):
    payload = {"task_id": TASK, "task_to_run_id": 1, "task_to_run_shard": 4, **payload}
    return {"id": LEASE, "state": state, "payload": payload}


def good(name, **changes):
    """The good reply of that name, changed; a value of `...` takes the key away."""

    def reply(body):
        answer = {**Scripted.good(_Standing(), name, body), **changes}
        return {key: value for key, value in answer.items() if value is not ...}

    return reply


class _Standing:
    """Enough of a server for `Scripted.good`."""

    kind = "run"
    token = staticmethod(lambda: "dG9rZW4=")
    lease = Scripted.lease
    claimed = Scripted.claimed


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def transcript():
    return Transcript()


@pytest.fixture
def wire(server, clock, transcript):
    return Wire(server.url, "vm1", clock, transcript, session="dG9rZW4=")


@pytest.fixture
def run(server, clock, transcript, tmp_path):
    """Run a whole life; its options may be changed."""

    def run(clock=clock, **more):
        options = Options(server.url, "vm1", str(tmp_path), {"os": ["Linux"]}, **more)
        live(options, clock, transcript, Signals())

    return run


def notes(transcript, what):
    return [line["text"] for line in transcript.lines if line.get("note") == what]


# A server that keeps to the page.


@pytest.mark.spec("0.3.1.1", "0.3.1.2", "5.2.1.7", "3.3.1.2", "A.1.1.6", "A.2.1.1")
def test_life_ends_well_with_a_termination_task(server, run, transcript):
    run(version="v" * 64)
    assert [name for name, *_ in server.calls] == [
        *("server_ping", "handshake", "poll", "rbe/session/create", "rbe/session/update"),
        *("claim", "task_update", "event", "rbe/session/update"),
    ]
    (claim,) = server.named("claim")
    assert (claim["claim_id"], claim["task_to_run_id"], claim["task_to_run_shard"]) == (LEASE, 1, 4)
    (update,) = server.named("task_update")
    assert base64.b64decode(update["session"])
    assert update.keys() == {"duration", "exit_code", "id", "session", "task_id"}
    assert (update["duration"], update["exit_code"]) == (0, 0)
    last = server.named("rbe/session/update")[-1]
    assert last["status"] == "BOT_TERMINATING"
    assert last["lease"] == {"id": LEASE, "result": {}, "state": "COMPLETED"}
    assert server.named("poll")[0]["dimensions"] == {
        "os": ["Linux"],
        "pool": ["ci"],
        "id": ["vm1"],
        "bot_config": ["bot_config.py"],
    }
    for name, body, headers, content in server.calls[1:]:
        assert content == encode(body), name
        assert headers["Content-Type"] == "application/json; charset=UTF-8"
        assert headers["X-Luci-Swarming-Bot-ID"] == "vm1"
        assert headers["User-Agent"].startswith("swarming_bot/1.0.0@")
        assert 0 <= int(headers["Cookie"].removeprefix("GOOGAPPUID=")) <= 999
    ping = server.calls[0][2]
    assert "X-Luci-Swarming-Bot-ID" not in ping
    assert "Cookie" not in ping
    assert [line["request"]["path"] for line in transcript.lines if "request" in line][1] == (
        "/swarming/api/v1/bot/handshake"
    )


@pytest.mark.spec("5.2.1.1", "5.2.1.4", "A.5.p1")
def test_command_is_run_and_streamed_with_offsets(server, run):
    server.kind = "run"
    run(clock=RealClock(1), pace=Pace(0.01, 0.02, (5, 6)))
    first, *_middle, last = [u for u in server.named("task_update") if u["task_id"] == RUN][:-1]
    assert first.keys() == {"cost_usd", "id", "session", "task_id"}
    assert (last["exit_code"], last["hard_timeout"], last["io_timeout"]) == (3, False, False)
    assert "bot_overhead" in last
    sent = bytearray()
    for update in server.named("task_update"):
        if "output" in update:
            assert update["output_chunk_start"] == len(sent)
            sent += base64.b64decode(update["output"])
    assert sent == b"hello"
    flush = server.named("rbe/session/update")[1]
    assert (flush["status"], flush["nonblocking"]) == ("MAINTENANCE", True)
    assert flush["lease"] == {"id": LEASE, "result": {}, "state": "COMPLETED"}


@pytest.mark.spec("5.2.1.2")
def test_nothing_is_run_when_the_first_reply_says_stop(server, run, tmp_path):
    server.kind = "run"
    stop = {"ok": True, "must_stop": True, "stop_reason": "being killed", "session": "dA=="}
    server.on("task_update", stop, None)
    run()
    _first, second, _termination = server.named("task_update")
    assert second["canceled"] is True
    assert "exit_code" not in second


@pytest.mark.spec("5.2.1.6")
def test_command_that_cannot_start_ends_with_exit_code_1(server, run):
    server.kind = "run"
    server.on("claim", {**good("claim")({}), "manifest": {**MANIFEST, "command": ["/no"]}}, None)
    run()
    last = server.named("task_update")[1]
    assert (last["exit_code"], last["output_chunk_start"]) == (1, 0)
    assert b"cannot start" in base64.b64decode(last["output"])


@pytest.mark.spec("5.2.1.5")
def test_internal_failure_is_an_open_update_and_a_task_error(server, run):
    server.kind = "run"
    run(break_on="-c")
    assert [
        u for u in server.named("task_update") if "exit_code" in u and u["exit_code"] == 3
    ] == []
    assert server.named("task_update")[1]["io_timeout"] is False
    (error,) = server.named("task_error")
    assert error["client_error"] == {"missing_cas": [], "missing_cipd": []}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "flag"), [("hard_timeout", 1), ("io_timeout", 1)])
def test_command_over_its_time_is_stopped_and_says_so(server, run, key, flag):
    manifest = {**MANIFEST, "command": ["sleep", "60"], key: flag}
    server.on("claim", {**good("claim")({}), "manifest": manifest}, good("claim", cmd="terminate"))
    run(clock=RealClock(1), pace=Pace(0.1, 0.1, (5, 6)))
    last = next(u for u in server.named("task_update") if "exit_code" in u)
    assert last["exit_code"] == -15
    assert last[key] is True


# Replies that break the page: each ends the life with its row.

BREACHES = [
    ("0.5.2.1", "handshake", {}),
    ("0.5.2.1", "poll", {}),
    ("0.5.2.1", "claim", {}),
    ("0.5.2.1", "task_update", {}),
    ("0.5.2.1", "rbe/session/create", {}),
    ("0.5.2.1", "rbe/session/update", {}),
    ("0.5.2.1", "oauth_token", {}),
    ("0.5.2.1", "id_token", {}),
    ("0.5.2.2", "poll", Raw(200, b"ok", "text/plain")),
    ("0.5.2.2", "event", Raw(200, b"", JSON)),
    ("0.5.2.2", "claim", Raw(200, b"[]\n", JSON)),
    ("0.5.2.3", "poll", Raw(302, b"", Location="/elsewhere")),
    ("0.5.2.9", "poll", good("poll", error="no")),
    ("0.5.2.9", "claim", good("claim", error="no")),
    ("0.5.2.9", "task_update", good("task_update", error="no")),
    ("0.3.1.3", "poll", Raw(200, b'{"cmd":"sleep","duration":1}\n', "application/json")),
    ("0.3.1.3", "poll", Raw(200, b'{"cmd":"sleep","duration":1}', JSON)),
    ("0.3.1.4", "poll", good("poll", session="token")),
    ("0.3.1.4", "event", {"session": "no base64"}),
    ("0.3.1.9", "rbe/session/update", good("rbe/session/update", lease=None)),
    ("1.2.p1", "server_ping", Raw(200, b"Server up\n", "text/plain; charset=utf-8")),
    *(
        (row, "handshake", good("handshake", **{key: value}))
        for row, key, value in (
            ("1.3.3.1", "session", ...),
            ("1.3.3.2", "bot_version", ...),
            ("1.3.3.3", "server_version", 1),
            ("1.3.3.4", "bot_config", "def ("),
            ("1.3.3.5", "bot_config_name", ...),
            ("1.3.3.6", "bot_config_rev", ...),
            ("1.3.3.7", "bot_group_cfg", {}),
            ("1.3.3.7", "bot_group_cfg", {"dimensions": {"pool": "ci"}}),
            ("1.3.p2", "rbe", {"hybrid_mode": False}),
            ("1.3.p2", "rbe", {"instance": "i"}),
            ("1.3.p2", "rbe", {"instance": "", "hybrid_mode": False}),
            ("1.3.p2", "rbe", {"instance": "i", "hybrid_mode": True}),
        )
    ),
    ("3.3.1.8", "poll", good("poll", cmd="dance")),
    ("3.3.1.8", "poll", good("poll", cmd=...)),
    ("3.3.1.1", "poll", good("poll", cmd="sleep")),
    ("3.3.1.1", "poll", good("poll", cmd="sleep", duration="3")),
    ("3.3.1.2", "poll", good("poll", rbe=...)),
    ("3.3.1.3", "poll", good("poll", cmd="run")),
    ("3.3.1.4", "poll", good("poll", cmd="terminate")),
    ("3.3.1.5", "poll", good("poll", cmd="update")),
    ("3.3.1.6", "poll", good("poll", cmd="bot_restart")),
    ("3.3.1.7", "poll", good("poll", cmd="host_reboot")),
    ("1.3.p2", "poll", good("poll", rbe={"instance": "i"})),
    ("1.11.p2", "rbe/session/create", good("rbe/session/create", session_id="")),
    ("1.11.p2", "rbe/session/create", good("rbe/session/create", session=...)),
    *(
        (row, "rbe/session/update", good("rbe/session/update", **{key: value}))
        for row, key, value in (
            ("1.11.3.1", "session", ...),
            ("1.11.3.2", "status", ...),
            ("1.11.3.2", "status", ""),
            ("1.11.3.2", "status", "FINE"),
            ("1.11.3.3", "lease", {}),
            ("1.11.3.3", "lease", {"id": "", "state": "PENDING"}),
            ("1.11.3.3", "lease", {"id": LEASE, "state": "PENDING"}),
            ("1.11.4.1", "lease", {"id": LEASE, "state": "ACTIVE"}),
            ("1.11.5.2", "lease", lease(task_id=RUN)),
            ("1.11.5.4", "lease", lease(task_to_run_shard="4")),
            ("1.11.5.5", "lease", lease(task_to_run_id="1")),
        )
    ),
    ("4.2.1.3", "claim", good("claim", cmd="dance")),
    ("4.2.1.1", "claim", {"cmd": "skip"}),
    ("4.2.1.2", "claim", {"cmd": "terminate"}),
    ("4.2.1.2", "claim", {"cmd": "terminate", "task_id": TASK}),
    ("4.2.1.3", "claim", good("claim", manifest=...)),
    ("4.2.1.3", "claim", good("claim", session=...)),
    ("4.4.1.1", "claim", good("claim", task_id="76d00eba71beef01")),
    *(
        (row, "claim", good("claim", manifest={**MANIFEST, key: value}))
        for row, key, value in (
            ("4.4.1.1", "task_id", TASK),
            ("4.4.1.2", "bot_id", 1),
            ("4.4.1.3", "bot_dimensions", {"id": "vm1"}),
            ("4.4.1.4", "dimensions", []),
            ("4.4.1.5", "hard_timeout", "60"),
            ("4.4.1.5", "hard_timeout", None),
            ("4.4.1.6", "io_timeout", "0"),
            ("4.4.1.7", "grace_period", None),
            ("4.4.1.8", "command", "true"),
            ("4.4.1.9", "relative_cwd", 1),
            ("4.4.1.10", "env", {"A": 1}),
            ("4.4.1.11", "env_prefixes", {"PATH": "bin"}),
            ("4.4.1.12", "caches", [{"name": "git", "path": "c", "hint": -1}]),
            ("4.4.1.13", "cas_input_root", {"digest": {"hash": "a"}}),
            ("4.4.1.14", "cipd_input", {"packages": []}),
            ("4.4.1.15", "outputs", [1]),
            ("4.4.1.16", "secret_bytes", 1),
            ("4.4.1.18", "realm", {"id": "a"}),
            ("4.4.1.20", "service_accounts", {"task": {}}),
            ("4.4.1.21", "bot_authenticated_as", 1),
        )
    ),
    ("5.3.1.5", "task_update", good("task_update", ok=...)),
    ("5.3.1.5", "task_update", good("task_update", must_stop=...)),
    ("5.3.1.5", "task_update", good("task_update", session=...)),
    ("5.3.1.4", "task_update", good("task_update", must_stop=True)),
    ("5.7.p1", "task_error", {"resp": 1}),
    ("1.6.p1", "event", {"ok": True}),
    ("1.9.2.1", "oauth_token", {"access_token": "a", "expiry": 1}),
    ("1.9.2.2", "oauth_token", {"service_account": "a@b", "expiry": 1}),
    ("1.9.2.3", "id_token", {"service_account": "a@b", "id_token": "a", "expiry": "1"}),
    ("1.9.3.1", "id_token", {"service_account": "none", "id_token": "a"}),
    ("1.9.p1", "id_token", Raw(400, b"no such account\n")),
]
MANIFEST_KEYS = ("task_id", "bot_id", "bot_dimensions", "dimensions", "hard_timeout")
MANIFEST_KEYS += ("io_timeout", "grace_period")


@pytest.mark.spec("0.5.2.1", "0.5.2.2", "0.5.2.3", "0.5.2.9", "A.4.1.9")
@pytest.mark.parametrize(("row", "name", "reply"), BREACHES)
def test_life_ends_with_the_row_when_a_reply_breaks_it(server, run, row, name, reply):
    server.kind = "run"
    server.on(name, reply)
    is_error = name == "task_error"
    with pytest.raises(Violation) as caught:
        run(break_on="sh" if is_error else "", mint=("oauth_token", "id_token"))
    assert caught.value.row == row
    assert str(caught.value).startswith(f"bot-api {row}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", MANIFEST_KEYS)
def test_manifest_without_a_required_key_is_a_breach(server, run, key):
    manifest = {name: value for name, value in MANIFEST.items() if name != key}
    server.on("claim", good("claim", manifest=manifest))
    with pytest.raises(Violation, match=f"manifest: no {key}"):
        run()


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("1.11.4.2", {"id": "another", "state": "ACTIVE"}),
        ("1.11.4.2", {"id": LEASE, "state": "PENDING", "payload": {"task_id": TASK}}),
        ("1.11.4.2", {"id": LEASE, "state": "ACTIVE", "payload": {}}),
    ],
)
def test_lease_of_a_ping_must_be_the_one_that_is_worked_on(server, run, row, found):
    server.kind = "run"
    pending = good("rbe/session/update")
    server.on("rbe/session/update", pending, good("rbe/session/update", lease=found))
    slow = {**MANIFEST, "command": ["sleep", "60"]}
    server.on("claim", good("claim", manifest=slow))
    with pytest.raises(Violation) as caught:
        run(clock=RealClock(1), pace=Pace(ping=(0.01, 0.02)))
    assert caught.value.row == row


def test_lease_is_never_given_to_a_bot_that_reports_another_status_than_ok(server, run):
    server.kind = "run"
    server.on("rbe/session/update", good("rbe/session/update", lease=lease()))
    with pytest.raises(Violation) as caught:
        run(clock=RealClock(1))
    assert caught.value.row == "1.11.4.3"


# What is tried again, and what is not (bot-api 0.5).

FINE = {"ok": True, "must_stop": False, "session": "dA=="}


@pytest.mark.spec("0.5.2.6", "0.5.2.7", "0.5.2.8")
@pytest.mark.parametrize(
    "failure",
    [
        *(Raw(408), Raw(429), Raw(500), Raw(503), Raw(0)),
        Raw(404, b"no such page\n"),
    ],
)
def test_call_is_tried_again_with_the_pauses_of_the_schedule(server, wire, clock, failure):
    server.on("task_update", failure, failure, failure, failure, FINE)
    assert wire.post("task_update", {}, task_id=RUN) == FINE
    assert clock.slept == [1.5**n for n in (-1, 0, 1, 2)]


@pytest.mark.spec("0.5.2.8", "13.1.56")
def test_call_fails_after_thirty_attempts_or_240_s(server, wire, clock):
    server.on("task_update", Raw(500))
    with pytest.raises(NoAnswer, match="500"):
        wire.post("task_update", {}, task_id=RUN)
    assert len(server.calls) == 30
    assert max(clock.slept) == 10.0
    server.calls.clear()
    clock.sleep = lambda _s: setattr(clock, "now", clock.now + 100)
    with pytest.raises(NoAnswer, match="500"):
        wire.post("task_update", {}, task_id=RUN)
    assert len(server.calls) == 4


@pytest.mark.spec("0.5.2.4", "0.5.2.5", "0.5.2.7")
@pytest.mark.parametrize(
    "failure",
    [
        *(Raw(400), Raw(401), Raw(403), Raw(409)),
        Raw(404, b'{"error":"no"}\n', "application/json"),
    ],
)
def test_call_fails_at_once(server, wire, clock, failure):
    server.on("task_update", failure, FINE)
    with pytest.raises(NoAnswer) as caught:
        wire.post("task_update", {}, task_id=RUN)
    assert caught.value.status == failure.status
    assert clock.slept == []
    assert len(server.calls) == 1


@pytest.mark.spec("0.5.2.3")
def test_redirect_is_followed_by_a_download_and_not_by_a_json_call(server, wire):
    server.on("here", Raw(302, b"", Location="/swarming/api/v1/bot/there"))
    server.on("there", Raw(200, b"found"))
    assert wire.get(API + "here", name="bot_code").body == b"found"
    server.on("claim", Raw(302, b"", Location="/swarming/api/v1/bot/there"))
    with pytest.raises(Violation):
        wire.post("claim", {})
    assert [name for name, *_ in server.calls] == ["here", "there", "claim"]


@pytest.mark.spec("0.5.2.10")
def test_session_of_any_reply_replaces_the_token(server, wire):
    server.on("claim", {"cmd": "skip", "reason": "x", "session": "bmV3"})
    wire.post("claim", {})
    assert wire.session == "bmV3"
    server.on("claim", {"cmd": "skip", "reason": "x"})
    wire.post("claim", {})
    assert wire.session == "bmV3"


@pytest.mark.spec("0.5.2.9")
@pytest.mark.parametrize("status", [200, 400])
def test_error_of_a_token_call_is_fatal_for_whoever_asked(server, wire, status):
    server.on("oauth_token", Raw(status, b'{"error":"no account"}\n', JSON))
    with pytest.raises(FatalMint, match="no account"):
        wire.post("oauth_token", {})
    assert len(server.calls) == 1


@pytest.mark.spec("A.3.p1", "13.1.58")
def test_back_off_grows_from_nothing_to_five_minutes(clock):
    assert [back_off_s(clock, n, 2.0) for n in (1, 2, 3)] == [0.0, 1.6, 3.2]
    assert back_off_s(clock, 50, 1.4) == 300.0
    clock.uniform = lambda low, high: high
    assert back_off_s(clock, 2, 1.4) == 1.4 * 1.2
    assert back_off_s(clock, 18, 1.4) == 300.0


@pytest.mark.spec("A.4.1.2")
def test_request_uuid_stays_until_a_poll_succeeds(server, run, clock):
    server.on("handshake", good("handshake", rbe=...))
    server.on("poll", Raw(500), Raw(503), {"cmd": "sleep", "duration": 7}, None)
    run()
    uuids = [body["request_uuid"] for body in server.named("poll")]
    assert uuids[0] == uuids[1] == uuids[2] != uuids[3]
    assert clock.slept == pytest.approx([1.4 * 0.8, 7])


@pytest.mark.spec("A.4.1.1")
def test_handshake_is_repeated_with_back_off(server, run, clock):
    server.on("handshake", Raw(401), Raw(401), Raw(403), None)
    run()
    assert clock.slept == [0.0, 1.6, 3.2]


@pytest.mark.spec("A.4.1.3")
def test_lease_of_a_failed_claim_is_finished_with_an_internal_error(server, run):
    server.on("claim", Raw(400, b"bad\n"), {"cmd": "terminate", "task_id": RUN})
    run()
    assert server.named("event")[0]["event"] == "bot_error"
    done = server.named("rbe/session/update")[1]["lease"]
    assert done == {
        "id": LEASE,
        "result": {"bot_internal_error": "claim: 400"},
        "state": "COMPLETED",
    }


def test_lease_of_a_skip_is_finished_with_its_reason_after_another_poll(server, run):
    server.on("claim", {"cmd": "skip", "reason": "gone"}, {"cmd": "terminate", "task_id": RUN})
    run()
    names = [name for name, *_ in server.calls]
    assert names[names.index("claim") + 1] == "poll"
    assert server.named("rbe/session/update")[1]["lease"]["result"] == {"skip_reason": "gone"}


@pytest.mark.spec("A.4.1.5")
def test_command_is_killed_when_an_update_fails(server, run):
    server.kind = "run"
    slow = {**MANIFEST, "command": ["sleep", "60"]}
    server.on("claim", good("claim", manifest=slow), {"cmd": "terminate", "task_id": RUN})
    server.on("task_update", None, Raw(409, b"gap\n"), None)
    run(clock=RealClock(1), pace=Pace(0.01, 0.01))
    (error,) = server.named("task_error")
    assert error["message"] == "task_update: 409"


@pytest.mark.spec("A.4.1.6")
def test_task_fails_when_its_last_update_fails(server, run):
    server.kind = "run"
    server.on("task_update", None, Raw(403), None)
    run()
    assert len(server.named("task_error")) == 1


@pytest.mark.spec("A.4.1.4", "A.4.1.7")
def test_failing_event_and_task_error_are_ignored(server, run):
    server.kind = "run"
    server.on("event", Raw(403))
    server.on("task_error", Raw(400))
    run(break_on="sh")
    assert len(server.named("event")) == 1


@pytest.mark.spec("A.4.1.8")
def test_lease_session_is_opened_again_when_it_is_dead(server, run):
    dead = {"session": "dA==", "status": "BOT_TERMINATING"}
    server.on("rbe/session/update", Raw(503), dead, None)
    run()
    assert len(server.named("rbe/session/create")) == 2
    assert len(server.named("rbe/session/update")) == 4


@pytest.mark.spec("3.3.1.1")
def test_sleep_ends_the_lease_session(server, run, clock):
    server.on("rbe/session/update", {"session": "dA==", "status": "OK"}, None)
    server.on("poll", None, {"cmd": "sleep", "duration": 70}, None)
    run()
    assert server.named("rbe/session/update")[1]["status"] == "BOT_TERMINATING"
    assert clock.slept[0] == 70
    assert len(server.named("rbe/session/create")) == 2


@pytest.mark.spec("3.3.1.6")
def test_restart_says_goodbye_once_and_begins_another_session(server, run, clock):
    server.on("poll", good("poll", cmd="bot_restart", message="new bots.cfg config"), None)
    run()
    first, second = server.named("handshake")
    assert first["session_id"] != second["session_id"]
    messages = [(body["event"], body["message"]) for body in server.named("event")]
    assert messages == [
        ("bot_shutdown", "About to restart: new bots.cfg config"),
        ("bot_shutdown", "Signal was received"),
    ]
    assert clock.slept == [2.0]


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        for name, text in members.items():
            bundle.writestr(name.replace("__py", ".py").replace("_json", "/config.json"), text)
    return content.getvalue()


ARCHIVE = zipped(__main____py="print(1)\n", config_json='{"server":"http://h"}')


@pytest.mark.spec("3.3.1.5", "8.6.1.1", "8.6.1.3", "8.6.1.4", "8.6.1.5")
def test_update_downloads_checks_and_becomes_the_version(server, run):
    version = archive.version_of(ARCHIVE)
    server.on("poll", good("poll", cmd="update", version=version), None)
    server.on(f"bot_code/{version}", Raw(200, ARCHIVE, "application/octet-stream"))
    run(version="old")
    assert [body["version"] for body in server.named("handshake")] == ["old", version]
    names = [name for name, *_ in server.calls]
    here = names.index(f"bot_code/{version}")
    assert names[here : here + 3] == [f"bot_code/{version}", "server_ping", "event"]
    assert server.named("event")[0]["message"] == f"About to restart: Updating to {version}"


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ("8.2.p1", ARCHIVE),
        ("8.1.p1", b"no zip"),
        ("8.1.p1", zipped(config_json='{"server":"http://h"}')),
        ("8.1.1.2", zipped(__main____py="", config_json='{"server":"http://h/"}')),
    ],
)
def test_archive_that_is_not_what_was_asked_for_is_a_breach(server, run, row, content):
    server.on("poll", good("poll", cmd="update", version="a" * 64))
    server.on(f"bot_code/{'a' * 64}", Raw(200, content, "application/octet-stream"))
    with pytest.raises(Violation) as caught:
        run()
    assert caught.value.row == row


@pytest.mark.spec("8.6.1.3")
def test_bot_is_out_of_order_when_a_download_fails(server, run, transcript):
    server.on("poll", good("poll", cmd="update", version="a" * 64), None)
    server.on(f"bot_code/{'a' * 64}", Raw(403, b"no\n"))
    server.on("rbe/session/update", {"session": "dA==", "status": "OK"}, None)
    run()
    assert server.named("event")[0]["event"] == "bot_error"
    assert server.named("poll")[1]["state"]["quarantined"] == "Failed to self-update the bot"


@pytest.mark.spec("3.3.1.3")
def test_run_of_a_native_poll_is_executed_without_a_lease(server, run):
    server.on("poll", good("poll", cmd="run", manifest=MANIFEST, rbe=...), None)
    run()
    final = [u for u in server.named("task_update") if u.get("exit_code") == 3]
    assert len(final) == 1
    names = [name for name, *_ in server.calls]
    assert names.count("poll") == 2
    assert "rbe/session/create" in names[names.index("task_update") :]


def test_version_of_the_known_archive():
    content = zipped(__main____py="print(1)\n", config_json="{}")
    with pytest.raises(Violation, match="server is ''"):
        archive.version_of(content)
    assert archive.digest(content) == (
        "557ca9065545b4f8d1df15beb210058b5947a368fe0c0010d87ce9ee30c26d65"
    )


@pytest.mark.spec("3.3.1.4")
def test_terminate_of_a_native_poll_ends_the_bot(server, run):
    server.on("poll", good("poll", cmd="terminate", task_id=RUN, rbe=...))
    run()
    assert [name for name, *_ in server.calls][-3:] == ["poll", "task_update", "event"]


@pytest.mark.spec("A.1.1.5", "A.2.1.2", "A.2.1.3", "1.11.2.3")
def test_bot_polls_when_it_became_idle_and_lets_itself_be_held_only_then(server, run):
    empty = {"session": "dA==", "status": "OK"}
    server.on("rbe/session/update", empty, empty, None)
    run(version="v" * 64)
    names = [name for name, *_ in server.calls]
    once = ["poll", "rbe/session/create", "rbe/session/update"]
    assert names[2:7] == [*once, "poll", "rbe/session/update"]
    first, second = server.named("poll")
    assert first["state"] == {
        "bot_config": {"name": "bot_config.py", "revision": "r"},
        "cost_usd_hour": 0.4,
        "rbe_hybrid_mode": False,
        "rbe_idle": False,
        "rbe_instance": "i",
        "rbe_session": None,
        "running_time": 0.0,
        "sleep_streak": 0,
    }
    changed = {"rbe_idle": True, "rbe_session": "ls-1", "sleep_streak": 1}
    assert second["state"] == first["state"] | changed
    assert first["version"] == "v" * 64
    waits = [body.get("nonblocking", False) for body in server.named("rbe/session/update")]
    assert waits[:3] == [True, False, False]


@pytest.mark.spec("3.3.1.7")
@pytest.mark.parametrize("cmd", ["host_reboot", "restart"])
def test_reboot_is_told_and_another_session_follows(server, run, cmd):
    server.on("poll", good("poll", cmd=cmd, message="new kernel"), None)
    run()
    assert server.named("event")[0]["event"] == "bot_rebooting"
    assert len(server.named("handshake")) == 2


@pytest.mark.slow
def test_lost_lease_is_not_reported_and_the_bot_pings_that_it_lives(server, run):
    slow = {**MANIFEST, "command": ["sleep", "0.3"]}
    server.on("claim", good("claim", manifest=slow), {"cmd": "terminate", "task_id": RUN})
    lost = {"session": "dA==", "status": "OK"}
    dead = {"session": "dA==", "status": "BOT_TERMINATING"}
    server.on("rbe/session/update", None, lost, dead, None)
    run(clock=RealClock(1), pace=Pace(ping=(0.01, 0.02), unleased_ping=(0.01, 0.02)))
    updates = server.named("rbe/session/update")
    assert updates[1]["lease"] == {"id": LEASE, "state": "ACTIVE"}
    assert [(u["status"], "lease" in u) for u in updates[2:4]] == [("MAINTENANCE", False)] * 2
    assert len(server.named("rbe/session/create")) == 2
    assert [u for u in updates if u.get("lease", {}).get("state") == "COMPLETED"][:-1] == []
