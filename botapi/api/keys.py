"""The keys that sign: which there are, a rotation begun, a key ended (docs/keys.md)."""

import msgspec

from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import reason
from botapi.api.views import rfc3339
from botapi.auth.keys import OIDC, SESSION, SIGNING
from botapi.domain.errors import Code, Refusal
from botapi.domain.key_rotation import Key, KeySet, KeyState, active_of, changes_ms
from botapi.transactions.rotate_keys import ROTATING, begin_rotation, revoke_key

NO_MORE = {
    SESSION: "every bot whose session it signed is refused once and opens a new session; "
    "one with a task may lose it",
    SIGNING: "bootstrap lines, page sign-ins, open forms and list cursors that it signed are void",
    OIDC: "identity tokens that it signed are refused by whoever reads the key set again",
}
"""What stops working when a key of the purpose is revoked."""
AFTER = {KeyState.NEXT: "active", KeyState.VERIFY: "retired", KeyState.ACTIVE: None}


class RevokeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /keys/<purpose>/revoke`."""

    key_id: str
    reason: str = ""


REVOKE_BODY = Body(RevokeBody)


def listed(parts: ApiParts) -> Json:
    """Every key by purpose, the one that signs last; never its bytes."""
    items = [_view(purpose, key) for purpose in ROTATING for key in parts.keys.key_set(purpose)]
    return {"items": items, "next_cursor": None}


def rotate(parts: ApiParts, purpose: str, actor: str) -> Json:
    """Publish a new key; the server does the rest. Raises Refusal ALREADY_EXISTS meanwhile."""
    _check(parts, purpose)
    after = begin_rotation(
        parts.store,
        purpose,
        parts.keys.new_key(purpose),
        actor=actor,
        entry_id=parts.new_id(),
        now_ms=parts.clock.now_ms(),
    )
    return _set_view(purpose, after)


def revoke(parts: ApiParts, purpose: str, actor: str, body: RevokeBody) -> Json:
    """End a key at once, and say what that stops. Raises Refusal NOT_FOUND."""
    why = reason(body.reason)
    before = _check(parts, purpose)
    stops = [_stops(purpose, key) for key in before if key.key_id == body.key_id]
    after = revoke_key(
        parts.store,
        purpose,
        body.key_id,
        parts.keys.new_key(purpose),
        actor=actor,
        reason=why,
        entry_id=parts.new_id(),
        now_ms=parts.clock.now_ms(),
    )
    return {**_set_view(purpose, after), "revoked": body.key_id, "stops": "".join(stops)}


def _check(parts: ApiParts, purpose: str) -> KeySet:
    """The set of a purpose, which is made if need be. Raises Refusal NOT_FOUND."""
    if purpose not in ROTATING:
        known = ", ".join(ROTATING)
        raise Refusal(Code.NOT_FOUND, f'there are no "{purpose[:40]}" keys; use {known}')
    return parts.keys.key_set(purpose)


def _set_view(purpose: str, keys: KeySet) -> Json:
    return {
        "purpose": purpose,
        "signs": active_of(keys).key_id,
        "keys": [_view(purpose, key) for key in keys],
    }


def _view(purpose: str, key: Key) -> Json:
    changes = changes_ms(key, ROTATING[purpose])
    return {
        "purpose": purpose,
        "key_id": key.key_id,
        "state": str(key.state),
        "created_at": rfc3339(key.created_ms),
        "since": rfc3339(key.since_ms),
        "then": AFTER[key.state],
        "then_at": rfc3339(changes) if changes is not None else None,
        "revoke_stops": _stops(purpose, key),
    }


def _stops(purpose: str, key: Key) -> str:
    return "nothing: it signed nothing yet" if key.state is KeyState.NEXT else NO_MORE[purpose]
