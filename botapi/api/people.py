"""Who asks: an API key or access token in the header, the cookie of a page session, or nobody.

An API key is never taken from a cookie. A page session is a signed text that names a stored
session; session, key and owner are looked at again at every request, so that ending one of
them ends everything that hangs on it at once. An access token is a signed text of the same
kind with an hour's life, made for the scripts of pages, which send no cookies.
"""

from dataclasses import dataclass

from botapi import logs
from botapi.api.parts import ApiParts
from botapi.auth.access import ApiKey, bad_api_key, bearer
from botapi.auth.directory import SESSION_LIFE_S, SESSIONS, Session, User
from botapi.auth.keys import SIGNING
from botapi.auth.sign_in import PENDING_LIFE_S, Pending
from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import ANONYMOUS, Caller, Grant, Role
from botapi.transactions.change_user import change_user, end_session, open_session

SESSION_COOKIE = "skep_session"
ACCESS_TOKEN_LIFE_S = 2 * 3600
OLD_SESSIONS = 20
"""Sessions that are over and are removed at each sign-in, the oldest first."""
TOKEN_PREFIX = "skept_"  # noqa: S105 - tells access tokens from API keys


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `session_id` is empty without a page session, `key` None without an API key."""

    caller: Caller
    session_id: str = ""
    key: ApiKey | None = None

    @property
    def name(self) -> str:
        """What the audit record says: the identity without its kind."""
        return self.caller.name

    @property
    def role(self) -> str:
        """The strongest role of any grant, in one word."""
        return str(self.caller.strongest_role or "none")

    @property
    def is_anonymous(self) -> bool:
        """Has nobody in particular asked?"""
        return self.caller.identity == ANONYMOUS


def person_of_call(parts: ApiParts, authorization: str, cookie: str) -> Person:
    """Who makes this call. Raises Refusal UNAUTHENTICATED.

    Credentials that are no good are refused, also where nobody would be let in.
    """
    if authorization:
        return _person_of_bearer(parts, bearer(authorization))
    person = person_of_session(parts, cookie) if cookie else None
    return person or anybody(parts) or _raise_no_key()


def _noted(person: Person) -> Person:
    """The log lines of this request say who it is."""
    logs.note(actor=person.name)
    return person


def caller_of_call(parts: ApiParts, authorization: str) -> Caller:
    """Who makes a call that takes no cookie and lets nobody in as `anonymous:anonymous`.

    Raises Refusal UNAUTHENTICATED for credentials that are no good (prpc-api 1.7).
    """
    if authorization:
        return _person_of_bearer(parts, bearer(authorization)).caller
    return _anonymous(parts).caller


def _person_of_bearer(parts: ApiParts, presented: str) -> Person:
    if presented.startswith(TOKEN_PREFIX):
        person = _person_of_signed(
            parts, Purpose.ACCESS_TOKEN, presented.removeprefix(TOKEN_PREFIX), ACCESS_TOKEN_LIFE_S
        )
        if person is None:
            raise Refusal(
                Code.UNAUTHENTICATED, "the access token is not valid any more; sign in again"
            )
        return person
    key, caller = parts.directory.of_api_key(presented)
    return _noted(Person(caller, key=key))


def no_key() -> Refusal:
    """Nobody in particular asks, and nobody in particular may."""
    return Refusal(
        Code.UNAUTHENTICATED, "no API key; send the header Authorization: Bearer <API key>"
    )


def _raise_no_key() -> Person:
    raise no_key()


def anybody(parts: ApiParts) -> Person | None:
    """Who somebody is that has shown nothing; None when nothing is granted to such people."""
    person = _anonymous(parts)
    return person if person.caller.grants else None


def _anonymous(parts: ApiParts) -> Person:
    own = frozenset({Grant(Role.VIEWER)} if parts.settings.anonymous_read else ())
    return Person(parts.directory.of_identity(ANONYMOUS, own) or Caller(ANONYMOUS))


def sign_in(parts: ApiParts, api_key: str) -> tuple[str, Person]:
    """A new page session for the owner of an API key. Raises Refusal UNAUTHENTICATED."""
    key, caller = parts.directory.of_api_key(api_key)
    return _open(parts, caller, key)


def begin_sign_in(parts: ApiParts, redirect_uri: str, following: str) -> tuple[str, str] | None:
    """Where to send a browser, and a cookie for it; None without `sign_in` in settings.cfg."""
    rule = parts.config.cached().fleet.sign_in
    if rule is None:
        return None
    location, pending = parts.issuer_client.begin(rule, redirect_uri, following, parts.rng)
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    return location, sign(Purpose.SIGN_IN, keys, pending.as_json(), now_ms=now_ms)


def finish_sign_in(
    parts: ApiParts, pending: str, redirect_uri: str, state: str, code: str
) -> tuple[str, str]:
    """A session's cookie for who came back from the issuer, and the path to go to."""
    rule = parts.config.cached().fleet.sign_in
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    try:
        value = unsign(Purpose.SIGN_IN, keys, pending, now_ms=now_ms, max_age_s=PENDING_LIFE_S)
    except BadSignature:
        value = None
    if rule is None or value is None:
        raise Refusal(Code.PERMISSION_DENIED, "this browser did not begin to sign in; begin again")
    begun = Pending.of_json(value)
    identity = parts.issuer_client.finish(rule, begun, redirect_uri, state, code)
    cookie, _ = sign_in_as(parts, identity)
    return cookie, begun.following


