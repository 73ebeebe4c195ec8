"""The archive, or the way to it (bot-api 8.4)."""

from dataclasses import dataclass
from urllib.parse import quote

from botapi.auth.access import Role, authenticate, bearer
from botapi.bot_call import AnyReply, Archive, BotServer, Call, Redirect
from botapi.cfg.bot_archive import with_comment
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id

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
    if asked.bot_id:
        try:
            check_bot_id(asked.bot_id)
            group = server.config.cached().bots.group_of(asked.bot_id)
            server.authorize(asked.bot_id, group.auth, call)
        except Refusal as error:
            if error.code not in _REFUSALS:
                raise
            why = error.message
        else:
            return
    if not _may_create_bots(server, asked.authorization):
        raise Refusal(Code.PERMISSION_DENIED, why)


def _may_create_bots(server: BotServer, authorization: str) -> bool:
    """The right `swarming.pools.createBot` on the whole server: an admin's API key."""
    if not authorization:
        return False
    try:
        return authenticate(server.store, bearer(authorization)).role is Role.ADMIN
    except Refusal:
        return False


def with_token(server: BotServer, call: Call, version: str, token: str) -> AnyReply:
    """The stable archive with the bootstrap token in its comment (docs/extensions.md)."""
    server.check_bootstrap(token, call)
    archive = server.archives.archive(call.base_url)
    if version != archive.version:
        return Redirect(f"{ENROLLING_PATH}/{archive.version}?tok={quote(token)}", archive.version)
    return Archive(with_comment(archive.content, token), archive.version, is_public=False)
