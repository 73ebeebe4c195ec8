"""LUCI machine tokens: what verifies, and that nothing else does (bot-api 0.6, 13)."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime

import pytest
from botpb import machine_token_pb2
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth.machine_token import MAX_TOKEN_CHARS, verify_machine_token
from botapi.auth.proof import Machine, Trust
from botapi.domain.errors import Code, Refusal
from tests.fakes.issuer import NOW_S, MachineSigner, pem_of, private_key

SIGNER = MachineSigner()
GOOD = SIGNER.token(ca_id=5)


def trust(now_s=NOW_S, **keys):
    return Trust(now_s, None, {}, {SIGNER.key_id: SIGNER.pem, **keys})


def verify(text, **more):
    return verify_machine_token(text, trust(**more))


def refusal(text, **more):
    with pytest.raises(Refusal) as caught:
        verify(text, **more)
    assert caught.value.code is Code.UNAUTHENTICATED
    prefix = "X-Luci-Machine-Token: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


@pytest.mark.spec("0.6.1.5")
def test_machine_token_names_machine_and_authority():
    found = verify(GOOD)
    assert found.evidence == Machine("vm1.example", 5)
    assert found.expires_s == NOW_S + 600 + 10


def test_machine_token_is_checked_with_the_key_of_a_certificate_too():
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(SIGNER.key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(SIGNER.key, SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM).decode()
    assert verify(GOOD, ts=pem).evidence == Machine("vm1.example", 5)


@pytest.mark.spec("13.1.8")
@pytest.mark.parametrize(
    ("now_s", "said"),
    [
        (NOW_S - 10, ""),
        (NOW_S - 10.001, "not valid yet; compare the clocks"),
        (NOW_S + 610, ""),
        (NOW_S + 610.001, "expired"),
    ],
)
def test_machine_token_may_be_ten_seconds_off(now_s, said):
    if said:
        assert refusal(GOOD, now_s=now_s) == said
    else:
        assert verify(GOOD, now_s=now_s)


EC_PEM = pem_of(private_key("ES256"))
EMPTY = machine_token_pb2.MachineTokenBody(issued_at=NOW_S, lifetime=60).SerializeToString()


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("é", {}, "not base64"),
        ("a", {}, "not base64"),
        ("****", {}, "not base64"),
        (GOOD.replace(GOOD[9], "-"), {}, "not base64"),
        (GOOD + "=" * (-len(GOOD) % 4 or 4), {}, "not base64"),
        (b64encode(b"\xff\xff").decode().rstrip("="), {}, "not a machine token"),
        ("x" * (MAX_TOKEN_CHARS + 1), {}, f"too long: {MAX_TOKEN_CHARS + 1} > {MAX_TOKEN_CHARS}"),
        (
            MachineSigner("other").token(),
            {},
            'signed with the key "other", which no machine_token_signer in settings.cfg has',
        ),
        (
            MachineSigner("x" * 90).token(),
            {},
            f'signed with the key "{"x" * 80}...", '
            "which no machine_token_signer in settings.cfg has",
        ),
        (MachineSigner(number=1).token(), {}, "bad signature"),
        (SIGNER.token(rsa_sha256=b""), {}, "bad signature"),
        (SIGNER.token(token_body=EMPTY), {}, "bad signature"),
        (SIGNER.envelope(b"\xff"), {}, "the signed part is no token body"),
        (SIGNER.envelope(EMPTY), {}, "it names no machine"),
        (SIGNER.token(lifetime=0, issued_at=NOW_S - 11), {}, "expired"),
        (GOOD, {"ts": EC_PEM}, 'the machine_token_signer "ts" in settings.cfg has no RSA key'),
        (GOOD, {"ts": "no key"}, 'the machine_token_signer "ts" in settings.cfg has no RSA key'),
    ],
)
def test_machine_token_is_refused_with_the_reason(text, keys, said):
    assert refusal(text, **keys).startswith(said)


RAW = b64decode(GOOD + "=" * (-len(GOOD) % 4))


@settings(max_examples=150)
@given(st.integers(0, len(RAW) * 8 - 1))
@pytest.mark.control("bots.present-but-bad")
def test_altered_machine_token_never_verifies(bit):
    altered = bytearray(RAW)
    altered[bit // 8] ^= 1 << bit % 8
    assert refusal(b64encode(altered).decode().rstrip("="))


@settings(max_examples=100)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b64encode(b).decode()))
def test_unknown_text_is_never_a_machine_token(text):
    assert refusal(text)
