"""Which person (or script) is asking: API keys of the form `skep_<id>_<secret>`.

The clear text is shown once, when a key is made; the store keeps the SHA-256 of the
secret. The secret has 256 random bits, so a slow hash would protect nothing more.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from botapi.clock import Rng
from botapi.domain.errors import Code, Refusal
from botapi.store.protocol import Store

KIND = "apikey"
SECRET_BYTES = 32

_API_KEY = re.compile(r"skep_([0-9a-z]{8})_([A-Za-z0-9_-]{43})")
_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_NOBODY = bytes(32)


class Role(StrEnum):
    """What somebody may do."""

    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking; `name` is what the audit record says."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. Times in ms since 1970; `revoked_ms` is 0 while it is good."""

    key_id: str
    name: str
    role: Role
    secret_sha256: bytes = field(repr=False)
    created_ms: int
    revoked_ms: int = 0


def new_api_key(name: str, role: Role, rng: Rng, *, now_ms: int) -> tuple[str, ApiKey]:
    """The clear text, to be shown once, and what is stored of it."""
    bits = rng.randbits(40)
    key_id = "".join(_ID_ALPHABET[bits >> shift & 31] for shift in range(0, 40, 5))
    secret = rng.token(SECRET_BYTES)
    key = ApiKey(key_id, name, role, _digest(secret), now_ms)
    return f"skep_{key_id}_{secret}", key


def api_key_body(key: ApiKey) -> dict[str, Any]:
    """The body of kind `apikey`, key: the id."""
    return {
        "name": key.name,
        "role": str(key.role),
        "secret_sha256": key.secret_sha256,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
    }


def read_api_key(key_id: str, body: Mapping[str, Any]) -> ApiKey:
    """The key in a document of kind `apikey`."""
    return ApiKey(
        key_id=key_id,
        name=body["name"],
        role=Role(body["role"]),
        secret_sha256=body["secret_sha256"],
        created_ms=body["created_ms"],
        revoked_ms=body["revoked_ms"],
    )


def bearer(authorization: str) -> str:
    """The credential in an `Authorization` header; empty when it is not a bearer's."""
    scheme, _, credential = authorization.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def authenticate(store: Store, presented: str) -> Actor:
    """The actor of an API key. Raises Refusal UNAUTHENTICATED, in one wording for all causes.

    Takes the same time for an unknown id as for a wrong secret, but for the read.
    """
    match = _API_KEY.fullmatch(presented)
    if match is None:
        raise _refusal()
    key_id, secret = match.groups()
    (doc,) = store.get(KIND, key_id)
    key = None if doc is None else read_api_key(key_id, doc.body)
    is_right = hmac.compare_digest(_digest(secret), key.secret_sha256 if key else _NOBODY)
    if key is None or not is_right or key.revoked_ms:
        raise _refusal()
    return Actor(key.name, key.role)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _refusal() -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, "the API key is unknown, wrong or revoked")
