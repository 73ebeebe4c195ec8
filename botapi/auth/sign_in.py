"""Signing people in at an outside issuer: OpenID Connect, authorization code flow with PKCE.

The browser carries what we must remember in a signed cookie, so that nothing is stored
for somebody who never comes back (RFC 6749 4.1, RFC 7636, OpenID Connect Core 3.1).
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3

from botapi.auth.jwks import DISCOVERY, FetchFailed, KeySets, fetch_url
from botapi.auth.oidc import check_form, verified_claims
from botapi.auth.outside import TooLong, TooSlow, http_pool, read_body, url_problem
from botapi.auth.proof import Trust
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.domain.access_rules import USER, identity_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import OidcProvider, SignIn

SCOPE = "openid email"
PENDING_LIFE_S = 600
"""How long somebody may take to sign in at the issuer."""
TIMEOUT_S = 5
MAX_BYTES = 64 * 1024
DISCOVERY_LIFE_S = 3600
MAX_CODE_CHARS = 4096
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pending:
    """What we remember of a browser that was sent to the issuer; `following` is a path of ours."""

    state: str
    nonce: str
    verifier: str
    following: str

    def as_json(self) -> dict[str, str]:
        """For a signed cookie."""
        return {"s": self.state, "n": self.nonce, "v": self.verifier, "f": self.following}

    @classmethod
    def of_json(cls, value: Mapping[str, str]) -> "Pending":
        """What `as_json` gave."""
        return cls(value["s"], value["n"], value["v"], value["f"])


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Where an issuer's parts are; `read_at` is monotonic."""

    authorize: str
    token: str
    keys: OidcProvider
    read_at: float


@dataclass(slots=True)
class IssuerClient:
    """Asks the issuer of settings.cfg; one for each process.

    `secret` is that of the client, empty for a public one.
    """

    concurrency: Concurrency
    clock: Clock
    keys: KeySets
    secret: str = field(default="", repr=False)
    _known: dict[str, _Issuer] = field(default_factory=dict)

    def begin(
        self, rule: SignIn, redirect_uri: str, following: str, rng: Rng
    ) -> tuple[str, Pending]:
        """Where to send the browser, and what to remember. Raises Refusal UNAVAILABLE."""
        issuer = self._issuer(rule)
        state, nonce, verifier = (rng.token(_SECRET_BYTES) for _ in range(3))
        pending = Pending(state, nonce, verifier, following)
        asked = {
            "response_type": "code",
            "client_id": rule.client_id,
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": _challenge(pending.verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in issuer.authorize else "?"
        return issuer.authorize + joint + urlencode(asked), pending

    def finish(
        self, rule: SignIn, pending: Pending, redirect_uri: str, state: str, code: str
    ) -> str:
        """The identity `user:<e-mail>` of who came back with this code.

        Raises Refusal: PERMISSION_DENIED for a state that is not this browser's and for
        people who may not sign in, UNAUTHENTICATED for a token that is no good, UNAVAILABLE.
        """
        if not hmac.compare_digest(state.encode(), pending.state.encode()):
            raise Refusal(Code.PERMISSION_DENIED, "this browser did not begin to sign in; again")
        if not 1 <= len(code) <= MAX_CODE_CHARS:
            raise Refusal(Code.PERMISSION_DENIED, "the issuer gave no code")
        issuer = self._issuer(rule)
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": rule.client_id,
            "code_verifier": pending.verifier,
        } | ({"client_secret": self.secret} if self.secret else {})
        reply = self._asked(lambda: _post(issuer.token, asked))
        token = reply.get("id_token")
        if not isinstance(token, str):
            raise Refusal(Code.UNAUTHENTICATED, "the issuer gave no identity token")
        return self._identity(rule, issuer, token, pending.nonce)

    def _identity(self, rule: SignIn, issuer: _Issuer, token: str, nonce: str) -> str:
        check_form("id_token", token)
        trust = Trust(self.clock.now_ms() / 1000, self.keys, {}, {})
        claims = verified_claims("id_token", token, issuer.keys, trust)
        if rule.client_id not in claims.audiences:
            raise Refusal(Code.UNAUTHENTICATED, "the identity token is for somebody else")
        if not hmac.compare_digest((claims.nonce or "").encode(), nonce.encode()):
            raise Refusal(Code.UNAUTHENTICATED, "the identity token is of another sign-in")
        email = claims.email.lower() if claims.email and claims.email_verified is True else ""
        if not email or identity_problem(USER + email):
            raise Refusal(Code.PERMISSION_DENIED, "the issuer vouches for no e-mail address")
        if rule.email_domains and email.rpartition("@")[2] not in rule.email_domains:
            raise Refusal(Code.PERMISSION_DENIED, f"{email[:80]} may not sign in here")
        return USER + email

    def _issuer(self, rule: SignIn) -> _Issuer:
        known = self._known.get(rule.issuer)
        now = self.clock.monotonic()
        if known is None or now - known.read_at > DISCOVERY_LIFE_S:
            known = self._asked(lambda: _discover(rule.issuer, now))
            self._known = {rule.issuer: known}
        return known

    def _asked(self, ask: Any) -> Any:  # noqa: ANN401 - what `ask` gives
        try:
            return self.concurrency.outside(ask)
        except FetchFailed as error:
            raise Refusal(
                Code.UNAVAILABLE, f"signing in at the issuer is not possible now: {error}"
            ) from None


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _discover(issuer: str, now: float) -> _Issuer:
    """The discovery document (OpenID Connect Discovery 1.0, section 4). Raises FetchFailed."""
    found = _object(fetch_url(issuer.rstrip("/") + DISCOVERY))
    if found.get("issuer") != issuer:
        raise FetchFailed("the discovery document is of another issuer")
    urls = [found.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    for url in urls:
        if not isinstance(url, str) or url_problem(url):
            raise FetchFailed("the discovery document lacks an endpoint, or one is not https")
    authorize, token, keys = map(str, urls)
    return _Issuer(authorize, token, OidcProvider(issuer, keys), now)


def _post(url: str, form: Mapping[str, str]) -> dict[str, Any]:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        with http_pool(headers, TIMEOUT_S) as pool:
            reply = pool.request(
                "POST",
                url,
                body=urlencode(form),
                headers=headers | {"Content-Type": "application/x-www-form-urlencoded"},
                redirect=False,
                preload_content=False,
            )
            try:
                if reply.status != 200:
                    raise FetchFailed(f"the token endpoint answers {reply.status}")
                return _object(read_body(reply, MAX_BYTES, TIMEOUT_S))
            finally:
                reply.close()
    except (TooLong, TooSlow) as error:
        raise FetchFailed(str(error)) from None
    except (urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
        raise FetchFailed(type(error).__name__) from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise FetchFailed("not JSON") from None
    if not isinstance(value, dict):
        raise FetchFailed("not a JSON object")
    return value
