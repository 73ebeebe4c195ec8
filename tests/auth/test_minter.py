"""Token exchange (RFC 8693) against a real endpoint on loopback."""

import json
import threading

import jwt
import pytest

from botapi.auth import keys as key_room
from botapi.auth import minter as room
from botapi.auth.keys import OIDC, KeyRing, new_key
from botapi.auth.minter import (
    MAX_BYTES,
    MAX_EXCHANGES,
    MAX_LIFE_S,
    MAX_TOKEN_CHARS,
    TokenExchangeMinter,
    exchange_token,
)
from botapi.auth.oidc_issuer import OidcIssuer
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import TokenExchange
from botapi.domain.service_accounts import Subject
from botapi.store.memory import MemoryStore
from botapi.transactions.create_keys import create_keys
from tests.auth.fixed import CountingRng, FixedClock
from tests.fakes.sts_stub import sts_stub

ACCOUNT = "b@x.example"
ISSUER = "https://fleet.example"
SUBJECT = Subject("task", ACCOUNT, "ci", "vm1", run_id="a1")


@pytest.fixture(scope="module")
def rsa_secret():
    return new_key(OIDC, FixedClock(), CountingRng()).secret


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def sts():
    with sts_stub() as stub:
        yield stub


@pytest.fixture
def exchanges(sts):
    return {ACCOUNT: TokenExchange(ACCOUNT, sts.url, "https://sts.example")}


@pytest.fixture
def minter(clock, exchanges, rsa_secret, monkeypatch):
    monkeypatch.setattr(key_room, "_rsa_secret", lambda: rsa_secret)
    store = MemoryStore(Threads(), clock)
    ring = KeyRing(store, lambda p, made: create_keys(store, p, made), clock, CountingRng())
    issuer = OidcIssuer(ring, Threads().native)
    return TokenExchangeMinter(lambda: exchanges, issuer, Threads(), clock, CountingRng())


def token(minter, scopes=("email",), account=ACCOUNT, subject=SUBJECT):
    return minter.access_token(ISSUER, account, scopes, subject)


def refused(minter, code, text, **more):
    with pytest.raises(Refusal) as error:
        token(minter, **more)
    assert error.value.code is code
    assert text in error.value.message


def test_exchange_shows_an_identity_token_and_returns_the_access_token(minter, sts, clock):
    got = token(minter, ["b", "a", "b"])
    assert (got.text, got.expires_s) == ("at-1", clock.now_ms() // 1000 + 3600)
    (form,) = sts.asked
    shown = jwt.decode(form.pop("subject_token"), options={"verify_signature": False})
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "scope": "a b",
    }
    assert (shown["iss"], shown["aud"]) == (ISSUER, "https://sts.example")
    assert (shown["sub"], shown["run_id"]) == (f"task:ci:{ACCOUNT}", "a1")
    assert sts.types == ["application/x-www-form-urlencoded"]


@pytest.mark.spec("13.1.9")
def test_token_is_given_again_while_more_than_five_minutes_are_left(minter, sts, clock):
    first = token(minter)
    sts.grant("at-2")
    clock.advance(3600 - 301)
    assert token(minter, subject=Subject("task", ACCOUNT, "ci", "vm2", run_id="b1")) is first
    clock.advance(1)
    assert token(minter).text == "at-2"


@pytest.mark.parametrize(
    "more",
    [
        {"scopes": ("other",)},
        {"scopes": ("email", "other")},
        {"subject": Subject("task", ACCOUNT, "other", "vm1")},
        {"subject": Subject("system", ACCOUNT, "ci", "vm1")},
    ],
)
def test_token_is_shared_by_nobody_with_other_scopes_pool_or_kind(minter, sts, more):
    token(minter)
    sts.grant("at-2")
    assert token(minter, **more).text == "at-2"
    assert token(minter).text == "at-1"


def test_token_is_not_given_again_when_settings_name_another_endpoint(minter, sts, exchanges):
    token(minter)
    sts.grant("at-2")
    exchanges[ACCOUNT] = TokenExchange(ACCOUNT, sts.url + "?v=2", "https://sts.example")
    assert token(minter).text == "at-2"


def test_exchange_of_the_account_goes_before_that_of_any_other(minter, sts, exchanges):
    exchanges["*"] = TokenExchange("*", "http://127.0.0.1:9/", "x")
    assert token(minter).text == "at-1"
    del exchanges[ACCOUNT]
    refused(minter, Code.INTERNAL, "http://127.0.0.1:9/: ")


