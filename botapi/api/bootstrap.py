"""Bootstrap tokens: the line to paste on a machine."""

from shlex import quote

import msgspec

from botapi.api import access, cursors, queries
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.views import rfc3339
from botapi.auth.bootstrap import BootstrapToken, is_token_id, new_token, sign_token
from botapi.auth.keys import SIGNING
from botapi.domain.dimensions import value_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Permission
from botapi.store import codec
from botapi.transactions.enrol_bot import (
    create_bootstrap_token,
    list_bootstrap_tokens,
    read_bootstrap_token,
    revoke_bootstrap_token,
)

LISTING = "bootstrap tokens"


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bootstrap-tokens`."""

    uses: int = 1
    ttl_s: int = 3600
    pool: str | None = None


class RevokeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bootstrap-tokens/<id>/revoke`."""

    reason: str = ""


TOKEN_BODY = Body(TokenBody)
REVOKE_BODY = Body(RevokeBody)


def create(parts: ApiParts, actor: str, body: TokenBody, base_url: str) -> Json:
    """A token that is stored, and shown this once."""
    problem = value_problem("pool", body.pool) if body.pool is not None else ""
    if problem:
        raise refuse("/pool", problem)
    now_ms = parts.clock.now_ms()
    token = new_token(
        uses=body.uses,
        ttl_s=body.ttl_s,
        pool=body.pool or "",
        creator=actor,
        rng=parts.rng,
        now_ms=now_ms,
    )
    audit = codec.audit_doc(
        at_ms=now_ms,
        entry_id=parts.new_id(),
        actor=actor,
        verb="bootstrap.create",
        target=f"bootstrap token {token.token_id}",
        reason="",
        before="",
        after=f"{token.uses} uses until {rfc3339(token.expires_ms)}",
    )
    create_bootstrap_token(parts.store, token, also=lambda txn: txn.put(codec.AUDIT, audit))
    text = sign_token(token, parts.keys.keys(SIGNING))
    return {
        "token": text,
        "token_id": token.token_id,
        "expires_at": rfc3339(token.expires_ms),
        "uses": token.uses,
        "command": f"curl -fsS {quote(f'{base_url}/bootstrap?tok={text}')} | python3 -",
    }


def listed(parts: ApiParts, caller: Caller, query: Query) -> Json:
    """One page of the tokens of pools in which the caller may add bots; never a token itself."""
    queries.check_names(query, ("limit", "cursor"))
    now_ms = parts.clock.now_ms()
    tokens, after = list_bootstrap_tokens(
        parts.store,
        after=cursors.read_cursor(parts, LISTING, query),
        limit=queries.page_limit(query),
    )
    own = (token for token in tokens if caller.may(Permission.CREATE_BOT, token.pool))
    return {
        "items": [_view(token, now_ms) for token in own],
        "next_cursor": cursors.next_cursor(parts, LISTING, query, after),
    }


def revoke(parts: ApiParts, caller: Caller, actor: str, token_id: str, body: RevokeBody) -> Json:
    """End a token at once; who enrolled with it stays. Raises Refusal NOT_FOUND."""
    token = read_bootstrap_token(parts.store, token_id) if is_token_id(token_id) else None
    if token is None:
        access.check_server(caller, Permission.CREATE_BOT)
        raise Refusal(Code.NOT_FOUND, f'there is no bootstrap token "{token_id[:40]}"')
    access.check_pools(caller, Permission.CREATE_BOT, [token.pool] if token.pool else [])
    now_ms = parts.clock.now_ms()
    audit = codec.audit_doc(
        at_ms=now_ms,
        entry_id=parts.new_id(),
        actor=actor,
        verb="bootstrap.revoke",
        target=f"bootstrap token {token_id}",
        reason=queries.reason(body.reason),
        before=f"{token.uses_left} of {token.uses} uses left",
        after="revoked",
    )
    revoke_bootstrap_token(
        parts.store, token_id, now_ms=now_ms, also=lambda txn: txn.put(codec.AUDIT, audit)
    )
    return _view(read_bootstrap_token(parts.store, token_id) or token, now_ms)


def _view(token: BootstrapToken, now_ms: int) -> Json:
    return {
        "token_id": token.token_id,
        "pool": token.pool or None,
        "creator": token.creator,
        "uses": token.uses,
        "uses_left": token.uses_left,
        "created_at": rfc3339(token.created_ms),
        "expires_at": rfc3339(token.expires_ms),
        "revoked_at": rfc3339(token.revoked_ms),
        "problem": token.problem(now_ms) or None,
    }
