"""Retries, keys, and refusals as typed errors."""

import pytest
import urllib3

from botapi import settings
from botapi.ctl import errors, http
from botapi.ctl.http import Client


@pytest.fixture
def client(script):
    with Client(settings.load({"SKEP_SERVER": script.url, "SKEP_TOKEN": "k"})) as made:
        yield made


def test_get_is_repeated_while_the_server_is_not_ready(script, client):
    script.refuse(503, "starting", Retry_After="0").reply(200, {"actor": "me"})
    assert client.get("whoami", "/whoami") == {"actor": "me"}
    assert script.calls == ["GET /api/v1/whoami"] * 2
    assert script.asked[0].headers["Authorization"] == "Bearer k"


def test_create_is_repeated_with_the_same_key(script, client):
    script.refuse(502, "gateway").reply(201, {"task_id": "a0"})
    assert client.create("submit", "/tasks", {"command": ["x"]}) == {"task_id": "a0"}
    first, second = (asked.headers["Idempotency-Key"] for asked in script.asked)
    assert first == second
    assert script.asked[1].body == {"command": ["x"]}


def test_two_creates_have_two_keys(script, client):
    script.reply(201, {}).reply(201, {})
    client.create("submit", "/tasks", {})
    client.create("submit", "/tasks", {})
    first, second = (asked.headers["Idempotency-Key"] for asked in script.asked)
    assert first != second


def test_what_a_repeat_would_do_twice_is_sent_once(script, client):
    script.refuse(503, "starting", Retry_After="0").reply(201, {})
    with pytest.raises(errors.ServerFault):
        client.once("bootstrap token", "/bootstrap-tokens", {})
    assert len(script.asked) == 1


def test_retry_after_is_never_obeyed_for_more_than_a_minute():
    asked = urllib3.HTTPResponse(headers={"Retry-After": "86400"})
    assert http.BoundedRetry().get_retry_after(asked) == http.RETRY_AFTER_MAX_S


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, errors.Invalid, 2),
        (401, errors.Denied, 4),
        (403, errors.Denied, 4),
        (404, errors.NotFound, 5),
        (409, errors.Conflict, 9),
        (412, errors.Conflict, 9),
        (413, errors.Invalid, 2),
        (500, errors.ServerFault, 3),
    ],
)
def test_refusals_are_errors_of_a_kind(script, client, status, kind, code):
    script.refuse(status, "priority: must be 1 to 255")
    with pytest.raises(kind) as refused:
        client.get("submit", "/tasks")
    error = refused.value
    assert (error.message, error.exit_code, error.request_id) == (
        "submit: priority: must be 1 to 255",
        code,
        "req-7",
    )


def test_answer_of_somebody_else_is_no_result(script, client):
    script.reply(200, b"<html>hello</html>", Content_Type="text/html")
    with pytest.raises(errors.ServerFault, match="not a JSON object"):
        client.get("bots", "/bots")


def test_redirect_is_not_followed_with_the_key(script, client):
    script.reply(302, {}, Location="http://elsewhere.example/")
    with pytest.raises(errors.ServerFault, match="redirects to http://elsewhere"):
        client.get("bots", "/bots")


def test_text_of_a_server_cannot_steer_the_terminal(script, client):
    script.refuse(404, "no task \x1b[2J\nerror: fake")
    with pytest.raises(errors.NotFound) as refused:
        client.get("task", "/tasks/x")
    assert refused.value.message == "task: no task \\x1b[2J\\nerror: fake"
