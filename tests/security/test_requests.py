"""What a caller may send, and what it may make the server do."""

import gzip
import json
import logging
import re

import pytest

from botapi import app as composition
from botapi import logs
from botapi.botsrv import BOT_PATH, WITH_SESSION, WITHOUT_SESSION
from botapi.settings import Settings
from tests.fakes.sim_bot import JSON

PATHS = [BOT_PATH + route.path for route in (*WITHOUT_SESSION, *WITH_SESSION)]


def send(client, path, body, **headers):
    return client.post(path, data=body, headers={"Content-Type": JSON, **headers})


def is_one_line(response):
    return response.data.count(b"\n") <= 1 and response.get_data(as_text=True).strip().isprintable()


BOMBS = {
    "deep lists": b'{"state":' + b"[" * 100_000,
    "deep objects": b'{"state":' + b'{"a":' * 100_000,
    "closed and deep": b'{"state":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "wide": b'{"state":{' + b",".join(b'"k%d":0' % n for n in range(60_000)) + b"}}",
    "a number without end": b'{"state":{"n":1' + b"0" * 900_000 + b"}}",
    "a float beyond floats": b'{"state":{"n":1e999999999}}',
    "half a surrogate": b'{"version":"\\ud800"}',
    "a name twice": b'{"version":"a","version":["b"]}',
}


@pytest.mark.control("requests.json-bomb")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BOMBS)
def test_odd_json_is_refused_in_one_line_and_fast(client, path, name):
    response = send(client, path, BOMBS[name])
    assert 400 <= response.status_code < 500, response.data[:300]
    assert is_one_line(response)
    assert len(response.data) < 2_000


@pytest.mark.control("requests.json-bomb")
@pytest.mark.parametrize("depth", [10, 32, 200, 1_000, 5_000, 100_000])
def test_deep_state_of_a_real_bot_never_breaks_the_server(client, make_bot, depth):
    bot = make_bot().start()
    body = json.dumps({"session": bot.session, "dimensions": bot.dims, "state": {"deep": 1}})
    deep = body.replace("1}", "[" * depth + "]" * depth + "}")
    response = send(client, BOT_PATH + "/poll", deep.encode())
    assert response.status_code < 500, response.data[:300]
    assert bot.poll().get("cmd") in {"rbe", "sleep"}


@pytest.mark.control("requests.gzip-bomb")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_body_is_refused_and_not_unpacked(client, coding):
    body = gzip.compress(json.dumps({"dimensions": {"id": ["vm1"]}}).encode())
    response = send(client, BOT_PATH + "/handshake", body, **{"Content-Encoding": coding})
    assert response.status_code == 400
    assert b"Content-Encoding" in response.data


CLIMBS = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//e",
          "..\\..\\etc", "/etc/passwd", "%00", "a%0d%0aX: y", "a/../../settings.py"]  # fmt: skip
BEFORE = [f"{BOT_PATH}/bot_code/", "/static/", f"{BOT_PATH}/task_update/", "/skep/v1/bot_code/",
          "/api/v1/tasks/", "/api/v1/bots/", "/tasks/", "/"]  # fmt: skip


@pytest.mark.control("requests.path-traversal")
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_names_a_file(client, before, climb):
    for method in ("GET", "POST"):
        response = client.open(before + climb, method=method, headers={"Content-Type": JSON})
        assert response.status_code < 500, response.data
        assert b"root:" not in response.data
        assert b"def " not in response.data
        assert "X" not in {name.upper() for name, _ in response.headers}


@pytest.fixture
def log_lines(capsys):
    """What the server writes about requests, in both forms."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def begin(form):
        logs.configure(form, "debug")

    def lines():
        captured = capsys.readouterr()
        return (captured.out + captured.err).splitlines()

    yield begin, lines
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.mark.control("requests.log-injection")
@pytest.mark.parametrize("form", ["json", "console"])
def test_caller_cannot_forge_a_log_line(client, make_bot, log_lines, form):
    begin, lines = log_lines
    begin(form)
    forged = "x\n2026-01-01 FORGED \x1b[31m\r\u2028FORGED"
    make_bot().handshake(session_id=forged)
    send(client, BOT_PATH + "/event", json.dumps({"session": forged}).encode())
    client.get("/bot_code", query_string={"tok": forged, "bot_id": forged})
    client.post(f"{BOT_PATH}/event/{'%0a'}FORGED")
    written = lines()
    assert written
    for line in written:
        assert not re.match(r"\s*(2026-01-01 )?FORGED", line), line
        assert "\x1b[31m" not in line


@pytest.mark.control("requests.log-injection")
def test_log_never_holds_tokens_secrets_or_bodies(client, make_bot, log_lines):
    begin, lines = log_lines
    begin("json")
    bot = make_bot(secret="S3cretCanary" * 4)
    bot.handshake()
    bot.call("/event", event="bot_nonsense", message="BodyCanary")
    client.get("/bot_code?tok=TokenCanary")
    client.get("/bootstrap?tok=TokenCanary")
    send(client, "/skep/v1/enroll", b'{"bot_id":"vm1","token":"TokenCanary","secret":"x"}')
    client.get("/api/v1/bots", headers={"Authorization": "Bearer KeyCanary"})
    text = "\n".join(lines())
    assert text
    assert "Canary" not in text


@pytest.mark.control("requests.debug-off")
def test_bug_shows_one_line_with_the_request_id_and_no_more(client, parts, monkeypatch):
    def broken():
        raise RuntimeError("secret detail")

    monkeypatch.setattr(parts.config, "latest", broken, raising=False)
    response = client.post(
        BOT_PATH + "/handshake", data=b'{"dimensions":{"id":["a"]}}', headers={"Content-Type": JSON}
    )
    assert response.status_code == 500
    assert is_one_line(response)
    assert response.headers["X-Request-Id"] in response.get_data(as_text=True)
    assert b"secret detail" not in response.data


@pytest.mark.control("requests.debug-off")
def test_shipped_application_has_no_debugger(parts):
    app = composition.create_app(parts)
    assert not app.debug
    assert not app.testing
    response = app.test_client().get("/?__debugger__=yes&cmd=resource&f=debugger.js")
    assert b"debugger" not in response.data.lower()
    assert Settings().host == "127.0.0.1"
