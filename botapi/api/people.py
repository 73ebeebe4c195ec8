"""Who asks: an API key in the header, the cookie of a page session, or nobody in particular.

An API key is never taken from a cookie. A page session is a signed text that names its key;
the key is read again at every request, so that revoking it ends the session at once.
"""

from dataclasses import dataclass

from botapi.api.parts import ApiParts
from botapi.auth.access import KIND, Role, authenticate, bearer, read_api_key
from botapi.auth.keys import SIGNING
from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.domain import permissions
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Grant

SESSION_COOKIE = "skep_session"
SESSION_LIFE_S = 12 * 3600
READER = "reader"


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `session_id` is empty without a page session."""

    name: str
    role: str
    session_id: str = ""

    @property
    def may_change(self) -> bool:
        """May they do more than read?"""
        return self.role == Role.ADMIN

    @property
    def caller(self) -> Caller:
        """The same, as the rules of permissions take it."""
        if self is ANYBODY:
            return Caller("anonymous:anonymous", frozenset({Grant(permissions.Role.VIEWER)}))
        role = permissions.Role.ADMIN if self.may_change else permissions.Role.VIEWER
        return Caller(f"user:{self.name}", frozenset({Grant(role)}))


ANYBODY = Person("anonymous", READER)


def person_of_call(parts: ApiParts, authorization: str, cookie: str) -> Person:
    """Who makes this call. Raises Refusal UNAUTHENTICATED.

    The cookie and nothing at all are good for reading only: the caller checks that.
    """
    if authorization:
        actor = authenticate(parts.store, bearer(authorization))
        return Person(actor.name, str(actor.role))
    person = person_of_session(parts, cookie) if cookie else None
    if person is not None:
        return person
    if parts.settings.anonymous_read:
        return ANYBODY
    raise no_key()


def no_key() -> Refusal:
    """Nobody in particular asks, and nobody in particular may."""
    return Refusal(
        Code.UNAUTHENTICATED, "no API key; send the header Authorization: Bearer <API key>"
    )


def sign_in(parts: ApiParts, api_key: str) -> tuple[str, Person]:
    """A new page session for the owner of an API key. Raises Refusal UNAUTHENTICATED."""
    actor = authenticate(parts.store, api_key)
    person = Person(actor.name, str(actor.role), parts.new_id())
    value = {"k": api_key.split("_", 2)[1], "a": person.name, "s": person.session_id}
    text = sign(Purpose.UI_SESSION, parts.keys.keys(SIGNING), value, now_ms=parts.clock.now_ms())
    return text, person


def person_of_session(parts: ApiParts, cookie: str) -> Person | None:
    """The owner of a page session; None when it is over, revoked, or not ours."""
    try:
        value = unsign(
            Purpose.UI_SESSION,
            parts.keys.keys(SIGNING),
            cookie,
            now_ms=parts.clock.now_ms(),
            max_age_s=SESSION_LIFE_S,
        )
    except BadSignature:
        return None
    (doc,) = parts.store.get(KIND, value["k"])
    key = None if doc is None else read_api_key(value["k"], doc.body)
    if key is None or key.revoked_ms or key.name != value["a"]:
        return None
    return Person(key.name, str(key.role), value["s"])


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
