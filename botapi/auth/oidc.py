"""Identity tokens (OpenID Connect): `Authorization: Bearer <JWT>` (bot-api 0.6).

The issuer must be listed in settings.cfg, and its keys decide. Whom the token is for (`aud`) is
kept for whoever needs it: the server itself, or the audience that bots.cfg asks for.
"""

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK, get_unverified_header
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from botapi.auth.jwks import ALGORITHMS
from botapi.auth.proof import Account, Trust, Verified, refusal, shown
from botapi.domain.fleet_settings import OidcProvider
from botapi.wire_json import WireError, decoder

HEADER = "Authorization"
MAX_TOKEN_CHARS = 16 * 1024
LEEWAY_S = 30
"""How far ahead an issuer's clock may be (`iat`, `nbf`); an expired token has none."""

_BEARER = "bearer "
_signatures = PyJWS()


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token that anybody here reads (RFC 7519, OpenID Connect Core 2)."""

    iss: str
    exp: float
    sub: str = ""
    aud: str | list[str] = ""
    iat: float | None = None
    nbf: float | None = None
    email: str | None = None
    email_verified: Any = None
    google: Any = None
    nonce: str | None = None

    @property
    def audiences(self) -> tuple[str, ...]:
        """Whom the token is for."""
        aud = [self.aud] if isinstance(self.aud, str) else self.aud
        return tuple(audience for audience in aud if audience)


_claims = decoder(Claims)


def verify_bearer(text: str, trust: Trust) -> Verified:
    """The account in a bearer token. Raises Refusal, see `proof.Verifier`."""
    if not text.lower().startswith(_BEARER):
        raise refusal(f"{HEADER}: only Bearer tokens are understood")
    token = text[len(_BEARER) :].strip()
    check_form(HEADER, token)
    issuer = _unverified_issuer(HEADER, token)
    provider = trust.providers.get(issuer)
    if provider is None:
        raise refusal(f"{HEADER}: no oidc_provider in settings.cfg has the issuer {shown(issuer)}")
    claims = verified_claims(HEADER, token, provider, trust)
    email = claims.email if claims.email and claims.email_verified is True else ""
    return Verified(Account(claims.iss, claims.sub, claims.audiences, email), claims.exp)


def check_form(header: str, token: str) -> None:
    """Refuse what is too long, or no signed token at all."""
    if len(token) > MAX_TOKEN_CHARS:
        raise refusal(f"{header}: too long: {len(token)} > {MAX_TOKEN_CHARS}")
    if token.count(".") != 2 or not token.isascii():
        raise refusal(
            f"{header}: not an identity token (JWT); access tokens cannot be checked here"
        )


def verified_claims(header: str, token: str, provider: OidcProvider, trust: Trust) -> Claims:
    """The claims of a token that this provider signed and that is good now.

    `header` is the name of the header it came in. Raises Refusal.
    """
    key = _key(header, token, provider, trust)
    try:
        signed = _signatures.decode_complete(token, key, algorithms=list(ALGORITHMS))
    except PyJWTError as error:
        raise refusal(f"{header}: {error}") from None
    claims = _read(header, signed["payload"])
    if claims.iss != provider.issuer:
        raise refusal(f"{header}: the issuer is {shown(claims.iss)}, not {provider.issuer}")
    if trust.now_s >= claims.exp:
        raise refusal(f"{header}: expired")
    if max(claims.iat or 0, claims.nbf or 0) > trust.now_s + LEEWAY_S:
        raise refusal(f"{header}: not valid yet; compare the clocks")
    return claims


def _key(header: str, token: str, provider: OidcProvider, trust: Trust) -> PyJWK:
    try:
        said = get_unverified_header(token)
    except PyJWTError as error:
        raise refusal(f"{header}: {error}") from None
    algorithm = said.get("alg")
    if algorithm not in ALGORITHMS:
        raise refusal(f"{header}: signed with {shown(str(algorithm))}, not {', '.join(ALGORITHMS)}")
    key_id = said.get("kid", "")
    if not isinstance(key_id, str):
        raise refusal(f"{header}: the key id is no text")
    key = trust.keys.find(provider, key_id, algorithm)
    if key is None:
        raise refusal(f"{header}: {provider.issuer} has no {algorithm} key {shown(key_id)}")
    return key


def _unverified_issuer(header: str, token: str) -> str:
    """Whom the token says it is from: good for choosing whose keys check it, no more."""
    part = token.split(".")[1]
    try:
        payload = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except Base64Error:
        raise refusal(f"{header}: not an identity token (JWT)") from None
    return _read(header, payload).iss


def _read(header: str, payload: bytes) -> Claims:
    try:
        return _claims.decode(payload)
    except (WireError, UnicodeDecodeError, RecursionError) as error:
        raise refusal(f"{header}: claims: {error}") from None
