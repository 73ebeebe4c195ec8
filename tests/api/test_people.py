"""Who may ask what: the key, the cookie, nobody; every route is closed."""

import re
from dataclasses import replace

import pytest

from botapi import app as composition
from botapi.api import people
from botapi.api.routes import ROOT, TABLE
from botapi.concurrency import Threads
from botapi.door import VERBS
from botapi.transactions.create_api_key import revoke_api_key
from tests.fakes.person import Person

READS = [
    "/tasks",
    "/bots",
    "/bots/vm1",
    "/bots/vm1/events",
    "/whoami",
    "/config/bots.cfg",
    "/audit",
]
CHANGES = ["/tasks", "/tasks/collect", "/tasks/x/cancel", "/bootstrap-tokens"]


def check_unauthenticated(reply):
    assert (reply.status_code, reply.json["code"]) == (401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.control("people.roles")
@pytest.mark.parametrize("method", VERBS)
def test_every_path_is_closed_for_a_stranger(client, method):
    for path in [*TABLE, "/nothing/here"]:
        concrete = re.sub("<[^>]*>", "x", path)
        assert client.open(ROOT + concrete, method=method).status_code == 401, path


def test_whoami(admin):
    found = admin.get("/whoami").json
    assert re.fullmatch("[0-9a-v]{8}", found.pop("api_key"))
    assert found == {
        "actor": "alice",
        "role": "admin",
        "identity": "user:alice",
        "grants": [{"role": "admin", "pool": None}],
        "scope": None,
        "expires_at": None,
    }


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic YTpi",
        "Bearer skep_00000000_" + "x" * 43,
        "skep",
        "Bearer é",
    ],
)
def test_bad_key_is_401_in_one_wording(client, header):
    reply = client.get("/api/v1/whoami", headers={"Authorization": header} if header else {})
    check_unauthenticated(reply)


@pytest.mark.control("people.roles")
def test_wrong_secret_and_unknown_id_look_alike(client, admin_key):
    wrong = Person(client, admin_key[:-1] + ("x" if admin_key[-1] != "x" else "y")).get("/whoami")
    unknown = Person(client, "skep_vvvvvvvv_" + admin_key[14:]).get("/whoami")
    for reply in (wrong, unknown):
        check_unauthenticated(reply)
    assert wrong.json["detail"] == unknown.json["detail"]


def test_key_in_a_cookie_or_the_query_is_nothing(client, admin_key):
    client.set_cookie(people.SESSION_COOKIE, admin_key)
    check_unauthenticated(client.get("/api/v1/whoami"))
    check_unauthenticated(client.get(f"/api/v1/whoami?token={admin_key}"))


@pytest.fixture
def open_client(settings, store, clock, rng):
    """A server that anybody may read."""
    settings = replace(settings, anonymous_read=True)
    parts = composition.build(settings, store, Threads(), clock, rng)
    yield composition.create_app(parts).test_client()
    parts.release()


@pytest.mark.parametrize("path", READS)
def test_anybody_may_read_where_that_is_allowed(client, open_client, path):
    assert client.get(ROOT + path).status_code == 401
    status = open_client.get(ROOT + path).status_code
    assert status == 403 if path in {"/audit", "/config/bots.cfg"} else status in {200, 404}


def test_anybody_has_a_name(open_client):
    found = open_client.get("/api/v1/whoami").json
    assert (found["identity"], found["role"]) == ("anonymous:anonymous", "viewer")


@pytest.mark.control("people.roles")
@pytest.mark.parametrize("path", CHANGES)
def test_anybody_may_change_nothing(open_client, path):
    check_unauthenticated(open_client.post(ROOT + path, json={}))


def test_wrong_key_is_not_taken_for_anybody(open_client):
    check_unauthenticated(Person(open_client, "skep_wrong").get("/tasks"))


@pytest.mark.control("people.roles")
def test_page_session_reads_but_never_changes(client, parts, admin_key):
    cookie, person = people.sign_in(parts.api, admin_key)
    client.set_cookie(people.SESSION_COOKIE, cookie)
    assert client.get("/api/v1/whoami").json["actor"] == person.name == "alice"
    for path in CHANGES:
        check_unauthenticated(client.post(ROOT + path, json={}))


def test_page_session_ends_with_its_key_and_its_time(client, parts, admin_key, store, clock):
    cookie, _ = people.sign_in(parts.api, admin_key)
    assert people.person_of_session(parts.api, cookie).name == "alice"
    clock.advance(people.SESSION_LIFE_S + 1)
    assert people.person_of_session(parts.api, cookie) is None
    cookie, _ = people.sign_in(parts.api, admin_key)
    revoke_api_key(store, admin_key.split("_")[1], now_ms=clock.now_ms())
    assert people.person_of_session(parts.api, cookie) is None


def test_texts_signed_for_something_else_are_no_session(parts, admin_key):
    _, person = people.sign_in(parts.api, admin_key)
    token = people.form_token(parts.api, person.session_id)
    assert people.person_of_session(parts.api, token) is None
    assert people.is_form_token(parts.api, person.session_id, token)
    assert not people.is_form_token(parts.api, "other", token)
    assert not people.is_form_token(parts.api, "", people.form_token(parts.api, ""))
