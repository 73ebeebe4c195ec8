"""Keys of issuers: fetched seldom, kept through outages, from where the settings say."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from botapi.auth import jwks
from botapi.auth.jwks import (
    AGAIN_S,
    MAX_BYTES,
    MAX_ISSUERS,
    MAX_KEYS,
    REFRESH_S,
    RETRY_S,
    FetchFailed,
    KeySets,
    fetch_url,
    load_key_set,
    read_key_set,
)
from botapi.auth.outside import url_problem
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import OidcProvider
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import DISCOVERY, Issuer, IssuerServer

URI = "https://id.example/keys"
PROVIDER = OidcProvider("https://id.example", URI)


class Web:
    """What the test lets an issuer answer: bytes, or an exception."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.asked = []
        self.fails = ""

    def __call__(self, url):
        self.asked.append(url)
        if self.fails:
            raise FetchFailed(self.fails)
        return json.dumps(self.issuer.jwks()).encode()


class Now(Threads):
    """Background work is done before `spawn` returns."""

    def spawn(self, fn, *args):
        fn(*args)


@pytest.fixture
def web():
    return Web(Issuer())


@pytest.fixture
def key_sets(web, clock):
    return KeySets(Now(), clock, web)


def has(key_sets, key_id="k1", provider=PROVIDER):
    return key_sets.find(provider, key_id, "RS256") is not None


def test_keys_are_fetched_once_and_again_after_an_hour(key_sets, web, clock):
    assert has(key_sets)
    clock.advance(REFRESH_S - 1)
    assert has(key_sets)
    assert web.asked == [URI]
    clock.advance(1)
    assert has(key_sets)
    assert web.asked == [URI] * 2
    assert has(key_sets)
    assert web.asked == [URI] * 2


def test_unknown_key_is_looked_for_at_most_once_a_minute(key_sets, web, clock):
    assert has(key_sets)
    assert not has(key_sets, "k2")
    assert web.asked == [URI]
    clock.advance(AGAIN_S)
    web.issuer.add("k2", "RS256")
    assert has(key_sets, "k2")
    assert web.asked == [URI] * 2
    assert not has(key_sets, "k3")
    assert web.asked == [URI] * 2


def test_key_that_the_issuer_withdrew_is_no_good_after_the_next_fetch(key_sets, web, clock):
    assert has(key_sets)
    web.issuer.keys = {}
    web.issuer.add("k2", "RS256")
    clock.advance(REFRESH_S)
    has(key_sets)
    assert not has(key_sets)


def test_last_good_keys_are_kept_through_an_outage(key_sets, web, clock, caplog):
    assert has(key_sets)
    web.fails = "it answers 503"
    clock.advance(REFRESH_S * 20)
    assert has(key_sets)
    assert "it answers 503; the last good keys are used" in caplog.text
    assert len(web.asked) == 2
    assert has(key_sets)
    assert len(web.asked) == 2
    clock.advance(AGAIN_S)
    assert has(key_sets)
    assert len(web.asked) == 3


def test_keys_that_were_never_had_are_a_failure_of_the_moment(key_sets, web, clock):
    web.fails = "it answers 503"
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            has(key_sets)
        assert caught.value.code is Code.INTERNAL
        assert "https://id.example cannot be had now (it answers 503)" in caught.value.message
    assert len(web.asked) == 1
    web.fails = ""
    clock.advance(RETRY_S)
    assert has(key_sets)


def test_keys_in_the_settings_are_used_without_asking_anybody(key_sets, web):
    provider = OidcProvider("https://id.example", URI, json.dumps(web.issuer.jwks()))
    assert has(key_sets, provider=provider)
    assert not has(key_sets, "k2", provider)
    with pytest.raises(Refusal) as caught:
        has(key_sets, provider=OidcProvider("https://id.example", "", "{}"))
    assert caught.value.code is Code.INTERNAL
    assert web.asked == []


def test_one_fetch_at_a_time_and_all_who_wait_get_its_result(web, clock):
    begun, go_on = threading.Event(), threading.Event()

    def slow(url):
        begun.set()
        assert go_on.wait(10)
        return web(url)

    key_sets = KeySets(Threads(), clock, slow)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(has, key_sets) for _ in range(4)]
        assert begun.wait(10)
        go_on.set()
        assert [future.result(10) for future in found] == [True] * 4
    assert web.asked == [URI]


