"""The bot, not the task, failed: the run ends and the fault is named (bot-api 5.7)."""

from dataclasses import dataclass
from typing import Any

from botapi.bot_call import BotCall, BotServer, Reply
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.transactions.update_task import Missing, end_with_error


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """Inputs that do not exist: the task's author is to blame."""

    missing_cas: list[Any] | None = None
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
    client = request.client_error or ClientError()
    ending = Ending(
        by=EndedBy.TASK_ERROR,
        client_error=bool(client.missing_cas or client.missing_cipd),
        error=request.message or "",
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
