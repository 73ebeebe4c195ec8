"""Signing in at an issuer, the session's state for scripts, and what its token is good for."""

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from botapi import app as composition
from botapi.auth.directory import User
from botapi.cfg.bundle import Source
from botapi.concurrency import Threads
from botapi.transactions.change_user import change_user
from botapi.transactions.create_api_key import revoke_api_key
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG
from tests.fakes.issuer import IssuerServer

ALICE = "user:alice@example.com"
SETTINGS = """sign_in {{ issuer: "{0}" client_id: "skep" email_domain: "example.com" }}
grant {{ role: VIEWER to: "{1}" }}"""


@pytest.fixture
def issuer():
    server = IssuerServer()
    yield server
    server.close()


@pytest.fixture
def signing(settings, store, clock, rng, issuer):
    """A server that knows the issuer, with its parts."""
    settings = replace(settings, sign_in_secret="s3cret")
    issuer.client_secret = "s3cret"
    parts = composition.build(settings, store, Threads(), clock, rng)
    source = Source(LOOPBACK_CFG, {}, "", SETTINGS.format(issuer.url, ALICE))
    push_config(store, source, parent="", author="test", now_ms=clock.now_ms())
    yield parts, composition.create_app(parts).test_client()
    parts.release()


def begin(client, following="/tasks?q=x"):
    reply = client.get("/auth/openid/login", query_string={"r": following})
    assert reply.status_code == 302
    return reply.headers["Location"]


def come_back(client, back):
    return client.get("/auth/openid/callback", query_string=back)


def state(client, **headers):
    return client.get("/auth/openid/state", headers=headers)


def bearer(client, token, path="/api/v1/whoami"):
    return client.get(path, headers={"Authorization": f"Bearer {token}"})


def prpc(client, token):
    return client.post(
        "/prpc/swarming.v2.Swarming/GetDetails",
        json={},
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
    ).headers["X-Prpc-Grpc-Code"]


def test_sign_in_at_the_issuer_leads_back_with_a_session(signing, issuer):
    parts, client = signing
    assert client.get("/bots").status_code == 303
    reply = come_back(client, issuer.authorize(begin(client)))
    assert (reply.status_code, reply.headers["Location"]) == (302, "/tasks?q=x")
    assert reply.headers["Cache-Control"] == "no-store"
    found = state(client).json
    assert (found["identity"], found["email"]) == (ALICE, "alice@example.com")
    assert client.get("/bots").status_code == 200
    assert parts.api.directory.user(ALICE) == User(ALICE, created_ms=parts.clock.now_ms())


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"email_verified": False}, 403),
        ({"email": None}, 403),
        ({"email": "eve@elsewhere.example"}, 403),
        ({"nonce": "another"}, 401),
        ({"nonce": None}, 401),
        ({"aud": "another"}, 401),
        ({"iss": "https://another.example"}, 401),
        ({"exp": 1}, 401),
    ],
)
def test_identity_that_does_not_hold_is_refused(signing, issuer, claims, status):
    _, client = signing
    reply = come_back(client, issuer.authorize(begin(client), **claims))
    assert reply.status_code == status
    assert state(client).json == {"identity": "anonymous:anonymous"}


def test_answer_that_this_browser_did_not_ask_for_is_refused(signing, issuer):
    parts, client = signing
    other = composition.create_app(parts).test_client()
    stolen = issuer.authorize(begin(other))
    assert come_back(client, stolen).status_code == 403
    begin(client)
    assert come_back(client, stolen).status_code == 403
    assert come_back(client, {"state": "x", "code": "y"}).status_code == 403
    assert come_back(client, {"error": "access_denied"}).status_code == 403
    assert issuer.asked.count("/token") == 0


def test_code_is_good_once_and_with_the_secret_only(signing, issuer):
    _, client = signing
    back = issuer.authorize(begin(client))
    issuer.client_secret = "another"
    assert come_back(client, back).status_code == 503
    issuer.client_secret = "s3cret"
    assert come_back(client, back).status_code == 503


def test_issuer_that_does_not_answer_is_told_in_a_line(signing, issuer):
    _, client = signing
    issuer.answers["/.well-known/openid-configuration"] = (500, {}, b"")
    reply = client.get("/auth/openid/login")
    assert reply.status_code == 503
    assert "not possible now" in reply.text


