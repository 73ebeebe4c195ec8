"""Signing in and out, and forms that others made."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from botapi.transactions.create_api_key import revoke_api_key
from botapi.web.signin import local_path
from tests.fakes.person import new_key


def cookie(reply, name="skep_session"):
    """The Set-Cookie line of this name."""
    lines = [c for c in reply.headers.getlist("Set-Cookie") if c.startswith(f"{name}=")]
    return lines[0] if lines else ""


def test_sign_in_gives_a_session_and_goes_on(stranger, admin_key):
    assert stranger.get("/bots?status=idle").headers["Location"] == (
        "/signin?next=%2Fbots%3Fstatus%3Didle"
    )
    reply = stranger.sign_in(admin_key, "/bots?status=idle")
    assert (reply.status_code, reply.headers["Location"]) == (303, "/bots?status=idle")
    line = cookie(reply)
    assert "HttpOnly" in line and "SameSite=Lax" in line and "Path=/" in line  # noqa: PT018
    assert "Secure" not in line
    assert "alice (admin)" in stranger.get("/bots").text


def test_session_cookie_is_secure_behind_https(stranger, admin_key):
    stranger.get("/signin", base_url="https://localhost")
    form = {"api_key": admin_key, "next": "/", "form_token": stranger.token("/signin")}
    reply = stranger.client.post("/signin", data=form, base_url="https://localhost")
    assert (reply.status_code, "Secure" in cookie(reply)) == (303, True)
    page = stranger.get("/signin", base_url="https://localhost")
    assert "Secure" in cookie(page, "skep_visitor")


def test_session_is_a_new_one_at_each_sign_in(stranger, admin_key):
    first = cookie(stranger.sign_in(admin_key))
    second = cookie(stranger.sign_in(admin_key))
    assert first and second and first != second  # noqa: PT018


@pytest.mark.parametrize("key", ["", "nonsense", "skep_00000000_" + "x" * 43])
def test_wrong_key_is_told_and_gives_nothing(stranger, key):
    reply = stranger.sign_in(key)
    assert (reply.status_code, cookie(reply)) == (401, "")
    assert "the API key is unknown, wrong, expired or revoked" in reply.text
    assert stranger.get("/bots").status_code == 303


@pytest.mark.control("people.csrf")
def test_sign_in_form_of_another_site_is_refused(stranger, admin_key):
    token = stranger.token("/signin")
    for form in ({"api_key": admin_key}, {"api_key": admin_key, "form_token": token + "x"}):
        reply = stranger.send("/signin", form)
        assert (reply.status_code, cookie(reply)) == (403, "")
    form = {"api_key": admin_key, "form_token": token}
    reply = stranger.send("/signin", form, {"Sec-Fetch-Site": "cross-site"})
    assert reply.status_code == 403


def test_sign_in_token_is_bound_to_the_browser(stranger, parts, admin_key):
    from botapi.app import create_app

    token = stranger.token("/signin")
    other = create_app(parts).test_client()
    other.get("/signin")
    reply = other.post("/signin", data={"api_key": admin_key, "form_token": token})
    assert reply.status_code == 403


def test_sign_out_ends_the_session(browser):
    token = browser.token("/bots")
    assert browser.send("/signout", {}).status_code == 403
    assert browser.get("/bots").status_code == 200
    reply = browser.send("/signout", {"form_token": token})
    assert (reply.status_code, reply.headers["Location"]) == (303, "/signin")
    assert browser.get("/bots").status_code == 303


def test_revoked_key_ends_the_session_at_once(browser, store, clock, admin_key):
    revoke_api_key(store, admin_key.split("_")[1], now_ms=clock.now_ms())
    assert browser.get("/bots").status_code == 303


def test_session_is_over_after_its_time(browser, clock):
    clock.advance(12 * 3600 + 1)
    assert browser.get("/bots").status_code == 303


def test_damaged_session_is_none(browser):
    browser.client.set_cookie("skep_session", "x.y.z")
    assert browser.get("/bots").status_code == 303


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "",
        "/\t/evil.example", "/a\r\nSet-Cookie: x=y", "evil", "/x" * 2000, "\\\\evil", "/ /evil",
    ],
)  # fmt: skip
def test_next_never_leads_elsewhere(stranger, admin_key, path):
    assert local_path(path) == "/"
    assert stranger.sign_in(admin_key, path).headers["Location"] == "/"


def test_next_brings_back_to_a_bot_with_an_odd_name(stranger, admin_key, make_bot):
    bot = make_bot("a?b/c%20é")
    bot.session_id = "s/1"
    bot.start()
    sent = stranger.get("/bots/a%3Fb%2Fc%2520%C3%A9?limit=5").headers["Location"]
    (_, following), *_ = parse_qsl(urlsplit(sent).query)
    reply = stranger.sign_in(admin_key, following)
    assert reply.headers["Location"] == "/bots/a%3Fb/c%2520%C3%A9?limit=5"
    assert "<h1>a?b/c%20é</h1>" in stranger.get(reply.headers["Location"]).text


def test_next_keeps_a_path_of_ours(stranger):
    assert local_path("/tasks/1?from=2&x=a%2Fb") == "/tasks/1?from=2&x=a%2Fb"
    assert 'name="next" value="/audit"' in stranger.get("/signin?next=/audit").text
    assert 'name="next" value="/"' in stranger.get("/signin?next=//evil.example").text


@pytest.fixture
def task_id(admin, ready_bot):
    return admin.submit("x")["task_id"]


def refused(browser, admin, task_id, form, headers=None):
    reply = browser.send(f"/tasks/{task_id}/cancel", form, headers)
    assert reply.status_code == 403
    assert "<h1>403 Forbidden</h1>" in reply.text
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["state"], task["killing"]) == ("PENDING", False)


@pytest.mark.control("people.csrf")
def test_form_without_its_token_changes_nothing(browser, admin, task_id):
    refused(browser, admin, task_id, {"reason": "x"})
    refused(browser, admin, task_id, {"reason": "x", "form_token": ""})
    refused(browser, admin, task_id, {"reason": "x", "form_token": "forged.token.x"})


@pytest.mark.control("people.csrf")
def test_form_with_the_token_of_another_session_changes_nothing(
    browser, stranger, admin, task_id, store, clock, rng
):
    stranger.sign_in(new_key(store, clock, rng, "mallory"))
    token = stranger.token(f"/tasks/{task_id}")
    refused(browser, admin, task_id, {"reason": "x", "form_token": token})


def test_token_of_an_earlier_session_changes_nothing(browser, admin, admin_key, task_id):
    token = browser.token(f"/tasks/{task_id}")
    browser.sign_in(admin_key)
    refused(browser, admin, task_id, {"reason": "x", "form_token": token})


@pytest.mark.control("people.csrf")
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_form_sent_by_another_site_changes_nothing(browser, admin, task_id, headers):
    token = browser.token(f"/tasks/{task_id}")
    refused(browser, admin, task_id, {"reason": "x", "form_token": token}, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "null"},
        {},
    ],
)
def test_form_of_our_own_page_is_taken(browser, admin, task_id, headers):
    form = {"reason": "wrong branch", "form_token": browser.token(f"/tasks/{task_id}")}
    reply = browser.send(f"/tasks/{task_id}/cancel", form, headers)
    assert reply.headers["Location"] == f"/tasks/{task_id}?done=canceled"
    assert admin.get(f"/tasks/{task_id}").json["state"] == "CANCELED"
    entries = admin.get("/audit").json["items"]
    assert {("alice", "task.cancel", "wrong branch"), ("alice", "task.create", "")} == {
        (entry["actor"], entry["verb"], entry["reason"]) for entry in entries
    }


def test_cancel_needs_a_session_and_a_reason(browser, stranger, admin, task_id):
    token = browser.token(f"/tasks/{task_id}")
    reply = stranger.send(f"/tasks/{task_id}/cancel", {"reason": "x", "form_token": token})
    assert (reply.status_code, reply.headers["Location"]) == (303, "/signin")
    reply = browser.send(f"/tasks/{task_id}/cancel", {"reason": " ", "form_token": token})
    assert reply.status_code == 400
    assert admin.get(f"/tasks/{task_id}").json["state"] == "PENDING"


def test_form_that_is_too_large_is_refused(browser, task_id):
    reply = browser.send(f"/tasks/{task_id}/cancel", {"reason": "x" * 70_000})
    assert (reply.status_code, reply.headers["Connection"]) == (413, "close")


def test_api_key_never_opens_a_page(stranger, admin_key):
    reply = stranger.get("/bots", headers={"Authorization": f"Bearer {admin_key}"})
    assert reply.status_code == 303
    stranger.client.set_cookie("skep_session", admin_key)
    assert stranger.get("/bots").status_code == 303
