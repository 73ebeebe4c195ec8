"""Which person (or script) is asking: API keys of the form `skep_<id>_<secret>`.

The clear text is shown once, when a key is made; the store keeps the SHA-256 of the
secret. The secret has 256 random bits, so a slow hash would protect nothing more.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botapi.clock import Rng
from botapi.domain.access_rules import normal
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Grant, Role
from botapi.store import schema
from botapi.store.protocol import Doc, Store

KIND = "apikey"
SECRET_BYTES = 32

_API_KEY = re.compile(r"skep_([0-9a-z]{8})_([A-Za-z0-9_-]{43})")
_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. Times in ms since 1970; 0 for `revoked_ms` and `expires_ms` is never.

    `owner` is the identity whose grants it has, cut down to `scope` unless that is None.
    A key with a `role` has it for the whole server besides, whatever the owner has: keys
    made by `skep init` do. `used_ms` is not exact, see `Used`.
    """

    key_id: str
    name: str
    role: Role | None
    secret_sha256: bytes = field(repr=False)
    created_ms: int
    revoked_ms: int = 0
    owner: str = ""
    scope: frozenset[Grant] | None = None
    expires_ms: int = 0
    used_ms: int = 0

    @property
    def identity(self) -> str:
        """Whose key it is; a key from before keys had owners is that of `user:<name>`."""
        return self.owner or f"user:{self.name}"

    @property
    def own_grants(self) -> frozenset[Grant]:
        """What it grants by itself."""
        return frozenset({Grant(self.role)} if self.role else ())

    def is_good(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return not self.revoked_ms and (not self.expires_ms or now_ms < self.expires_ms)


def new_api_key(
    name: str,
    role: Role | None,
    rng: Rng,
    *,
    now_ms: int,
    owner: str = "",
    scope: frozenset[Grant] | None = None,
    expires_ms: int = 0,
) -> tuple[str, ApiKey]:
    """The clear text, to be shown once, and what is stored of it."""
    bits = rng.randbits(40)
    key_id = "".join(_ID_ALPHABET[bits >> shift & 31] for shift in range(0, 40, 5))
    secret = rng.token(SECRET_BYTES)
    key = ApiKey(
        key_id,
        name,
        role,
        _digest(secret),
        now_ms,
        owner=owner,
        scope=scope,
        expires_ms=expires_ms,
    )
    return f"skep_{key_id}_{secret}", key


def api_key_body(key: ApiKey) -> dict[str, Any]:
    """The body of kind `apikey`, key: the id."""
    return {
        "name": key.name,
        "role": str(key.role) if key.role else "",
        "secret_sha256": key.secret_sha256,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
        "owner": key.owner,
        "scope": None if key.scope is None else grants_body(key.scope),
        "expires_ms": key.expires_ms,
        "used_ms": key.used_ms,
    }


def api_key_doc(key: ApiKey, was: Doc | None = None) -> Doc:
    """Kind `apikey`; the tag `o:<identity>` finds the keys of a person."""
    return Doc(
        key.key_id,
        schema.body(api_key_body(key), was),
        tags=frozenset({f"o:{normal(key.identity)}"}),
    )


def read_api_key(key_id: str, body: Mapping[str, Any]) -> ApiKey:
    """The key in a document of kind `apikey`."""
    scope = body.get("scope")
    return ApiKey(
        key_id=key_id,
        name=body["name"],
        role=Role(body["role"]) if body["role"] else None,
        secret_sha256=body["secret_sha256"],
        created_ms=body["created_ms"],
        revoked_ms=body["revoked_ms"],
        owner=body.get("owner", ""),
        scope=None if scope is None else read_grants(scope),
        expires_ms=body.get("expires_ms", 0),
        used_ms=body.get("used_ms", 0),
    )


def grants_body(grants: Iterable[Grant]) -> list[list[str]]:
    """Grants as pairs of role and pool, in order."""
    return sorted([str(grant.role), grant.pool] for grant in grants)


def read_grants(pairs: Iterable[Sequence[str]]) -> frozenset[Grant]:
    """Grants from their pairs."""
    return frozenset(Grant(Role(role), pool) for role, pool in pairs)


def bearer(authorization: str) -> str:
    """The credential in an `Authorization` header; empty when it is not a bearer's."""
    scheme, _, credential = authorization.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def authenticate(store: Store, presented: str, *, now_ms: int) -> ApiKey:
    """The key that was presented. Raises Refusal UNAUTHENTICATED, in one wording for all causes.

    Takes the same time for an unknown id as for a wrong secret, but for the read. Whether its
    owner is still welcome is not asked here, see `directory`.
    """
    match = _API_KEY.fullmatch(presented)
    if match is None:
        raise bad_api_key()
    key_id, secret = match.groups()
    (doc,) = store.get(KIND, key_id)
    key = None if doc is None else read_api_key(key_id, doc.body)
    is_right = hmac.compare_digest(_digest(secret), key.secret_sha256 if key else _NOBODY)
    if key is None or not is_right or not key.is_good(now_ms):
        raise bad_api_key()
    return key


def bad_api_key() -> Refusal:
    """The one answer to every key that is no good."""
    return Refusal(
        Code.UNAUTHENTICATED,
        "the API key is unknown, wrong, expired or revoked, or its owner is disabled",
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
