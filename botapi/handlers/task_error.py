"""The bot, not the task, failed: the run ends and the fault is named (bot-api 5.7)."""

import re
from dataclasses import dataclass
from typing import Any

from botapi.bot_call import BotCall, BotServer, Reply
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_request_uuid, parse_task_id
from botapi.transactions.update_task import Missing, end_with_error

MAX_MESSAGE_CHARS = 16_384
DIGEST = re.compile(r"[0-9a-zA-Z]{1,128}/[0-9]{1,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingCas:
    """An input by digest that the bot could not fetch."""

    digest: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """Inputs that do not exist: the task's author is to blame."""

    missing_cas: list[MissingCas] | None = None
    missing_cipd: list[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskErrorRequest:
    """Body of `POST /task_error`."""

    session: str | None = None
    task_id: str | None = None
    id: str | None = None
    message: str | None = None
    request_uuid: str | None = None
    client_error: ClientError | None = None
    skep: dict[str, Any] | None = None


def task_error(server: BotServer, call: BotCall, request: TaskErrorRequest) -> Reply:
    """End the current run. The reply is exactly `{}`: bots trip over anything else."""
    if not request.task_id:
        raise Refusal(Code.INVALID_ARGUMENT, "task_id: missing")
    if call.bot.task_id != request.task_id or call.is_superseded:
        return Reply({})
    try:
        task_id = parse_task_id(request.task_id)
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"task_id: {error}") from None
    if not is_request_uuid(request.request_uuid or ""):
        raise Refusal(Code.INVALID_ARGUMENT, "request_uuid: not 0 to 50 of a-zA-Z0-9-_/")
    client = request.client_error or ClientError()
    for place, missing in enumerate(client.missing_cas or ()):
        if not DIGEST.fullmatch(missing.digest or ""):
            line = f"client_error.missing_cas[{place}].digest: not <hash>/<size>"
            raise Refusal(Code.INVALID_ARGUMENT, line)
    ending = Ending(
        by=EndedBy.TASK_ERROR,
        client_error=bool(client.missing_cas or client.missing_cipd),
        error=(request.message or "")[:MAX_MESSAGE_CHARS],
    )
    outcome = end_with_error(
        server.store,
        call.bot.bot_id,
        task_id,
        ending,
        dedup_key=request.request_uuid or "",
        stamp=server.stamp(call.call),
    )
    if isinstance(outcome, Missing):
        raise Refusal(Code.NOT_FOUND, f"no task {task_id}")
    server.last_seen.touch(call.bot.bot_id, call.call.now_ms)
    return Reply({})
