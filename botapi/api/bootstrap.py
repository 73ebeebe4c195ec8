"""Bootstrap tokens: the line to paste on a machine."""

from shlex import quote

import msgspec

from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import refuse
from botapi.api.views import rfc3339
from botapi.auth.bootstrap import new_token, sign_token
from botapi.auth.keys import SIGNING
from botapi.domain.dimensions import value_problem
from botapi.store import codec
from botapi.transactions.enrol_bot import create_bootstrap_token


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bootstrap-tokens`."""

    uses: int = 1
    ttl_s: int = 3600
    pool: str | None = None


TOKEN_BODY = Body(TokenBody)


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
        "expires_at": rfc3339(token.expires_ms),
        "uses": token.uses,
        "command": f"curl -fsS {quote(f'{base_url}/bootstrap?tok={text}')} | python3 -",
    }
