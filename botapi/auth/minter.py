"""Access tokens of outside accounts, by OAuth 2.0 token exchange (RFC 8693; docs/task-tokens.md).

settings.cfg says which endpoint gives tokens of an account. It is shown an identity token of
ours that says who asks; what it makes of that is its own policy.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3

from botapi.auth.oidc_issuer import MintedToken, OidcIssuer
from botapi.auth.outside import TooLong, TooSlow, http_pool, read_body, url_problem
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency, Event, native_lock
from botapi.domain.errors import Code, Refusal, one_line
from botapi.domain.fleet_settings import TokenExchange
from botapi.domain.service_accounts import TOKEN_MIN_LIFE_S, Subject

TIMEOUT_S = 10
"""Time for each step of an exchange, and for its answer."""
MAX_BYTES = 64 * 1024
MAX_TOKEN_CHARS = 16 * 1024
MAX_LIFE_S = 86_400
"""A token is not believed to live longer than a day."""
MAX_TOKENS = 1_000
MAX_EXCHANGES = 2
"""Exchanges under way in a process: each holds one of its few native threads."""
WAIT_S = 20
"""Longest that a call waits for the exchange of another one."""
ANY_ACCOUNT = "*"
SHOWN_CHARS = 300
_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a kind
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
_AGAIN_LATER = frozenset({408, 425, 429})

log = logging.getLogger(__name__)

Wanted = tuple[TokenExchange, str, tuple[str, ...]]
"""What a cached token is for: where it came from, the subject's name, the scopes."""


class Minter(Protocol):
    """Makes access tokens of accounts."""

    def access_token(
        self, issuer: str, account: str, scopes: Sequence[str], subject: Subject
    ) -> MintedToken:
        """A token with at least 300 s to live; the same one may be given out again.

        `issuer` is the URL that identity tokens of ours name. Raises Refusal
        FAILED_PRECONDITION when there will be none, INTERNAL when trying again may help.
        """
        ...


