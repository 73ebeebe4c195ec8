"""Identity tokens of ours: what they say, who can check them, and through a rotation."""

import base64
import json

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt import PyJWK

from botapi.auth import keys as key_room
from botapi.auth.keys import KIND, OIDC, KeyRing, keys_body, new_key
from botapi.auth.oidc_issuer import CACHE_S, ID_TOKEN_LIFE_S, OidcIssuer
from botapi.concurrency import Threads
from botapi.domain.key_rotation import Key, KeyState
from botapi.domain.service_accounts import Subject, is_allowed_audience
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.transactions.create_keys import create_keys
from botapi.transactions.rotate_keys import PUBLISH_OIDC_MS
from tests.auth.fixed import CountingRng, FixedClock

ISSUER = "https://fleet.example"
SUBJECT = Subject(
    "task", "b@x.example", "ci", "vm1", task_id="a0", run_id="a1", user="u", realm="p:r"
)


@pytest.fixture(scope="module")
def secrets():
    """Two RSA keys: making one takes a tenth of a second and more."""
    return [new_key(OIDC, FixedClock(), CountingRng()).secret for _ in range(2)]


@pytest.fixture
def store(clock):
    return MemoryStore(Threads(), clock)


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def issuer(store, clock, secrets, monkeypatch):
    monkeypatch.setattr(key_room, "_rsa_secret", lambda: secrets[0])
    ring = KeyRing(store, lambda p, made: create_keys(store, p, made), clock, CountingRng())
    return OidcIssuer(ring, Threads().native)


def minted(issuer, clock, subject=SUBJECT, audience="aud"):
    return issuer.id_token(ISSUER, subject, audience, now_ms=clock.now_ms(), jti="j1")


def checked(text, jwks, **more):
    """The claims, as an outside verifier finds them with the published keys."""
    kid = jwt.get_unverified_header(text)["kid"]
    (entry,) = [entry for entry in jwks["keys"] if entry["kid"] == kid]
    options = {"verify_exp": False, "verify_iat": False}  # the clock stands still
    wanted = {"audience": "aud", "issuer": ISSUER, **more}
    return jwt.decode(text, PyJWK(entry), ["RS256"], options=options, **wanted)


def test_id_token_says_who_and_for_how_long(issuer, clock):
    token = minted(issuer, clock)
    now_s = clock.now_ms() // 1000
    assert token.expires_s == now_s + ID_TOKEN_LIFE_S == now_s + 3600
    assert checked(token.text, issuer.jwks()) == {
        "iss": ISSUER,
        "sub": "task:ci:b@x.example",
        "aud": "aud",
        "iat": now_s,
        "exp": now_s + 3600,
        "jti": "j1",
        "service_account": "b@x.example",
        "pool": "ci",
        "bot_id": "vm1",
        "task_id": "a0",
        "run_id": "a1",
        "user": "u",
        "realm": "p:r",
    }
    assert token.text not in repr(token)


def test_id_token_is_refused_for_another_audience_or_issuer(issuer, clock):
    text = minted(issuer, clock).text
    with pytest.raises(jwt.InvalidAudienceError):
        checked(text, issuer.jwks(), audience="else")
    with pytest.raises(jwt.InvalidIssuerError):
        checked(text, issuer.jwks(), issuer=ISSUER + ".evil")


def test_id_token_is_refused_with_any_bit_flipped(issuer, clock):
    text, jwks = minted(issuer, clock).text, issuer.jwks()
    head, body, signature = text.split(".")
    for part, others in ((body, (head, None, signature)), (signature, (head, body, None))):
        raw = bytearray(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for bit in range(0, len(raw) * 8, 37):
            raw[bit // 8] ^= 1 << bit % 8
            bad = base64.urlsafe_b64encode(raw).decode().rstrip("=")
            with pytest.raises(jwt.InvalidTokenError):
                checked(".".join(bad if other is None else other for other in others), jwks)
            raw[bit // 8] ^= 1 << bit % 8


def test_jwks_holds_public_halves_only(issuer, clock):
    minted(issuer, clock)
    (entry,) = issuer.jwks()["keys"]
    assert set(entry) == {"kty", "use", "alg", "kid", "n", "e"}
    assert (entry["kty"], entry["use"], entry["alg"], entry["e"]) == ("RSA", "sig", "RS256", "AQAB")
    assert len(base64.urlsafe_b64decode(entry["n"] + "==")) == 256


def test_configuration_points_to_the_keys(issuer):
    said = issuer.configuration(ISSUER)
    assert (said["issuer"], said["jwks_uri"]) == (ISSUER, ISSUER + "/.well-known/jwks.json")
    assert said["id_token_signing_alg_values_supported"] == ["RS256"]
    assert set(SUBJECT.claims()) <= set(said["claims_supported"])
    json.dumps(said)


@pytest.mark.control("tokens.rotation")
def test_rotate_publishes_a_key_before_it_signs_and_after(issuer, store, clock, secrets):
    before = minted(issuer, clock)

    def put(*keys):
        store.transact(lambda txn: txn.put(KIND, Doc(OIDC, keys_body(keys))), label="test")
        clock.advance(30)

    old = Key("old", secrets[0], 1)
    put(old, Key("new", secrets[1], 2, KeyState.NEXT, 2))
    published = issuer.jwks()
    assert {entry["kid"] for entry in published["keys"]} == {"old", "new"}
    assert jwt.get_unverified_header(minted(issuer, clock).text)["kid"] == "old"
    put(Key("old", secrets[0], 1, KeyState.VERIFY, 3), Key("new", secrets[1], 2))
    after = minted(issuer, clock)
    assert jwt.get_unverified_header(after.text)["kid"] == "new"
    assert checked(after.text, published)["jti"] == "j1"  # with keys fetched before it signed
    assert {entry["kid"] for entry in issuer.jwks()["keys"]} == {"old", "new"}
    assert before.expires_s
    assert PUBLISH_OIDC_MS >= 4 * CACHE_S * 1000


NAMES = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=8)


@settings(max_examples=200)
@given(one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES))
def test_subject_names_pool_and_account_without_doubt(one, other):
    names = [Subject("task", account, pool, "vm1").name for pool, account in (one, other)]
    assert (names[0] == names[1]) == (one == other)


def test_subject_of_a_bot_is_not_that_of_a_task():
    assert Subject("system", "a@b", "ci", "vm1").name == "system:ci:a@b"
    assert Subject("system", "a@b", "ci", "vm1").claims() == {
        "sub": "system:ci:a@b",
        "service_account": "a@b",
        "pool": "ci",
        "bot_id": "vm1",
    }


def test_no_audience_is_allowed_when_none_is_named():
    assert not is_allowed_audience("x", ())
    assert not is_allowed_audience("x", ("",))
    assert is_allowed_audience("x", ("y", "x"))
    assert is_allowed_audience("https://a.example/b", ("https://a.example/*",))
    assert not is_allowed_audience("https://a.example.evil", ("https://a.example/*",))
