"""Who somebody is and what was granted to them: API keys, users and sessions of one process.

A request with an API key costs one read by key. Users are remembered until the store
notifies a change of one, and at most two seconds without; what the configuration grants is
remembered for one revision of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botapi.auth.access import (
    KIND as API_KEYS,
)
from botapi.auth.access import (
    ApiKey,
    authenticate,
    bad_api_key,
    grants_body,
    read_api_key,
    read_grants,
)
from botapi.clock import Clock
from botapi.domain.access_rules import AccessRules, normal
from botapi.domain.permissions import Caller, Grant
from botapi.store import schema
from botapi.store.protocol import Doc, Key, Store

KIND = "user"
TOPIC = "user"
SESSIONS = "session"
MAX_REMEMBERED = 10_000
"""People whose records and grants a process remembers at one time."""
LOOK_AGAIN_S = 2.0
"""Longest that a process goes by what it remembers, should a notification be lost."""
SESSION_LIFE_S = 12 * 3600
USED_EVERY_MS = 60_000
"""How often a process writes down which keys were used."""


@dataclass(frozen=True, slots=True)
class User:
    """A person or script. Times in ms since 1970; `disabled_ms` is 0 while it is welcome.

    `grants` are its own, beside those of the configuration.
    """

    identity: str
    grants: frozenset[Grant] = frozenset()
    created_ms: int = 0
    disabled_ms: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that signed in, with the API key `key_id` or as `identity` at an issuer."""

    session_id: str
    identity: str
    key_id: str = ""
    created_ms: int = 0


def user_key(identity: str) -> Key:
    """Key of kind `user`: e-mail addresses in lower case."""
    return normal(identity)


def user_doc(user: User, was: Doc | None = None) -> Doc:
    """Kind `user`."""
    body = {
        "identity": user.identity,
        "grants": grants_body(user.grants),
        "created_ms": user.created_ms,
        "disabled_ms": user.disabled_ms,
    }
    return Doc(user_key(user.identity), schema.body(body, was))


def read_user(doc: Doc | None) -> User | None:
    """The user in a document."""
    if doc is None:
        return None
    body = doc.body
    grants = read_grants(body["grants"])
    return User(body["identity"], grants, body["created_ms"], body["disabled_ms"])


def session_doc(session: Session) -> Doc:
    """Kind `session`; ids begin with the time, so that the oldest comes first."""
    body: Mapping[str, Any] = {
        "identity": session.identity,
        "key_id": session.key_id,
        "created_ms": session.created_ms,
    }
    return Doc(session.session_id, schema.body(body))


@dataclass(slots=True)
class Directory:
    """The people that one process knows of. Connect `hear` to `Store.subscribe`.

    `rules` are those of the configuration in force.
    """

    store: Store
    rules: Callable[[], AccessRules]
    clock: Clock
    _users: dict[str, User | None] = field(default_factory=dict)
    _granted: dict[str, frozenset[Grant]] = field(default_factory=dict)
    _granted_by: AccessRules | None = None
    _forgot_at: float = 0.0
    _used: dict[str, int] = field(default_factory=dict)
    _wrote_used_ms: int = 0

    def of_api_key(self, presented: str) -> tuple[ApiKey, Caller]:
        """Whose key it is. Raises Refusal UNAUTHENTICATED in one wording."""
        now_ms = self.clock.now_ms()
        key = authenticate(self.store, presented, now_ms=now_ms)
        caller = self.of_key(key)
        if caller is None:
            raise bad_api_key()
        self._note(key, now_ms)
        return key, caller

    def of_key(self, key: ApiKey) -> Caller | None:
        """What the owner of a good key may do with it; None when the owner is disabled."""
        return self.of_identity(key.identity, key.own_grants, key.scope)

    def of_identity(
        self,
        identity: str,
        own: frozenset[Grant] = frozenset(),
        scope: frozenset[Grant] | None = None,
    ) -> Caller | None:
        """What somebody may do, `own` beside what is granted to them; None when disabled."""
        user = self.user(identity)
        if user is not None:
            if user.disabled_ms:
                return None
            own |= user.grants
        return Caller(identity, own | self._configured(identity), scope)

    def of_session(self, session_id: str) -> tuple[Session, ApiKey | None, Caller] | None:
        """Whose session it is; None when it, its key or its owner is no good any more."""
        (doc,) = self.store.get(SESSIONS, session_id)
        if doc is None:
            return None
        session = Session(
            session_id, doc.body["identity"], doc.body["key_id"], doc.body["created_ms"]
        )
        if self.clock.now_ms() - session.created_ms > SESSION_LIFE_S * 1000:
            return None
        key = self._good_key(session.key_id) if session.key_id else None
        if session.key_id and key is None:
            return None
        caller = self.of_key(key) if key else self.of_identity(session.identity)
        return None if caller is None else (session, key, caller)

    def user(self, identity: str) -> User | None:
        """What is stored of a person, at most two seconds old; None for nothing."""
        now = self.clock.monotonic()
        if now - self._forgot_at >= LOOK_AGAIN_S:
            self._users, self._forgot_at = {}, now
        known, at = self._users, user_key(identity)
        if at not in known:
            if len(known) >= MAX_REMEMBERED:
                known.clear()
            known[at] = read_user(self.store.get(KIND, at)[0])  # a change since then made it void
        return known[at]

    def hear(self, topic: str) -> None:
        """Forget the people when one of them changed, here or elsewhere."""
        if topic in {TOPIC, "*"}:
            self._users = {}

    def take_used(self) -> dict[str, int]:
        """When keys were used since the last time, by key id; empty until a minute has passed."""
        now_ms = self.clock.now_ms()
        if not self._used or now_ms - self._wrote_used_ms < USED_EVERY_MS:
            return {}
        used, self._used = self._used, {}
        self._wrote_used_ms = now_ms
        return used

    def _note(self, key: ApiKey, now_ms: int) -> None:
        if len(self._used) < MAX_REMEMBERED and now_ms - key.used_ms >= USED_EVERY_MS:
            self._used[key.key_id] = now_ms

    def _good_key(self, key_id: str) -> ApiKey | None:
        (doc,) = self.store.get(API_KEYS, key_id)
        key = None if doc is None else read_api_key(key_id, doc.body)
        return key if key and key.is_good(self.clock.now_ms()) else None

    def _configured(self, identity: str) -> frozenset[Grant]:
        """What the configuration grants."""
        rules = self.rules()
        if self._granted_by is not rules or len(self._granted) >= MAX_REMEMBERED:
            self._granted, self._granted_by = {}, rules
        granted = self._granted
        if identity not in granted:
            granted[identity] = rules.grants_of(identity)
        return granted[identity]
