"""People and scripts: who may do what by a grant of their own, and who is disabled.

What the configuration grants stands beside it, see docs/permissions.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from botapi.api import cursors, queries
from botapi.api.access import check_server
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.people import Person
from botapi.api.queries import refuse
from botapi.api.views import rfc3339
from botapi.auth.directory import KIND, User, read_user, user_key
from botapi.domain.access_rules import identity_problem
from botapi.domain.dimensions import value_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import GRANTABLE, SERVER, Caller, Grant, Permission, Role
from botapi.store import codec
from botapi.store.protocol import Txn
from botapi.transactions.change_user import Change, change_user

MAX_GRANTS = 100
"""Most grants that one person or API key has of its own."""


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """A role, for a pool or (without one) for the whole server."""

    role: str
    pool: str = SERVER


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /users`."""

    identity: str
    grants: list[GrantBody] = []


class ChangeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PATCH /users/<identity>`; what is left out stays as it is."""

    grants: list[GrantBody] | msgspec.UnsetType = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    reason: str = ""


USER_BODY = Body(UserBody)
CHANGE_BODY = Body(ChangeBody)


def whoami(person: Person) -> Json:
    """Who the caller is, and what was granted to them."""
    key = person.key
    scope = person.caller.scope
    return {
        "actor": person.name,
        "role": person.role,
        "identity": person.caller.identity,
        "grants": grants_view(person.caller.grants),
        "scope": None if scope is None else grants_view(scope),
        "api_key": key.key_id if key else None,
        "expires_at": rfc3339(key.expires_ms) if key else None,
    }


def listed(parts: ApiParts, caller: Caller, query: Query) -> Json:
    """One page of users by identity; of the caller's own record without the right to more."""
    queries.check_names(query, ("limit", "cursor"))
    if not caller.may(Permission.ADMINISTER):
        own = parts.directory.user(caller.identity)
        items = [user_view(parts, own)] if own else []
        return {"items": items, "next_cursor": None}
    page = parts.store.find(
        KIND,
        [],
        after=cursors.read_cursor(parts, "users", query),
        limit=queries.page_limit(query),
    )
    users = [user for user in map(read_user, page.docs) if user]
    return {
        "items": [user_view(parts, user) for user in users],
        "next_cursor": cursors.next_cursor(parts, "users", query, page.after),
    }


def create(parts: ApiParts, person: Person, body: UserBody) -> Json:
    """A new user. Raises Refusal ALREADY_EXISTS."""
    if problem := identity_problem(body.identity):
        raise refuse("/identity", problem)
    now_ms = parts.clock.now_ms()
    made = User(body.identity, read_grants("/grants", body.grants), now_ms)

    def change(before: User | None) -> User:
        if before is not None:
            raise Refusal(Code.ALREADY_EXISTS, f"there is a user {body.identity} already")
        return made

    return _changed(parts, person, body.identity, "user.create", "", change)


def change(parts: ApiParts, person: Person, identity: str, body: ChangeBody) -> Json:
    """Other grants, disabled or enabled. Raises Refusal NOT_FOUND."""
    grants = None
    if not isinstance(body.grants, msgspec.UnsetType):
        grants = read_grants("/grants", body.grants)
    if body.disabled is True and user_key(identity) == user_key(person.caller.identity):
        raise refuse("/disabled", "nobody disables themselves; let somebody else do it")
    now_ms = parts.clock.now_ms()

    def apply(before: User | None) -> User:
        if before is None:
            raise Refusal(Code.NOT_FOUND, f'there is no user "{identity[:80]}"')
        after = before if grants is None else replace(before, grants=grants)
        if body.disabled is True:
            return replace(after, disabled_ms=before.disabled_ms or now_ms)
        return replace(after, disabled_ms=0) if body.disabled is False else after

    return _changed(parts, person, identity, "user.change", queries.reason(body.reason), apply)


def _changed(
    parts: ApiParts,
    person: Person,
    identity: str,
    verb: str,
    reason: str,
    change: Change,
) -> Json:
    check_server(person.caller, Permission.ADMINISTER)
    at_ms, entry_id = parts.clock.now_ms(), parts.new_id()

    def audit(txn: Txn, before: User | None, after: User) -> None:
        entry = codec.audit_doc(
            at_ms=at_ms,
            entry_id=entry_id,
            actor=person.name,
            verb=verb,
            target=f"user {after.identity}",
            reason=reason,
            before=_said(before) if before else "",
            after=_said(after),
        )
        txn.put(codec.AUDIT, entry)

    _, after = change_user(parts.store, identity, change, also=audit)
    return user_view(parts, after)


def _said(user: User) -> str:
    grants = ", ".join(f"{g['role']} {g['pool'] or '*'}" for g in grants_view(user.grants)[:20])
    return f"{'disabled' if user.disabled_ms else 'enabled'}; {grants or 'no grants'}"


def user_view(parts: ApiParts, user: User) -> Json:
    """A user: own grants, and all that the configuration adds."""
    found = parts.config.cached().meaning.access.grants_of(user.identity)
    return {
        "identity": user.identity,
        "grants": grants_view(user.grants),
        "config_grants": grants_view(found),
        "created_at": rfc3339(user.created_ms),
        "disabled_at": rfc3339(user.disabled_ms),
    }


def grants_view(grants: Iterable[Grant]) -> list[Json]:
    """Grants in order; the pool of one for the whole server is null."""
    return [
        {"role": str(grant.role), "pool": grant.pool or None}
        for grant in sorted(grants, key=lambda grant: (grant.pool, grant.role))
    ]


def read_grants(place: str, said: Sequence[GrantBody]) -> frozenset[Grant]:
    """The grants in a body. Raises Refusal with the place of the mistake."""
    if len(said) > MAX_GRANTS:
        raise refuse(place, f"has {len(said)} entries, at most {MAX_GRANTS}")
    for number, grant in enumerate(said):
        if grant.role not in set(GRANTABLE):
            known = ", ".join(GRANTABLE)
            raise refuse(f"{place}/{number}/role", f'"{grant.role[:40]}" is no role; use {known}')
        problem = value_problem("pool", grant.pool) if grant.pool else ""
        if problem:
            raise refuse(f"{place}/{number}/pool", problem)
    return frozenset(Grant(Role(grant.role), grant.pool) for grant in said)
