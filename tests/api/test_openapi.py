"""The OpenAPI document: valid, whole, and true of what the server answers."""

import json
import re

import pytest
from openapi_spec_validator import validate

from botapi.api import openapi
from botapi.api.routes import OPENAPI, TABLE
from tools.openapi import render

DOCUMENT = json.loads(OPENAPI.read_text())
CALLS = [f"{method} {path}" for path, methods in TABLE.items() for method in methods]


def test_document_is_as_it_would_be_written_now():
    assert render() == OPENAPI.read_text(), "make openapi"


def test_document_is_valid_openapi():
    validate(DOCUMENT)


def test_every_call_is_described_and_nothing_else():
    assert set(CALLS) == set(openapi.CALLS)


def test_every_schema_is_used():
    text = json.dumps(DOCUMENT)
    names = DOCUMENT["components"]["schemas"]
    assert [name for name in names if f'schemas/{name}"' not in text] == []


def test_server_gives_the_document_out(admin, anybody):
    assert admin.get("/openapi.json").json == DOCUMENT


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_query_parameters_are_those_that_the_call_takes(admin, ready_bot, call):
    """The complaint about an unknown parameter lists those there are."""
    method, path = call.split(" ")
    task = admin.submit("x")["task_id"]
    path = path.replace("<task_id>", task).replace("<path:bot_id>", "vm1")
    path = path.replace("<digest>/<size>", f"{'0' * 64}/0").replace("outputs.<kind>", "outputs.tar")
    path = re.sub("<[^>]*>", "x", path)
    body = {"data": b"x"} if method == "PUT" and "blobs" in path else {"json": {}}
    reply = admin.call(method, f"{path}?zz=1", **({} if method == "GET" else body))
    described = sorted(openapi.CALLS[call].query.split())
    said = re.search("no such parameter; there are: (.*)$", reply.json["detail"])
    if said is None:
        assert reply.status_code in {400, 403, 404, 409}, reply.text
        assert described in ([], ["file_name", "allow_unsigned"]), reply.text
    else:
        assert sorted(set(said[1].split(", ")) - {"none"}) == described


@pytest.mark.parametrize(
    "path", [path for path, by in TABLE.items() if "GET" in by and "<" not in path]
)
def test_answer_of_every_plain_read_is_as_described(admin, ready_bot, path):
    """`Person` compares; here is something to be listed."""
    task = admin.submit("x")["task_id"]
    admin.post("/users", {"identity": "user:bob", "grants": [{"role": "viewer", "pool": None}]})
    admin.post("/api-keys", {"name": "ci", "owner": "user:bob"})
    admin.post("/bootstrap-tokens", {})
    admin.call("PUT", "/secrets/s", json={"pools": ["*"], "value": "v"})
    admin.post(f"/tasks/{task}/cancel", {"kill_running": False})
    assert admin.get(path).status_code == 200


def test_answers_about_people_are_as_described(admin):
    made = admin.post("/users", {"identity": "user:bob", "grants": []})
    assert made.status_code == 201
    changed = admin.call("PATCH", "/users/user:bob", json={"disabled": True, "reason": "gone"})
    assert changed.status_code == 200
    key = admin.post("/api-keys", {"name": "ci", "owner": "user:alice"})
    assert key.status_code == 201
    assert admin.call("DELETE", f"/api-keys/{key.json['key_id']}").status_code == 200