class TokenExchangeMinter:
    """The minter of one process; any thread or greenlet may ask."""

    def __init__(
        self,
        exchanges: Callable[[], Mapping[str, TokenExchange]],
        issuer: OidcIssuer,
        concurrency: Concurrency,
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._exchanges = exchanges
        self._issuer = issuer
        self._concurrency = concurrency
        self._clock = clock
        self._rng = rng
        self._lock = native_lock()
        self._tokens: OrderedDict[Wanted, MintedToken] = OrderedDict()
        self._busy: dict[Wanted, Event] = {}

    def access_token(
        self, issuer: str, account: str, scopes: Sequence[str], subject: Subject
    ) -> MintedToken:
        """See `Minter.access_token`."""
        exchanges = self._exchanges()
        exchange = exchanges.get(account) or exchanges.get(ANY_ACCOUNT)
        if exchange is None:
            raise _refused(f"no token_exchange in settings.cfg is for {account}")
        wanted = (exchange, subject.name, tuple(sorted(set(scopes))))
        with self._lock:
            found = self._fresh(wanted)
            busy = self._busy.get(wanted)
            mine = self._concurrency.event()
            if found is None and busy is None:
                if len(self._busy) >= MAX_EXCHANGES:
                    raise _transient("other exchanges are under way")
                self._busy[wanted] = mine
        if found is not None:
            return found
        return self._await(wanted, busy) if busy else self._mint(issuer, wanted, subject, mine)

    def _fresh(self, wanted: Wanted) -> MintedToken | None:
        """A token that lives long enough; one that does not is forgotten."""
        found = self._tokens.get(wanted)
        if found is None:
            return None
        if found.expires_s - self._clock.now_ms() / 1000 <= TOKEN_MIN_LIFE_S:
            del self._tokens[wanted]
            return None
        self._tokens.move_to_end(wanted)
        return found

    def _await(self, wanted: Wanted, busy: Event) -> MintedToken:
        busy.wait(WAIT_S)
        with self._lock:
            found = self._fresh(wanted)
        if found is None:
            raise _transient("another call tried in vain a moment ago")
        return found

    def _mint(self, issuer: str, wanted: Wanted, subject: Subject, mine: Event) -> MintedToken:
        exchange, _, scopes = wanted
        now_ms = self._clock.now_ms()
        try:
            shown = self._issuer.id_token(
                issuer, subject, exchange.audience, now_ms=now_ms, jti=self._rng.token(16)
            )
            minted = self._concurrency.outside(
                partial(exchange_token, exchange.endpoint, shown.text, scopes, now_ms // 1000)
            )
            with self._lock:
                self._tokens[wanted] = minted
                if len(self._tokens) > MAX_TOKENS:
                    self._tokens.popitem(last=False)
            return minted
        finally:
            with self._lock:
                del self._busy[wanted]
            mine.set()


def exchange_token(
    endpoint: str, subject_token: str, scopes: Sequence[str], now_s: int
) -> MintedToken:
    """Ask an endpoint for an access token (RFC 8693 section 2). Blocks its thread.

    No redirects; https, or http to this machine. Raises Refusal as `Minter.access_token`.
    """
    problem = url_problem(endpoint)
    if problem:
        raise _refused(problem)
    form = {
        "grant_type": _GRANT,
        "subject_token": subject_token,
        "subject_token_type": _ID_TOKEN,
        "requested_token_type": _ACCESS_TOKEN,
        "scope": " ".join(scopes),
    }
    status, body = _post(endpoint, urlencode(form).encode())
    if status >= 500 or status in _AGAIN_LATER:
        raise _transient(f"{endpoint} answers {status}")
    if status != 200:
        raise _refused(f"{endpoint} answers {status}{_said(body)}")
    return _minted(endpoint, body, now_s)


def _post(endpoint: str, form: bytes) -> tuple[int, bytes]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    try:
        with http_pool(headers, TIMEOUT_S) as pool:
            reply = pool.request("POST", endpoint, body=form, redirect=False, preload_content=False)
            try:
                return reply.status, read_body(reply, MAX_BYTES, TIMEOUT_S)
            finally:
                reply.close()
    except TooLong as error:
        raise _refused(f"{endpoint}: an answer of {error}") from None
    except TooSlow as error:
        raise _transient(f"{endpoint}: {error}") from None
    except (urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
        raise _transient(f"{endpoint}: {type(error).__name__}") from None


def _minted(endpoint: str, body: bytes, now_s: int) -> MintedToken:
    """The token in a good answer (RFC 8693 section 2.2.1)."""
    said = _object(body)
    text, life_s = said.get("access_token"), said.get("expires_in")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TOKEN_CHARS or not text.isascii():
        raise _refused(f"{endpoint}: no access_token in the answer")
    if str(said.get("token_type", "Bearer")).lower() != "bearer":
        raise _refused(f"{endpoint}: the token is no bearer token")
    if not isinstance(life_s, int) or life_s <= TOKEN_MIN_LIFE_S:
        raise _refused(f"{endpoint}: expires_in is not more than {TOKEN_MIN_LIFE_S} seconds")
    return MintedToken(text, now_s + min(life_s, MAX_LIFE_S))


def _said(body: bytes) -> str:
    """What a refusal says of itself (RFC 6749 section 5.2), in a few words."""
    said = _object(body)
    words = [said.get(name) for name in ("error", "error_description")]
    text = ": ".join(word for word in words if isinstance(word, str))[:SHOWN_CHARS]
    return f": {text}" if text else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refused(why: str) -> Refusal:
    log.warning("token exchange refused: %s", one_line(why))
    return Refusal(Code.FAILED_PRECONDITION, f"there is no access token: {why}")


def _transient(why: str) -> Refusal:
    log.warning("token exchange failed: %s", one_line(why))
    return Refusal(Code.INTERNAL, f"there is no access token now ({why}); try again")
