"""Errors: one form, one line, the request id, and never a stack of frames."""

import re
from pathlib import Path

import pytest

from botapi.api.error_codes import CODES
from botapi.domain.errors import Code, Refusal
from botapi.store.protocol import Outage


def check(reply, status, code, *more):
    assert reply.content_type == "application/problem+json"
    assert set(reply.json) == {"type", "title", "status", "detail", "code", "instance", *more}
    assert reply.json["type"] == f"/api/v1/errors#{code}"
    assert (reply.status_code, reply.json["status"], reply.json["code"]) == (status, status, code)
    assert reply.json["instance"] == reply.headers["X-Request-Id"]
    assert "\n" not in reply.json["detail"]
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["", "/", "/nope", "/tasks/1/2/3", "/whoami/", "/config/x"])
def test_unknown_path_is_404(admin, path):
    reply = admin.get(path)
    if path == "":
        assert reply.status_code == 308 or reply.json["code"] == "not_found"
    else:
        check(reply, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/tasks", "GET, POST"),
        ("POST", "/bots", "GET"),
        ("GET", "/tasks/x/cancel", "POST"),
        ("PUT", "/bots/vm1", "DELETE, GET"),
        ("OPTIONS", "/whoami", "GET"),
        ("DELETE", "/bootstrap-tokens", "GET, POST"),
    ],
)
def test_wrong_method_is_405_and_says_which(admin, method, path, allowed):
    reply = admin.call(method, path)
    check(reply, 405, "method_not_allowed")
    assert reply.headers["Allow"] == allowed


def test_head_is_a_get_without_a_body(admin):
    reply = admin.call("HEAD", "/whoami")
    assert (reply.status_code, reply.data) == (200, b"")


def test_store_that_is_away_is_503_with_retry_after(admin, parts, monkeypatch):
    def away(*_args, **_more):
        raise Outage("disk\nfull")

    monkeypatch.setattr(parts.store, "find", away)
    reply = admin.get("/tasks")
    check(reply, 503, "unavailable", "retry_after_s")
    assert int(reply.headers["Retry-After"]) == reply.json["retry_after_s"] > 0


def test_mistake_of_ours_is_500_in_one_line(admin, parts, monkeypatch, caplog):
    def broken(*_args, **_more):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(parts.store, "find", broken)
    reply = admin.get("/tasks")
    check(reply, 500, "internal")
    assert "secret" not in reply.text
    assert reply.json["instance"] in caplog.text


def test_every_kind_of_error_has_the_form(admin, anybody, ready_bot):
    check(anybody.get("/tasks"), 401, "unauthenticated")
    check(admin.post("/tasks", {}), 400, "invalid_argument", "errors")
    check(admin.get("/tasks/zz"), 404, "not_found")
    body = {"command": ["x"], "dimensions": {"os": ["BeOS"]}}
    check(admin.post("/tasks", body), 409, "no_capacity")
    check(admin.post("/tasks", data=b"x" * 1_100_000), 413, "too_large")


def test_answers_carry_a_request_id_and_are_not_kept(admin):
    reply = admin.get("/whoami")
    assert reply.headers["X-Request-Id"]
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.content_type == "application/json"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"command": ["x"], "priority": 0}, "/priority"),
        ({"command": ["x"], "priority": "high"}, "/priority"),
        ({"slices": [{"command": ["x"], "expiration_s": 1}]}, "/slices/0/expiration_s"),
    ],
)
def test_complaint_about_a_place_has_its_pointer_too(admin, body, pointer):
    reply = admin.post("/tasks", body)
    check(reply, 400, "invalid_argument", "errors")
    (found,) = reply.json["errors"]
    assert found["pointer"] == pointer
    assert reply.json["detail"] == f"{pointer}: {found['detail']}"


def test_complaint_about_no_place_in_the_body_has_no_pointer(admin):
    check(admin.post("/tasks", data=b"{"), 400, "invalid_argument")
    check(admin.get("/tasks?limit=0"), 400, "invalid_argument")


def test_too_many_calls_are_429_that_say_when_to_come_back(admin, parts, monkeypatch):
    def full(*_args, **_more):
        raise Refusal(Code.RESOURCE_EXHAUSTED, "too many")

    monkeypatch.setattr(parts.store, "find", full)
    reply = admin.get("/tasks")
    check(reply, 429, "resource_exhausted", "retry_after_s")
    assert int(reply.headers["Retry-After"]) == reply.json["retry_after_s"] > 0


def test_type_leads_to_what_explains_the_code(admin):
    place, _, code = admin.get("/nope").json["type"].partition("#")
    found = admin.get(place.removeprefix("/api/v1")).json["items"]
    assert [one["status"] for one in found if one["code"] == code] == [404]


def test_page_of_errors_lists_every_code():
    page = (Path(__file__).parents[2] / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| ([0-9]+) \| (.*) \|$", page, re.MULTILINE)
    expected = [(code, str(status), text) for code, (status, text) in sorted(CODES.items())]
    assert rows == expected


def test_every_code_of_a_refusal_is_explained():
    assert [code for code in Code if code.lower() not in CODES] == []
