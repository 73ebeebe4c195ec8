"""The archive, or the way to it (bot-api 8.4)."""

from dataclasses import dataclass
from urllib.parse import quote

from botapi.auth.access import bearer
from botapi.auth.proof import Instance, Machine
from botapi.bot_call import AnyReply, Archive, BotServer, Call, Redirect
from botapi.cfg.bot_archive import with_comment
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id
from botapi.domain.permissions import Permission

PATH = "/swarming/api/v1/bot/bot_code"
ENROLLING_PATH = "/skep/v1/bot_code"

_REFUSALS = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT})
"""Of the access check; anything else is trouble of ours and stays what it is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`token` is None when the query has none; an empty one is present and bad.

    `authorization` is the header: an API key there is as good as a bot's credentials.
    """

    version: str
    token: str | None
    bot_id: str
    has_query: bool
    authorization: str = ""


def bot_code(server: BotServer, call: Call, asked: Asked) -> AnyReply:
    """A known version is for anybody who knows it; without one the caller is checked."""
    found = server.archives.find(asked.version, call.base_url) if asked.version else None
    if found is not None:
        if asked.has_query:
            return Redirect(f"{PATH}/{found.version}", found.version)
        return Archive(found.content, found.version, is_public=True)
    if asked.token is not None:
        server.check_bootstrap(asked.token, call)
        stable = server.archives.archive(call.base_url)
        location = f"{ENROLLING_PATH}/{stable.version}?tok={quote(asked.token)}"
        return Redirect(location, stable.version)
    _check_caller(server, call, asked)
    stable = server.archives.archive(call.base_url)
    return Redirect(f"{PATH}/{stable.version}", stable.version)


def _check_caller(server: BotServer, call: Call, asked: Asked) -> None:
    """A bot with the credentials of its group, or somebody who may create bots."""
    why = "give a bootstrap token (?tok=...), an API key, or call as a bot with its credentials"
    try:
        bot_id = asked.bot_id or _proven_id(server, call)
        if bot_id:
            check_bot_id(bot_id)
            group = server.config.cached().bots.group_of(bot_id)
            server.authorize(bot_id, group.auth, call)
            return
    except Refusal as error:
        if error.code not in _REFUSALS:
            raise
        why = error.message
    if not _may_create_bots(server, asked.authorization):
        raise Refusal(Code.PERMISSION_DENIED, why)


def _proven_id(server: BotServer, call: Call) -> str:
    """The machine that a machine token or a token of a virtual machine is about."""
    proof = server.verified(call).proof
    match proof.evidence if proof is not None else None:
        case Machine(fqdn=fqdn):
            return fqdn.partition(".")[0]
        case Instance(name=name):
            return name
        case _:
            return ""


def _may_create_bots(server: BotServer, authorization: str) -> bool:
    """Has the owner of this API key `swarming.pools.createBot` for the whole server?"""
    if not authorization:
        return False
    try:
        _, caller = server.directory.of_api_key(bearer(authorization))
    except Refusal:
        return False
    return caller.may(Permission.CREATE_BOT)


def with_token(server: BotServer, call: Call, version: str, token: str) -> AnyReply:
    """The stable archive with the bootstrap token in its comment (docs/extensions.md)."""
    server.check_bootstrap(token, call)
    archive = server.archives.archive(call.base_url)
    if version != archive.version:
        return Redirect(f"{ENROLLING_PATH}/{archive.version}?tok={quote(token)}", archive.version)
    return Archive(with_comment(archive.content, token), archive.version, is_public=False)
