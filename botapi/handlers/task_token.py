"""Tokens of the accounts that a task and its bot act as, and who vouches for them.

`oauth_token` and `id_token` are bot-api 1.9; the two documents below are what others check
identity tokens with (docs/task-tokens.md).
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botapi import __version__
from botapi.auth.oidc_issuer import CACHE_S, MintedToken
from botapi.bot_call import BotCall, BotServer, Call, Reply
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id, run_id
from botapi.domain.service_accounts import (
    NONE,
    Subject,
    check_act_as,
    is_allowed_audience,
    is_literal,
)
from botapi.domain.task import TaskRequest
from botapi.domain.value_rules import is_email
from botapi.store import codec

MAX_SCOPES = 100
MAX_SCOPE_CHARS = 512
MAX_AUDIENCE_CHARS = 1024
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_PUBLIC = (("Cache-Control", f"public, max-age={CACHE_S}"),)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """Body of `POST /oauth_token` and `POST /id_token`."""

    session: str | None = None
    account_id: str | None = None
    task_id: str | None = None
    scopes: list[str] | None = None
    audience: str | None = None
    skep: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Asker:
    """The account, and for whom its token is; no subject where a word stands for no token.

    `task` is run and name, for the log.
    """

    account: str
    subject: Subject | None = None
    task: str = "none"


def oauth_token(server: BotServer, call: BotCall, request: TokenRequest) -> Reply:
    """An access token with these scopes, or a word that stands for no token."""
    _refuse_superseded(call)
    _check_account_id(request)
    scopes = request.scopes or []
    if not scopes:
        raise _bad("scopes: missing")
    if len(scopes) > MAX_SCOPES:
        raise _bad(f"scopes: {len(scopes)} entries, at most {MAX_SCOPES} are allowed")
    for scope in scopes:
        if len(scope) > MAX_SCOPE_CHARS or _SCOPE.fullmatch(scope) is None:
            raise _bad(f'scopes: not 1 to {MAX_SCOPE_CHARS} of printable ASCII: "{scope[:80]}"')
    if request.audience:
        raise _bad("audience: is for identity tokens; leave it out")
    asker = _who(server, call, request)
    if asker.subject is None:
        return Reply({"service_account": asker.account})
    minted = server.minter.access_token(call.call.base_url, asker.account, scopes, asker.subject)
    return _minted(call, "access_token", asker, minted, scopes)


def id_token(server: BotServer, call: BotCall, request: TokenRequest) -> Reply:
    """An identity token of ours for this audience, or a word that stands for no token."""
    _refuse_superseded(call)
    _check_account_id(request)
    audience = request.audience or ""
    if request.scopes:
        raise _bad("scopes: are for access tokens; leave them out")
    if not audience:
        raise _bad("audience: missing")
    if len(audience) > MAX_AUDIENCE_CHARS:
        raise _bad(f"audience: over {MAX_AUDIENCE_CHARS} characters")
    asker = _who(server, call, request)
    if asker.subject is None:
        return Reply({"service_account": asker.account})
    if not is_allowed_audience(audience, server.config.cached().fleet.id_token_audiences):
        raise _precondition(f'audience "{audience}" is no id_token_audience of settings.cfg')
    minted = server.issuer.id_token(
        call.call.base_url,
        asker.subject,
        audience,
        now_ms=call.call.now_ms,
        jti=server.rng.token(16),
    )
    return _minted(call, "id_token", asker, minted, [audience])


def openid_configuration(server: BotServer, call: Call) -> Reply:
    """`GET /.well-known/openid-configuration`."""
    return Reply(server.issuer.configuration(call.base_url), _PUBLIC)


def jwks(server: BotServer) -> Reply:
    """`GET /.well-known/jwks.json`."""
    return Reply(server.issuer.jwks(), _PUBLIC)


def _refuse_superseded(call: BotCall) -> None:
    """A later process of this bot id took it over: no token for this one."""
    if call.is_superseded:
        raise Refusal(Code.PERMISSION_DENIED, "a later session of this bot id is there")


def _check_account_id(request: TokenRequest) -> None:
    if request.account_id not in {"task", "system"}:
        raise _bad(f'account_id: neither task nor system: "{(request.account_id or "")[:40]}"')


def _who(server: BotServer, call: BotCall, request: TokenRequest) -> _Asker:
    if request.account_id == "system":
        return _system(call)
    current = call.bot.task_id
    try:
        key = codec.task_key(parse_task_id(request.task_id or ""))
    except ValueError:
        raise _bad(f'task_id: not a task id: "{(request.task_id or "")[:40]}"') from None
    if request.task_id != current:
        raise _bad(f"task_id: this bot does not run {request.task_id}")
    req, task = (*server.store.get(codec.REQ, key), *server.store.get(codec.TASK, key))
    if req is None or task is None:
        raise _bad(f"task_id: there is no task {request.task_id}")
    if codec.read_task(task).is_final:  # a dead bot goes on naming its task (bot-api 5.6)
        raise _bad(f"task_id: {request.task_id} has ended")
    return _task(server, call, codec.read_request(req))


def _system(call: BotCall) -> _Asker:
    account = call.session.bot_config.system_service_account
    if is_literal(account):
        return _Asker(account or NONE)
    if not is_email(account):
        raise _precondition(f'system_service_account of this bot is not an e-mail: "{account}"')
    pool = min(unflatten(call.bot.dimensions)["pool"])
    return _Asker(account, Subject("system", account, pool, call.bot.bot_id))


def _task(server: BotServer, call: BotCall, request: TaskRequest) -> _Asker:
    account = request.service_account
    if is_literal(account):
        return _Asker(account or NONE)
    if not is_email(account):
        raise _precondition(f'service_account of the task is not an e-mail: "{account}"')
    if not request.realm:
        raise _precondition("the task has no realm")
    check_act_as(request.service_account, request.slices[0].pool, server.config.cached().pools)
    subject = Subject(
        "task",
        account,
        request.slices[0].pool,
        call.bot.bot_id,
        task_id=request.task_id,
        run_id=run_id(request.task_id),
        user=request.user,
        realm=request.realm,
    )
    return _Asker(account, subject, f"{subject.run_id} ({request.name})")


def _minted(
    call: BotCall, name: str, asker: _Asker, minted: MintedToken, wanted: Sequence[str]
) -> Reply:
    """The reply; the log says who got what, and never the token (bot-api 1.9)."""
    log.info(
        "%s of %s for %s until %d: bot %s, task %s, request %s, server %s",
        name,
        asker.account,
        " ".join(wanted),
        minted.expires_s,
        call.bot.bot_id,
        asker.task,
        call.call.request_id,
        __version__,
    )
    return Reply(
        {
            "service_account": asker.account,
            name: minted.text,
            "expiry": minted.expires_s,
        }
    )


def _bad(text: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, text)


def _precondition(text: str) -> Refusal:
    return Refusal(Code.FAILED_PRECONDITION, text)
