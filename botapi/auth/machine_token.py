"""LUCI machine tokens: `X-Luci-Machine-Token` (bot-api 0.6)."""

import binascii
from base64 import b64decode, b64encode
from functools import lru_cache

from botpb import machine_token_pb2
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from google.protobuf.message import DecodeError

from botapi.auth.proof import Machine, Trust, Verified, refusal, shown

HEADER = "X-Luci-Machine-Token"
MAX_TOKEN_CHARS = 8 * 1024
CLOCK_DRIFT_S = 10
"""How far the clock of the token's maker may be off, either way (bot-api 13)."""

_KNOWN_KEYS = 64


def verify_machine_token(text: str, trust: Trust) -> Verified:
    """The machine that the token names.

    Size, then signature, then content: nothing of an unsigned body is looked at.
    Raises Refusal UNAUTHENTICATED.
    """
    envelope = _envelope(text)
    pem = trust.machine_token_keys.get(envelope.key_id)
    if pem is None:
        raise refusal(
            f"{HEADER}: signed with the key {shown(envelope.key_id)}, "
            "which no machine_token_signer in settings.cfg has"
        )
    _check_signature(envelope, pem)
    body = machine_token_pb2.MachineTokenBody()
    try:
        body.ParseFromString(envelope.token_body)
    except DecodeError:
        raise refusal(f"{HEADER}: the signed part is no token body") from None
    if not body.machine_fqdn:
        raise refusal(f"{HEADER}: it names no machine")
    if trust.now_s < body.issued_at - CLOCK_DRIFT_S:
        raise refusal(f"{HEADER}: not valid yet; compare the clocks")
    expires_s = body.issued_at + body.lifetime + CLOCK_DRIFT_S
    if trust.now_s > expires_s:
        raise refusal(f"{HEADER}: expired")
    return Verified(Machine(body.machine_fqdn, body.ca_id), expires_s)


def _envelope(text: str) -> machine_token_pb2.MachineTokenEnvelope:
    if len(text) > MAX_TOKEN_CHARS:
        raise refusal(f"{HEADER}: too long: {len(text)} > {MAX_TOKEN_CHARS}")
    try:
        raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise refusal(f"{HEADER}: not base64") from None
    if b64encode(raw).rstrip(b"=").decode("ascii") != text:
        raise refusal(f"{HEADER}: not base64 without padding")
    envelope = machine_token_pb2.MachineTokenEnvelope()
    try:
        envelope.ParseFromString(raw)
    except DecodeError:
        raise refusal(f"{HEADER}: not a machine token") from None
    return envelope


def _check_signature(envelope: machine_token_pb2.MachineTokenEnvelope, pem: str) -> None:
    key = rsa_key(pem)
    if key is None:
        raise refusal(
            f"{HEADER}: the machine_token_signer {shown(envelope.key_id)} in settings.cfg "
            "has no RSA key"
        )
    try:
        key.verify(envelope.rsa_sha256, envelope.token_body, PKCS1v15(), SHA256())
    except InvalidSignature:
        raise refusal(f"{HEADER}: bad signature") from None


@lru_cache(maxsize=_KNOWN_KEYS)
def rsa_key(pem: str) -> RSAPublicKey | None:
    """The RSA key in PEM text: of a public key or of a certificate; None when there is none."""
    raw = pem.encode()
    try:
        is_certificate = b"BEGIN CERTIFICATE" in raw
        key = (
            load_pem_x509_certificate(raw).public_key()
            if is_certificate
            else load_pem_public_key(raw)
        )
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, RSAPublicKey) else None
