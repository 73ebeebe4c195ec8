"""The archive, or the way to it (bot-api 8.4)."""

from dataclasses import dataclass
from urllib.parse import quote

from botapi.bot_call import AnyReply, Archive, BotServer, Call, Redirect
from botapi.cfg.bot_archive import with_comment
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id

PATH = "/swarming/api/v1/bot/bot_code"
ENROLLING_PATH = "/skep/v1/bot_code"


@dataclass(frozen=True, slots=True)
class Asked:
    """`token` is None when the query has none; an empty one is present and bad."""

    version: str
    token: str | None
    bot_id: str
    has_query: bool


def bot_code(server: BotServer, call: Call, asked: Asked) -> AnyReply:
    """A known version is for anybody who knows it; without one the caller is checked."""
    archive = server.archives.archive(call.base_url)
    if asked.version and asked.version == archive.version:
        if asked.has_query:
            return Redirect(f"{PATH}/{archive.version}", archive.version)
        return Archive(archive.content, archive.version, is_public=True)
    if asked.token is not None:
        server.check_bootstrap(asked.token, call)
        location = f"{ENROLLING_PATH}/{archive.version}?tok={quote(asked.token)}"
        return Redirect(location, archive.version)
    _check_bot(server, call, asked.bot_id)
    return Redirect(f"{PATH}/{archive.version}", archive.version)


def _check_bot(server: BotServer, call: Call, bot_id: str) -> None:
    if not bot_id:
        raise Refusal(
            Code.PERMISSION_DENIED,
            "give a bootstrap token (?tok=...), or call as a bot with its id and credentials",
        )
    check_bot_id(bot_id)
    group = server.config.cached().bots.group_of(bot_id)
    try:
        server.authorize(bot_id, group.auth, call)
    except Refusal as error:
        raise Refusal(Code.PERMISSION_DENIED, error.message) from None


def with_token(server: BotServer, call: Call, version: str, token: str) -> AnyReply:
    """The archive with the bootstrap token in its comment (docs/extensions.md)."""
    server.check_bootstrap(token, call)
    archive = server.archives.archive(call.base_url)
    if version != archive.version:
        return Redirect(f"{ENROLLING_PATH}/{archive.version}?tok={quote(token)}", archive.version)
    return Archive(with_comment(archive.content, token), archive.version, is_public=False)