def sign_in_as(parts: ApiParts, identity: str) -> tuple[str, Person]:
    """A new page session for somebody whom an issuer knows. Raises Refusal UNAUTHENTICATED."""
    made = User(identity, created_ms=parts.clock.now_ms())
    change_user(parts.store, identity, lambda known: known or made)
    caller = parts.directory.of_identity(identity)
    if caller is None:
        raise bad_api_key()
    return _open(parts, caller, None)


def _open(parts: ApiParts, caller: Caller, key: ApiKey | None) -> tuple[str, Person]:
    """The text of the cookie, and the person."""
    now_ms = parts.clock.now_ms()
    session = Session(
        f"{now_ms:015d}-{parts.new_id()}", caller.identity, key.key_id if key else "", now_ms
    )
    oldest = f"{max(0, now_ms - SESSION_LIFE_S * 1000):015d}"
    over = parts.store.scan_keys(SESSIONS, "", oldest, limit=OLD_SESSIONS)
    open_session(parts.store, session, over)
    text = _signed(parts, Purpose.UI_SESSION, session.session_id, now_ms)
    return text, Person(caller, session.session_id, key)


def sign_out(parts: ApiParts, session_id: str) -> None:
    """End a page session and its access tokens."""
    end_session(parts.store, session_id)


def person_of_session(parts: ApiParts, cookie: str) -> Person | None:
    """The owner of a page session; None when it is over, revoked, or not ours."""
    return _person_of_signed(parts, Purpose.UI_SESSION, cookie, SESSION_LIFE_S)


def _person_of_signed(
    parts: ApiParts, purpose: Purpose, text: str, max_age_s: int
) -> Person | None:
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    try:
        value = unsign(purpose, keys, text, now_ms=now_ms, max_age_s=max_age_s)
    except BadSignature:
        return None
    found = parts.directory.of_session(value["s"])
    if found is None:
        return None
    session, key, caller = found
    return _noted(Person(caller, session.session_id, key))


def access_token(parts: ApiParts, session_id: str) -> tuple[str, int]:
    """A token for scripts of this session's pages, and when it expires in seconds since 1970."""
    now_ms = parts.clock.now_ms()
    text = _signed(parts, Purpose.ACCESS_TOKEN, session_id, now_ms)
    ends_s = int(session_id.partition("-")[0]) // 1000 + SESSION_LIFE_S
    return TOKEN_PREFIX + text, min(now_ms // 1000 + ACCESS_TOKEN_LIFE_S, ends_s)


def _signed(parts: ApiParts, purpose: Purpose, session_id: str, now_ms: int) -> str:
    return sign(purpose, parts.keys.keys(SIGNING), {"s": session_id}, now_ms=now_ms)


def form_token(parts: ApiParts, session_id: str) -> str:
    """What a form carries to prove that one of our pages made it, for this session."""
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    return sign(Purpose.CSRF, keys, session_id, now_ms=now_ms)


def is_form_token(parts: ApiParts, session_id: str, text: str) -> bool:
    """Was this form made by one of our pages, for this very session?"""
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    try:
        found = unsign(Purpose.CSRF, keys, text, now_ms=now_ms, max_age_s=SESSION_LIFE_S)
    except BadSignature:
        return False
    return bool(session_id) and found == session_id
