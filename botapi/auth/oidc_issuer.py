"""Skep as an issuer of identity tokens (OpenID Connect Discovery 1.0; docs/task-tokens.md).

Tokens are JWTs signed with RS256. All keys of the set `oidc` are published, so a new key is
known before it signs and an old one until the last token that it signed has expired.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from botapi.auth.keys import OIDC, KeyRing
from botapi.domain.key_rotation import Key
from botapi.domain.service_accounts import Subject

ALGORITHM = "RS256"
ID_TOKEN_LIFE_S = 3600
JWKS_PATH = "/.well-known/jwks.json"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
CACHE_S = 300
"""How long others may keep the two documents; far less than a new key waits to sign."""
_PARSED_KEYS = 16


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token and when it expires (seconds since 1970)."""

    text: str = field(repr=False)
    expires_s: int


class OidcIssuer:
    """Signs identity tokens, and publishes the keys. `native` runs fn on a native thread."""

    def __init__(
        self, keys: KeyRing, native: Callable[[Callable[[], MintedToken]], MintedToken]
    ) -> None:
        self._keys = keys
        self._native = native

    def id_token(
        self, issuer: str, subject: Subject, audience: str, *, now_ms: int, jti: str
    ) -> MintedToken:
        """A token that lives an hour. The errors of the store rise."""
        key = self._keys.key_set(OIDC)[-1]
        now_s = now_ms // 1000
        expires_s = now_s + ID_TOKEN_LIFE_S
        claims = {
            **subject.claims(),
            "iss": issuer,
            "aud": audience,
            "iat": now_s,
            "exp": expires_s,
            "jti": jti,
        }

        def sign() -> MintedToken:
            text = jwt.encode(
                claims, _private_key(key.secret), ALGORITHM, headers={"kid": key.key_id}
            )
            return MintedToken(text, expires_s)

        return self._native(sign)

    def configuration(self, issuer: str) -> dict[str, object]:
        """The discovery document of this issuer."""
        return {
            "issuer": issuer,
            "jwks_uri": issuer + JWKS_PATH,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": ["openid"],
            "claims_supported": ["iss", "aud", "iat", "exp", "jti", *sorted(Subject.CLAIMS)],
        }

    def jwks(self) -> dict[str, object]:
        """The public halves of all keys (RFC 7517), the next one among them."""
        return {"keys": [_public_jwk(key) for key in self._keys.key_set(OIDC)]}


@lru_cache(maxsize=_PARSED_KEYS)
def _private_key(secret: bytes) -> RSAPrivateKey:
    # Made by us and checked then; to check it again would hold the loop for 40 ms.
    key = load_der_private_key(secret, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the keys for identity tokens are RSA keys")
    return key


def _public_jwk(key: Key) -> dict[str, str]:
    numbers = _private_key(key.secret).public_key().public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": ALGORITHM,
        "kid": key.key_id,
        "n": _base64(numbers.n),
        "e": _base64(numbers.e),
    }


def _base64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8)
    return urlsafe_b64encode(raw).decode().rstrip("=")
