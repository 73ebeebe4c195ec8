"""Identity tokens of virtual machines (bot-api 0.6)."""

import json

import pytest

from botapi.auth.gce_token import is_for_us, verify_gce_vm_token
from botapi.auth.jwks import KeySets
from botapi.auth.proof import Instance, Trust
from botapi.concurrency import Threads
from botapi.domain.errors import Refusal
from botapi.domain.fleet_settings import OidcProvider
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import NOW_S, Issuer

ISSUER = Issuer("https://accounts.google.com")
PROVIDER = OidcProvider(ISSUER.url, jwks=json.dumps(ISSUER.jwks()))
KEYS = KeySets(Threads(), FakeClock())
NAMES = ("app.appspot.com", "skep.example")


def verify(text, provider=PROVIDER):
    return verify_gce_vm_token(text, Trust(NOW_S, KEYS, {}, {}, provider, NAMES))


@pytest.mark.spec("0.6.1.6")
@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer "])
def test_vm_token_names_instance_and_project(prefix):
    found = verify(prefix + ISSUER.vm_token())
    assert found.evidence == Instance("vm1", "proj")
    assert found.expires_s == NOW_S + 600


@pytest.mark.spec("0.6.1.6")
@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        ("app.appspot.com", True),
        ("https://app.appspot.com", True),
        ("v1-dot-app.appspot.com", True),
        ("https://v1-dot-app.appspot.com", True),
        ("skep.example", True),
        ("https://skep.example", True),
        ("http://app.appspot.com", False),
        ("https://app.appspot.com/", False),
        ("-dot-app.appspot.com", False),
        ("evil.example/x-dot-app.appspot.com", False),
        ("a.b-dot-app.appspot.com", False),
        ("x-app.appspot.com", False),
        ("v1-dot-skep.example", False),
        ("APP.appspot.com", False),
        ("app", False),
        ("", False),
    ],
)
def test_vm_token_is_for_the_application_and_its_versions(audience, expected):
    assert is_for_us(audience, NAMES) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("opaque", "not an identity token (JWT); access tokens cannot be checked here"),
        (ISSUER.vm_token(aud="else.appspot.com"), 'made for "else.appspot.com", no audience of'),
        (ISSUER.vm_token(aud=None), 'made for "", no audience of gce_vm_tokens'),
        (ISSUER.token(aud="app.appspot.com"), 'not in the format "full": it names no instance'),
        (ISSUER.vm_token(google={"compute_engine": {"instance_name": 1}}), "not in the format"),
        (ISSUER.vm_token(""), "it names no instance and project"),
        (ISSUER.vm_token(exp=NOW_S), "expired"),
        (Issuer("https://evil.example").vm_token(), 'the issuer is "https://evil.example", not'),
        (ISSUER.vm_token()[:-8] + "AAAAAAAA", "Signature verification failed"),
    ],
)
@pytest.mark.control("bots.present-but-bad")
def test_vm_token_is_refused_with_the_reason(text, said):
    with pytest.raises(Refusal) as caught:
        verify(text)
    assert caught.value.message.startswith(f"X-Luci-Gce-Vm-Token: {said}")


def test_vm_token_is_refused_when_no_audience_is_configured():
    with pytest.raises(Refusal, match=r"settings\.cfg has no gce_vm_tokens"):
        verify(ISSUER.vm_token(), provider=None)
