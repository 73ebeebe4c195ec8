"""Identity tokens: what verifies, and that nothing else does (bot-api 0.6)."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth.jwks import KeySets, read_key_set
from botapi.auth.oidc import MAX_TOKEN_CHARS, verify_bearer
from botapi.auth.proof import Account, Trust
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import OidcProvider
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import NOW_S, Issuer, pem_of, private_key

ISSUER = Issuer()
ISSUER.add("ec", "ES256")
ISSUER.add("ed", "EdDSA")
PROVIDER = OidcProvider(ISSUER.url, jwks=json.dumps(ISSUER.jwks()))
OTHER = Issuer("https://other.example", 4)
OTHER.add("k2", "RS256", 5)
OTHER_PROVIDER = OidcProvider(OTHER.url, jwks=json.dumps(OTHER.jwks()))
KEYS = KeySets(Threads(), FakeClock())


def verify(text, now_s=NOW_S):
    providers = {PROVIDER.issuer: PROVIDER, OTHER_PROVIDER.issuer: OTHER_PROVIDER}
    return verify_bearer(text, Trust(now_s, KEYS, providers, {}))


def refusal(text, now_s=NOW_S):
    with pytest.raises(Refusal) as caught:
        verify(text, now_s)
    assert caught.value.code is Code.UNAUTHENTICATED
    assert caught.value.message.startswith("Authorization: ")
    return caught.value.message.removeprefix("Authorization: ")


def bearer(*args, **claims):
    return "Bearer " + ISSUER.token(*args, **claims)


@pytest.mark.spec("0.6.1.7")
@pytest.mark.parametrize("key_id", ["k1", "ec", "ed"])
def test_identity_token_names_the_account(key_id):
    token = ISSUER.account_token(key_id=key_id, aud=["a", "b"])
    found = verify(f"Bearer {token}")
    assert found.evidence == Account(ISSUER.url, "robot", ("a", "b"), "robot@id.example")
    assert found.expires_s == NOW_S + 600
    assert verify(f"bearer  {token} ").evidence == found.evidence


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_email_counts_only_when_its_issuer_verified_it(verified):
    text = bearer(email="robot@id.example", email_verified=verified)
    assert verify(text).evidence == Account(ISSUER.url, "robot", (), "")


@pytest.mark.parametrize(
    ("claims", "now_s", "said"),
    [
        ({}, NOW_S + 599.9, ""),
        ({}, NOW_S + 600, "expired"),
        ({}, NOW_S - 30, ""),
        ({}, NOW_S - 31, "not valid yet; compare the clocks"),
        ({"nbf": NOW_S + 30}, NOW_S, ""),
        ({"nbf": NOW_S + 31}, NOW_S, "not valid yet; compare the clocks"),
        ({"iat": None}, NOW_S, ""),
    ],
)
def test_identity_token_is_good_for_its_time(claims, now_s, said):
    if said:
        assert refusal(bearer(**claims), now_s) == said
    else:
        assert verify(bearer(**claims), now_s)


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def unsigned(header, claims=None, signature=b"x"):
    body = ISSUER.claims() if claims is None else claims
    return f"Bearer {part(header)}.{part(body)}.{part(signature)}"


def hs256(secret, key_id="k1"):
    header, body = part({"alg": "HS256", "kid": key_id}), part(ISSUER.claims())
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return f"Bearer {header}.{body}.{part(mac.sign(f'{header}.{body}'.encode(), secret))}"


ALGORITHMS = "RS256, ES256, EdDSA"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Basic eDp5", "only Bearer tokens are understood"),
        ("Bearer", "only Bearer tokens are understood"),
        ("Bearer ya29.opaque", "not an identity token (JWT); access tokens cannot be checked here"),
        ("Bearer é.b.c", "not an identity token (JWT); access tokens cannot be checked here"),
        ("Bearer " + "x" * (MAX_TOKEN_CHARS + 1), f"too long: {MAX_TOKEN_CHARS + 1} > "),
        ("Bearer a.a.a", "not an identity token (JWT)"),
        (f"Bearer {part({})}.{part(b'[' * 9000)}.x", "claims: "),
        (unsigned({"alg": "none"}, signature=b""), f'signed with "none", not {ALGORITHMS}'),
        (unsigned({"alg": ["none"]}), f"signed with \"['none']\", not {ALGORITHMS}"),
        (unsigned({}), f'signed with "None", not {ALGORITHMS}'),
        (unsigned([]), "Invalid header"),
        (hs256(pem_of(private_key("RS256")).encode()), f'signed with "HS256", not {ALGORITHMS}'),
        (unsigned({"alg": "RS512", "kid": "k1"}), f'signed with "RS512", not {ALGORITHMS}'),
        (unsigned({"alg": "RS256", "kid": 1}), "Key ID header parameter must be a string"),
        (unsigned({"alg": "RS256", "kid": "k1"}), "Signature verification failed"),
        (unsigned({"alg": "ES256", "kid": "k1"}), 'https://id.example has no ES256 key "k1"'),
        (unsigned({"alg": "RS256", "kid": "k1", "crit": ["x"]}), ""),
        (unsigned({"alg": "RS256", "kid": "k1", "b64": False, "crit": ["b64"]}), ""),
        (bearer(headers={"kid": "k9"}), 'https://id.example has no RS256 key "k9"'),
        (
            bearer(iss="https://evil.example"),
            'no oidc_provider in settings.cfg has the issuer "https://evil.example"',
        ),
        (bearer(iss=OTHER.url), "Signature verification failed"),
        (bearer(iss=None), "claims: "),
        (bearer(exp=None), "claims: "),
        (bearer(sub=5), "claims: "),
        (bearer(aud=5), "claims: "),
    ],
)
@pytest.mark.control("bots.jwks")
def test_identity_token_is_refused_with_the_reason(text, said):
    assert refusal(text).startswith(said)


def test_token_without_a_key_id_is_checked_with_the_only_key_of_its_kind():
    assert verify(bearer(headers={"kid": None})).evidence.subject == "robot"
    two = OTHER.token(headers={"kid": None})
    assert refusal(f"Bearer {two}") == 'https://other.example has no RS256 key ""'


def test_key_set_leaves_out_what_is_not_for_our_signatures():
    (good,) = Issuer().jwks()["keys"]
    shared = {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}
    bad = [
        shared,
        {**good, "use": "enc"},
        {**good, "alg": "RS512"},
        {**good, "alg": "HS256"},
        {**good, "n": "!"},
        {**good, "n": "AQAB"},
        {"kty": "EC", "crv": "P-384"},
        {"kty": 1},
        "x",
        None,
    ]
    assert list(read_key_set(json.dumps({"keys": [*bad, {**good, "kid": "g"}]})).keys) == ["g"]


GOOD = ISSUER.account_token()


@settings(max_examples=150)
@given(which=st.integers(0, 2), at=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
@pytest.mark.control("bots.jwks")
def test_altered_identity_token_never_verifies(which, at, mask):
    parts = GOOD.split(".")
    raw = bytearray(urlsafe_b64decode(parts[which] + "=="))
    raw[int(at * len(raw))] ^= mask
    parts[which] = part(bytes(raw))
    assert refusal("Bearer " + ".".join(parts))


@settings(max_examples=100)
@given(st.text(max_size=60), st.sampled_from(["", "Bearer ", "Bearer a.b."]))
def test_unknown_text_is_never_an_identity_token(text, prefix):
    assert refusal(prefix + text)