def test_disabled_user_cannot_sign_in_and_loses_the_session(signing, issuer, store):
    _, client = signing
    come_back(client, issuer.authorize(begin(client)))
    token = state(client).json["accessToken"]
    assert bearer(client, token).status_code == 200
    change_user(store, ALICE, lambda user: replace(user, disabled_ms=1))
    assert state(client).json == {"identity": "anonymous:anonymous"}
    assert (bearer(client, token).status_code, prpc(client, token)) == (401, "16")
    assert come_back(client, issuer.authorize(begin(client))).status_code == 401


@pytest.mark.spec("prpc:8.3.p1", "prpc:8.3.1.1", "prpc:8.3.1.2", "prpc:8.3.1.3", "prpc:9.1.18")
def test_state_names_who_is_signed_in_and_gives_a_token(browser, clock):
    reply = browser.get("/auth/openid/state")
    assert reply.status_code == 200
    assert (reply.content_type, reply.headers["Cache-Control"]) == ("application/json", "no-store")
    found = reply.json
    assert (found["identity"], found["email"]) == ("user:alice", "alice")
    assert found["accessTokenExpiresIn"] >= 3600
    assert found["accessTokenExpiry"] == clock.now_ms() // 1000 + found["accessTokenExpiresIn"]
    assert bearer(browser.client, found["accessToken"]).json["identity"] == "user:alice"
    assert prpc(browser.client, found["accessToken"]) == "0"
    assert prpc(browser.client, found["accessToken"][:-1]) == "16"
    clock.advance(found["accessTokenExpiresIn"] + 1)
    assert bearer(browser.client, found["accessToken"]).status_code == 401


@pytest.mark.spec("prpc:8.3.p1", "prpc:8.3.1.1")
def test_state_without_a_session_is_anonymous_and_not_for_other_sites(client):
    assert client.get("/auth/openid/state").json == {"identity": "anonymous:anonymous"}
    for site, status in (
        ("none", 200),
        ("same-origin", 200),
        ("same-site", 403),
        ("cross-site", 403),
        ("", 403),
    ):
        reply = client.get("/auth/openid/state", headers={"Sec-Fetch-Site": site})
        assert reply.status_code == status, site


@pytest.mark.control("people.sessions")
def test_token_dies_with_its_session(browser):
    token = browser.get("/auth/openid/state").json["accessToken"]
    cookie = browser.client.get_cookie("skep_session").value
    reply = browser.get("/auth/openid/logout?r=/signin")
    assert (reply.status_code, reply.headers["Location"]) == (302, "/signin")
    assert bearer(browser.client, token).status_code == 401
    assert prpc(browser.client, token) == "16"
    browser.client.set_cookie("skep_session", cookie)
    assert browser.get("/auth/openid/state").json == {"identity": "anonymous:anonymous"}
    assert browser.get("/bots").status_code == 303


@pytest.mark.control("people.sessions")
def test_session_and_token_die_with_the_api_key(browser, store, admin_key, clock):
    token = browser.get("/auth/openid/state").json["accessToken"]
    revoke_api_key(store, admin_key.split("_")[1], now_ms=clock.now_ms())
    assert bearer(browser.client, token).status_code == 401
    assert browser.get("/auth/openid/state").json == {"identity": "anonymous:anonymous"}


def test_access_token_is_no_session_and_a_session_is_no_token(browser):
    token = browser.get("/auth/openid/state").json["accessToken"]
    cookie = browser.client.get_cookie("skep_session").value
    assert bearer(browser.client, cookie).status_code == 401
    assert bearer(browser.client, f"skept_{cookie}").status_code == 401
    browser.client.set_cookie("skep_session", token)
    assert browser.get("/bots").status_code == 303
    browser.client.set_cookie("skep_session", token.removeprefix("skept_"))
    assert browser.get("/bots").status_code == 303


@pytest.mark.parametrize("r", ["//evil.example", "https://evil.example/", "/\\evil", "evil", ""])
def test_only_paths_of_this_server_are_gone_back_to(browser, client, r):
    reply = browser.client.get("/auth/openid/logout", query_string={"r": r})
    assert reply.headers["Location"] == "/"
    reply = client.get("/auth/openid/login", query_string={"r": r})
    assert reply.headers["Location"] == "/signin?next=%2F"


def test_login_without_an_issuer_leads_to_our_own_page_and_back(client):
    location = client.get("/auth/openid/login?r=/tasks").headers["Location"]
    assert parse_qs(urlsplit(location).query) == {"next": ["/tasks"]}


def test_another_site_signs_nobody_out(browser):
    reply = browser.client.get("/auth/openid/logout", headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.status_code == 403
    assert browser.get("/bots").status_code == 200
