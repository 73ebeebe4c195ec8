"""The public keys of outside issuers (JSON Web Key Sets, RFC 7517), kept in memory.

A set is fetched when it is first needed, again after an hour, and at most once a minute when a
token names a key that is not in it. The last good set is kept through an outage of its issuer.
One fetch at a time runs in a process, on a native thread; whoever needs it waits, nobody else.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import urllib3
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from botapi.auth.outside import TooLong, TooSlow, http_pool, read_body, url_problem
from botapi.clock import Clock
from botapi.concurrency import Concurrency, Event, native_lock
from botapi.domain.errors import Code, Refusal, one_line
from botapi.domain.fleet_settings import OidcProvider

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Public-key signatures only: a shared secret (`HS...`) or `none` proves nothing here."""

REFRESH_S = 3600
"""Age after which a set is fetched again, while the old one still serves."""
AGAIN_S = 60
"""Least time between two fetches of one issuer that has answered before."""
RETRY_S = 5
"""Least time between two tries of an issuer that never answered."""
TIMEOUT_S = 5
"""Time for each step of a fetch, and for its body."""
WAIT_S = 20
"""Longest that a call waits for keys."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_ISSUERS = 64
DISCOVERY = "/.well-known/openid-configuration"

Fetch = Callable[[str], bytes]
"""The body behind a URL. Raises FetchFailed."""

log = logging.getLogger(__name__)


class FetchFailed(Exception):
    """One line that says why there is no answer, or none that can be used."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer by key id; several may share one."""

    keys: Mapping[str, tuple[PyJWK, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, key_id: str, algorithm: str) -> PyJWK | None:
        """The key of this id and algorithm; without an id the only one of the algorithm."""
        if key_id:
            found = [key for key in self.keys.get(key_id, ()) if key.algorithm_name == algorithm]
            return found[0] if found else None
        all_keys = [key for keys in self.keys.values() for key in keys]
        fitting = [key for key in all_keys if key.algorithm_name == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def read_key_set(text: str | bytes) -> KeySet:
    """The keys in a JSON key set; those that are not for our signatures are left out.

    Raises FetchFailed when it is no key set, and when no key is left.
    """
    entries = _object(text).get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise FetchFailed(f"not a key set of at most {MAX_KEYS} keys")
    keys: dict[str, tuple[PyJWK, ...]] = {}
    for entry in entries:
        key = _key(entry)
        if key is not None:
            key_id = key.key_id if isinstance(key.key_id, str) else ""
            keys[key_id] = (*keys.get(key_id, ()), key)
    if not keys:
        raise FetchFailed(f"no key for any of {', '.join(ALGORITHMS)}")
    return KeySet(keys)


def _key(entry: object) -> PyJWK | None:
    """The key of an entry, None when it is not for checking our kinds of signatures."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK(entry)
        weak = key.Algorithm.check_key_length(key.key)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if key.algorithm_name in ALGORITHMS and not weak else None


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise FetchFailed("not JSON") from None
    if not isinstance(value, dict):
        raise FetchFailed("not a JSON object")
    return value


@lru_cache(maxsize=MAX_ISSUERS)
def _inline(text: str) -> KeySet:
    return read_key_set(text)


@dataclass(slots=True)
class _Entry:
    """What is known of one issuer. Times are monotonic seconds."""

    key_set: KeySet | None = None
    fetched_at: float = 0.0
    tried_at: float = float("-inf")
    problem: str = "not asked yet"


class KeySets:
    """The key sets of one process; any thread or greenlet may ask."""

    def __init__(self, concurrency: Concurrency, clock: Clock, fetch: Fetch | None = None) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._fetch = fetch or fetch_url
        self._entries: dict[OidcProvider, _Entry] = {}
        self._lock = native_lock()
        self._busy: Event | None = None

    def find(self, provider: OidcProvider, key_id: str, algorithm: str) -> PyJWK | None:
        """See `proof.Keys.find`."""
        if provider.jwks:
            return self._find_inline(provider, key_id, algorithm)
        entry = self._entries.get(provider)
        found = entry.key_set.find(key_id, algorithm) if entry and entry.key_set else None
        if entry is None or found is None:
            entry = self._refreshed(provider)
            if entry.key_set is None:
                raise _unavailable(provider, entry.problem)
            return entry.key_set.find(key_id, algorithm)
        now = self._clock.monotonic()
        if now - entry.fetched_at >= REFRESH_S and now - entry.tried_at >= AGAIN_S:
            self._concurrency.spawn(self._refreshed, provider)
        return found

    def _find_inline(self, provider: OidcProvider, key_id: str, algorithm: str) -> PyJWK | None:
        try:
            return _inline(provider.jwks).find(key_id, algorithm)
        except FetchFailed as error:
            raise _unavailable(provider, f"jwks in settings.cfg: {error}") from None

    def _refreshed(self, provider: OidcProvider) -> _Entry:
        """The entry after a fetch, or as it is when the last try was a moment ago."""
        mine = self._concurrency.event()
        while True:
            with self._lock:
                busy = self._busy
                entry = self._entry(provider)
                if busy is None:
                    pause = AGAIN_S if entry.key_set is not None else RETRY_S
                    now = self._clock.monotonic()
                    if now - entry.tried_at < pause:
                        return entry
                    entry.tried_at = now
                    self._busy = mine
                    break
            if not busy.wait(WAIT_S):
                raise _unavailable(provider, "other issuers are slow to answer")
        try:
            self._load(provider, entry)
        finally:
            with self._lock:
                self._busy = None
            mine.set()
        return entry

    def _entry(self, provider: OidcProvider) -> _Entry:
        entry = self._entries.get(provider)
        if entry is None:
            if len(self._entries) >= MAX_ISSUERS:  # settings.cfg changed that often
                self._entries.pop(next(iter(self._entries)))
            entry = self._entries[provider] = _Entry()
        return entry

    def _load(self, provider: OidcProvider, entry: _Entry) -> None:
        try:
            key_set = self._concurrency.outside(lambda: load_key_set(provider, self._fetch))
        except FetchFailed as error:
            entry.problem = one_line(str(error))
            kept = "the last good keys are used" if entry.key_set else "there are no keys"
            log.warning("keys of %s: %s; %s", provider.issuer, entry.problem, kept)
            return
        entry.key_set, entry.fetched_at = key_set, self._clock.monotonic()


def _unavailable(provider: OidcProvider, why: str) -> Refusal:
    return Refusal(
        Code.INTERNAL, f"the keys of {provider.issuer} cannot be had now ({why}); try again"
    )


def load_key_set(provider: OidcProvider, fetch: Fetch) -> KeySet:
    """Ask an issuer for its keys: at `jwks_uri`, else where its discovery document says.

    Raises FetchFailed.
    """
    url = provider.jwks_uri or _discovered(provider, fetch)
    return read_key_set(fetch(url))


def _discovered(provider: OidcProvider, fetch: Fetch) -> str:
    """The `jwks_uri` of the discovery document (OpenID Connect Discovery 1.0, section 4)."""
    found = _object(fetch(provider.issuer.rstrip("/") + DISCOVERY))
    url = found.get("jwks_uri")
    if found.get("issuer") != provider.issuer:
        raise FetchFailed("the discovery document is of another issuer")
    if not isinstance(url, str):
        raise FetchFailed("the discovery document has no jwks_uri")
    if url.startswith("http:") and not provider.issuer.startswith("http:"):
        raise FetchFailed(f"the discovery document points to {url[:200]}, which is not https")
    return url


def fetch_url(url: str) -> bytes:
    """GET without redirects: https, or http to this machine. Raises FetchFailed.

    Blocks its thread, for a few times `TIMEOUT_S` at most.
    """
    problem = url_problem(url)
    if problem:
        raise FetchFailed(problem)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        with http_pool(headers, TIMEOUT_S) as pool:
            reply = pool.request("GET", url, redirect=False, preload_content=False)
            try:
                if reply.status != 200:
                    raise FetchFailed(f"{url} answers {reply.status}")
                return read_body(reply, MAX_BYTES, TIMEOUT_S)
            finally:
                reply.close()
    except (TooLong, TooSlow) as error:
        raise FetchFailed(f"{url}: {error}") from None
    except (urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
        raise FetchFailed(f"{url}: {type(error).__name__}") from None
