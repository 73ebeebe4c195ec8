"""A machine trades its bootstrap token for a secret of its own (docs/extensions.md)."""

import re
from dataclasses import dataclass

from botapi.auth.bootstrap import check_bootstrap_token
from botapi.auth.credentials import secret_digest
from botapi.auth.keys import SIGNING
from botapi.bot_call import BotServer, Call, Reply
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id, host_id
from botapi.transactions.enrol_bot import enrol_bot

SECRET_BYTES = 32
SECRET = re.compile(r"[A-Za-z0-9_\-]{43,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollRequest:
    """Body of `POST /skep/v1/enroll`."""

    bot_id: str | None = None
    token: str | None = None
    secret: str | None = None
    """A secret that the bot made itself, so that a retry is the same enrolment."""


def enroll(server: BotServer, call: Call, request: EnrollRequest) -> Reply:
    """A new secret for the bot's host, stored as its digest. One call is one use of the token."""
    check_bot_id(request.bot_id or "")
    if not request.token:
        raise Refusal(Code.INVALID_ARGUMENT, "token: missing")
    # The record is asked inside the transaction, which knows a repeat of the last use.
    keys = server.keys.keys(SIGNING)
    token_id = check_bootstrap_token(keys, request.token, now_ms=call.now_ms)
    secret = request.secret or server.rng.token(SECRET_BYTES)
    if not SECRET.fullmatch(secret):
        raise Refusal(Code.INVALID_ARGUMENT, "secret: not 43 to 128 of A-Z a-z 0-9 - _")
    host = host_id(request.bot_id or "")
    group = server.config.latest().bots.group_of(host)
    enrol_bot(
        server.store,
        host,
        token_id,
        secret_digest(secret),
        pools=group.dimensions.get("pool", ()),
        now_ms=call.now_ms,
    )
    return Reply({"secret": secret})
