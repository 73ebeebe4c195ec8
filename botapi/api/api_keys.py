"""API keys of people and scripts: everybody has to do with their own, administrators with all.

A key has the rights of its owner, cut down to its scope. A key with a scope makes no other
keys, and one that expires makes none that live longer.
"""

from collections.abc import Iterable

import msgspec

from botapi.api import cursors, queries
from botapi.api.access import check_server
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.people import Person
from botapi.api.queries import refuse
from botapi.api.users import GrantBody, grants_view, read_grants
from botapi.api.views import rfc3339
from botapi.auth.access import KIND, ApiKey, new_api_key, read_api_key
from botapi.auth.directory import user_key
from botapi.domain.access_rules import identity_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Grant, Permission
from botapi.store import codec
from botapi.store.protocol import Doc
from botapi.transactions import create_api_key as transactions

MAX_NAME = 100
MAX_KEYS = 100
"""Most good keys that one person has."""
MAX_LIFE_S = 10 * 365 * 86_400
"""Longest life of a key that expires."""
_KEY_ID_CHARS = 40


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api-keys`. Without `scope` all that the owner may; 0 s is for ever."""

    name: str
    owner: str = ""
    scope: list[GrantBody] | None = None
    expires_s: int = 0


KEY_BODY = Body(KeyBody)


def listed(parts: ApiParts, caller: Caller, query: Query) -> Json:
    """One page of keys by id, revoked ones too; without the right to more, the caller's own."""
    queries.check_names(query, ("limit", "cursor", "owner"))
    owner = queries.last(query, "owner")
    if not caller.may(Permission.ADMINISTER):
        if owner and user_key(owner) != user_key(caller.identity):
            check_server(caller, Permission.ADMINISTER)
        owner = caller.identity
    page = parts.store.find(
        KIND,
        [frozenset({f"o:{user_key(owner)}"})] if owner else [],
        after=cursors.read_cursor(parts, "api-keys", query),
        limit=queries.page_limit(query),
    )
    return {
        "items": [key_view(read_api_key(doc.key, doc.body)) for doc in page.docs],
        "next_cursor": cursors.next_cursor(parts, "api-keys", query, page.after),
    }


def create(parts: ApiParts, person: Person, body: KeyBody) -> Json:
    """A key; its text is in this answer and nowhere else."""
    owner = body.owner or person.caller.identity
    _check_maker(parts, person, owner)
    name = " ".join(body.name.split())
    if not 1 <= len(name) <= MAX_NAME:
        raise refuse("/name", f"has {len(name)} characters, not 1 to {MAX_NAME}")
    if not 0 <= body.expires_s <= MAX_LIFE_S:
        raise refuse("/expires_s", f"is {body.expires_s}, not 0 to {MAX_LIFE_S}")
    now_ms = parts.clock.now_ms()
    own = person.key if person.key and owner == person.caller.identity else None
    text, key = new_api_key(
        name,
        own.role if own else None,
        parts.rng,
        now_ms=now_ms,
        owner=owner,
        scope=None if body.scope is None else _scope(body.scope),
        expires_ms=_expiry(now_ms, body.expires_s, person.key),
    )
    audit = _audit(parts, person, "apikey.create", key, "", _said(key))
    transactions.create_api_key(parts.store, key, also=lambda txn: txn.put(codec.AUDIT, audit))
    return key_view(key) | {"key": text}


def revoke(parts: ApiParts, person: Person, key_id: str) -> Json:
    """End a key at once. Raises Refusal NOT_FOUND, also for a key of somebody else."""
    docs = parts.store.get(KIND, key_id) if 1 <= len(key_id) <= _KEY_ID_CHARS else [None]
    key = None if docs[0] is None else read_api_key(key_id, docs[0].body)
    is_own = key is not None and user_key(key.identity) == user_key(person.caller.identity)
    if key is None or not (is_own or person.caller.may(Permission.ADMINISTER)):
        raise Refusal(Code.NOT_FOUND, f'there is no API key "{key_id[:40]}"')
    _check_scope(person, "revokes")
    audit = _audit(parts, person, "apikey.revoke", key, _said(key), "revoked")
    transactions.revoke_api_key(
        parts.store,
        key_id,
        now_ms=parts.clock.now_ms(),
        also=lambda txn: txn.put(codec.AUDIT, audit),
    )
    (doc,) = parts.store.get(KIND, key_id)
    return key_view(read_api_key(key_id, doc.body)) if doc else key_view(key)


def _check_maker(parts: ApiParts, person: Person, owner: str) -> None:
    """May this person make a key for that owner?"""
    if person.is_anonymous:
        raise Refusal(Code.UNAUTHENTICATED, "sign in first")
    _check_scope(person, "makes")
    if user_key(owner) != user_key(person.caller.identity):
        check_server(person.caller, Permission.ADMINISTER)
        if problem := identity_problem(owner):
            raise refuse("/owner", problem)
        user = parts.directory.user(owner)
        if user is None or user.disabled_ms:
            raise refuse("/owner", f"there is no user {owner[:80]}, or it is disabled")
    tag = frozenset({f"o:{user_key(owner)}"})
    keys = parts.store.find(KIND, [tag], after=None, limit=MAX_KEYS * 10).docs
    if sum(_is_good(doc, parts.clock.now_ms()) for doc in keys) >= MAX_KEYS:
        raise Refusal(
            Code.RESOURCE_EXHAUSTED, f"{owner} has {MAX_KEYS} keys; revoke those not in use"
        )


def _check_scope(person: Person, verb: str) -> None:
    if person.caller.scope is not None:
        raise Refusal(Code.PERMISSION_DENIED, f"an API key with a scope {verb} no keys")


def _is_good(doc: Doc, now_ms: int) -> bool:
    return read_api_key(doc.key, doc.body).is_good(now_ms)


def _scope(said: list[GrantBody]) -> frozenset[Grant]:
    if not said:
        raise refuse("/scope", "is empty: such a key may do nothing; leave it out for all")
    return read_grants("/scope", said)


def _expiry(now_ms: int, life_s: int, maker: ApiKey | None) -> int:
    """When the new key expires: never later than the one it is made with."""
    wanted = now_ms + life_s * 1000 if life_s else 0
    latest = maker.expires_ms if maker else 0
    if not latest:
        return wanted
    return min(wanted or latest, latest)


def _audit(parts: ApiParts, person: Person, verb: str, key: ApiKey, before: str, after: str) -> Doc:
    return codec.audit_doc(
        at_ms=parts.clock.now_ms(),
        entry_id=parts.new_id(),
        actor=person.name,
        verb=verb,
        target=f"apikey {key.key_id}",
        reason="",
        before=before,
        after=after,
    )


def _said(key: ApiKey) -> str:
    scope = "all" if key.scope is None else _words(key.scope)
    until = f" until {rfc3339(key.expires_ms)}" if key.expires_ms else ""
    return f"of {key.identity}, scope {scope}{until}"


def _words(grants: Iterable[Grant]) -> str:
    return ", ".join(sorted(f"{grant.role} {grant.pool or '*'}" for grant in grants)[:20])


def key_view(key: ApiKey) -> Json:
    """A key, without its secret. `role` is what it may do whatever its owner may."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "owner": key.identity,
        "role": str(key.role) if key.role else None,
        "scope": None if key.scope is None else grants_view(key.scope),
        "created_at": rfc3339(key.created_ms),
        "expires_at": rfc3339(key.expires_ms),
        "revoked_at": rfc3339(key.revoked_ms),
        "used_at": rfc3339(key.used_ms),
    }
