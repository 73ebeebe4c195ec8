"""Blobs of bots: inputs of the task that runs, and its outputs (docs/blobs.md).

Whoever knows a digest may read the blob: it cannot be guessed, and whoever could compute it
has the bytes. Beyond that a bot needs a run: it names it, and it must be its own.
"""

from typing import Any

import msgspec

from botapi.blobs.transfer import Piece, Source, parse
from botapi.bot_call import BotCall, BotServer, Reply
from botapi.domain.errors import Code, Refusal


class MissingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /skep/v1/blobs/missing`."""

    session: str | None = None
    task_id: str | None = None
    digests: list[str] | None = None
    skep: dict[str, Any] | None = None


def missing(server: BotServer, call: BotCall, request: MissingRequest) -> Reply:
    """Which of these digests have to be uploaded."""
    check_run(call, request.task_id or "")
    return Reply({"missing": server.blobs.missing(request.digests or [])})


def fetch(server: BotServer, call: BotCall, task_id: str, digest: str, asked: str) -> Piece:
    """A blob, or a part of it."""
    check_run(call, task_id)
    return server.blobs.send(parse(digest, "digest"), asked)


def keep(
    server: BotServer, call: BotCall, task_id: str, digest: str, source: Source, length: int | None
) -> bool:
    """Take an output in; was it new?"""
    check_run(call, task_id)
    return server.blobs.receive(parse(digest, "digest"), source, length)


def check_run(call: BotCall, task_id: str) -> None:
    """Raises Refusal FAILED_PRECONDITION unless this is what the bot runs now."""
    if not task_id or call.bot.task_id != task_id or call.is_superseded:
        raise Refusal(Code.FAILED_PRECONDITION, f"this bot does not run {task_id[:64] or 'a task'}")