def test_account_without_an_exchange_is_refused(minter, exchanges):
    exchanges.clear()
    refused(minter, Code.FAILED_PRECONDITION, f"no token_exchange in settings.cfg is for {ACCOUNT}")


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refusal_of_the_endpoint_is_passed_on(minter, sts, status):
    sts.answer(status, {"error": "invalid_grant", "error_description": "no\nway"})
    refused(minter, Code.FAILED_PRECONDITION, f"answers {status}: invalid_grant: no way")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_endpoint_that_may_answer_later_is_transient(minter, sts, status):
    sts.answer(status, b"<html>")
    refused(minter, Code.INTERNAL, f"answers {status}); try again")
    sts.grant()
    assert token(minter).text == "at-1"  # nothing of the failure is kept


@pytest.mark.control("requests.ssrf")
def test_redirect_is_not_followed(minter, sts):
    sts.answer(307, b"", Location=sts.url)
    refused(minter, Code.FAILED_PRECONDITION, "answers 307")
    assert len(sts.asked) == 1


GOOD = {"access_token": "t", "token_type": "Bearer", "expires_in": 301}


@pytest.mark.spec("13.1.9")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"hello", "no access_token"),
        (b"[]", "no access_token"),
        (b"[" * 50_000, "no access_token"),
        ({**GOOD, "access_token": ""}, "no access_token"),
        ({**GOOD, "access_token": 5}, "no access_token"),
        ({**GOOD, "access_token": "ä"}, "no access_token"),
        ({**GOOD, "access_token": "x" * (MAX_TOKEN_CHARS + 1)}, "no access_token"),
        ({**GOOD, "token_type": "mac"}, "no bearer token"),
        ({**GOOD, "expires_in": 300}, "expires_in is not more than 300"),
        ({**GOOD, "expires_in": None}, "expires_in is not more than 300"),
        ({**GOOD, "expires_in": "3600"}, "expires_in is not more than 300"),
        ({**GOOD, "expires_in": True}, "expires_in is not more than 300"),
        (b" " * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
    ],
)
def test_answer_that_is_no_good_token_is_refused(minter, sts, body, text):
    sts.answer(200, body)
    refused(minter, Code.FAILED_PRECONDITION, text)


@pytest.mark.spec("13.1.9")
def test_token_of_just_over_five_minutes_is_taken_and_a_long_life_is_not_believed(
    minter, sts, clock
):
    sts.answer(200, {**GOOD, "token_type": "bearer"})
    now_s = clock.now_ms() // 1000
    assert token(minter).expires_s == now_s + 301
    sts.answer(200, json.dumps({**GOOD, "expires_in": 10**400}).encode())
    assert token(minter, ["long"]).expires_s == now_s + MAX_LIFE_S


@pytest.mark.control("requests.ssrf")
@pytest.mark.parametrize(
    "endpoint", ["http://sts.example/token", "ftp://127.0.0.1/", "https://u:p@sts.example/", "x"]
)
def test_endpoint_must_be_https_or_on_loopback(endpoint):
    with pytest.raises(Refusal) as error:
        exchange_token(endpoint, "subject", ["email"], 0)
    assert error.value.code is Code.FAILED_PRECONDITION


def test_slow_endpoint_is_transient(minter, sts, monkeypatch):
    monkeypatch.setattr(room, "TIMEOUT_S", 0.05)
    sts.gate.clear()
    refused(minter, Code.INTERNAL, "Timeout")


def in_threads(*calls):
    """Start every call on a thread of its own; the results in that order, once all ended."""
    results = [None] * len(calls)

    def run(number, call):
        try:
            results[number] = call()
        except Refusal as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    return threads, results


def test_one_exchange_serves_all_who_wait_for_it(minter, sts):
    sts.gate.clear()
    threads, results = in_threads(*[lambda: token(minter).text] * 5)
    assert sts.arrived.acquire(timeout=10)
    sts.gate.set()
    for thread in threads:
        thread.join(10)
    assert results == ["at-1"] * 5
    assert len(sts.asked) == 1


def test_only_so_many_exchanges_run_at_once(minter, sts):
    sts.gate.clear()
    calls = [lambda n=n: token(minter, [f"scope{n}"]).text for n in range(MAX_EXCHANGES)]
    threads, results = in_threads(*calls)
    for _ in calls:
        assert sts.arrived.acquire(timeout=10)
    refused(minter, Code.INTERNAL, "other exchanges are under way", scopes=["more"])
    sts.gate.set()
    for thread in threads:
        thread.join(10)
    assert results == ["at-1"] * MAX_EXCHANGES
    assert token(minter, ["more"]).text == "at-1"


def test_only_so_many_tokens_are_kept(minter, sts, monkeypatch):
    monkeypatch.setattr(room, "MAX_TOKENS", 2)
    for scope in ("a", "b", "a", "c"):
        token(minter, [scope])
    assert len(sts.asked) == 3
    token(minter, ["a"])
    assert len(sts.asked) == 3  # the one that was used last of all is kept
    token(minter, ["b"])
    assert len(sts.asked) == 4


def test_token_is_never_shown(minter, sts, caplog):
    sts.grant("hunter2")
    assert "hunter2" not in repr(token(minter)) + caplog.text