def test_whoever_waits_for_another_issuer_too_long_is_told(web, clock, monkeypatch):
    monkeypatch.setattr(jwks, "WAIT_S", 0.01)
    begun, go_on = threading.Event(), threading.Event()

    def slow(url):
        begun.set()
        assert go_on.wait(10)
        return web(url)

    key_sets = KeySets(Threads(), clock, slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(has, key_sets)
        assert begun.wait(10)
        with pytest.raises(Refusal, match="other issuers are slow"):
            has(key_sets, provider=OidcProvider("https://b.example", "https://b.example/k"))
        go_on.set()
        assert first.result(10)


def test_issuers_are_remembered_up_to_a_number(key_sets, web):
    for number in range(MAX_ISSUERS + 5):
        assert has(key_sets, provider=OidcProvider(f"https://{number}.example", URI))
    assert len(key_sets._entries) == MAX_ISSUERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not a key set"),
        ('{"keys": {}}', "not a key set"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), "not a key set of at most 100 keys"),
        ('{"keys": []}', "no key for any of RS256, ES256, EdDSA"),
    ],
)
def test_key_set_is_refused_with_the_reason(text, said):
    with pytest.raises(FetchFailed, match=said):
        read_key_set(text)


@pytest.mark.control("requests.ssrf")
@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://id.example/keys", True),
        ("https://id.example:8443/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://id.example/keys", False),
        ("http://10.0.0.1/keys", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://localhost@evil.example/", False),
        ("https://user@id.example/", False),
        ("ftp://127.0.0.1/", False),
        ("file:///etc/passwd", False),
        ("https:///keys", False),
        ("https://[::1", False),
        ("", False),
    ],
)
@pytest.mark.control("bots.jwks")
def test_keys_come_over_tls_or_from_this_machine(url, is_good):
    assert (url_problem(url) == "") is is_good
    if not is_good:
        with pytest.raises(FetchFailed):
            fetch_url(url)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"issuer": "https://else.example", "jwks_uri": URI}, "of another issuer"),
        ({"jwks_uri": URI}, "of another issuer"),
        ({"issuer": "https://id.example"}, "has no jwks_uri"),
        ({"issuer": "https://id.example", "jwks_uri": "http://127.0.0.1/k"}, "is not https"),
    ],
)
@pytest.mark.control("bots.jwks")
def test_discovery_document_is_refused_with_the_reason(found, said):
    asked = []

    def fetch(url):
        asked.append(url)
        return json.dumps(found).encode()

    with pytest.raises(FetchFailed, match=said):
        load_key_set(OidcProvider("https://id.example"), fetch)
    assert asked == ["https://id.example" + DISCOVERY]


# Over HTTP.


@pytest.fixture
def server():
    server = IssuerServer()
    yield server
    server.close()


@pytest.mark.slow
def test_keys_are_found_through_the_discovery_document(server):
    key_sets = KeySets(Threads(), FakeClock())
    assert has(key_sets, provider=OidcProvider(server.url))
    assert has(key_sets, provider=OidcProvider(server.url, f"{server.url}/keys"))
    assert server.asked == [DISCOVERY, "/keys", "/keys"]


@pytest.mark.control("requests.ssrf")
@pytest.mark.slow
@pytest.mark.control("bots.jwks")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((302, {"Location": "/keys"}, b""), "answers 302"),
        ((503, {}, b""), "answers 503"),
        ((200, {}, b"x" * (MAX_BYTES + 1)), "more than 262144 bytes"),
        ((200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"), "not JSON"),
    ],
)
def test_answer_that_is_no_key_set_is_refused(server, answer, said):
    server.answers["/moved"] = answer
    with pytest.raises(FetchFailed, match=said):
        load_key_set(OidcProvider(server.url, f"{server.url}/moved"), fetch_url)
    assert server.asked == ["/moved"]


@pytest.mark.slow
def test_issuer_that_is_away_is_told_in_one_line(server):
    server.close()
    with pytest.raises(FetchFailed, match=r"127.0.0.1:\d+/keys: NewConnectionError"):
        fetch_url(f"{server.url}/keys")
