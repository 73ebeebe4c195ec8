"""The bot, not the task, failed: the run ends and the fault is named (bot-api 5.7)."""

import re
from dataclasses import dataclass
from typing import Any

from botapi.bot_call import BotCall, BotServer, Reply, call_info
from botapi.domain.artifacts import CasDigest, CasReference, CipdPackage
from botapi.domain.bot_event import key_of_uuid
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.transactions.update_task import Failure, Foreign, Missing, end_with_error

MAX_MESSAGE_CHARS = 16_384
MAX_MISSING = 100
"""Most missing inputs of a kind that are kept: the message says what went wrong."""
MAX_MISSING_CHARS = 1_024
"""Most characters kept of a name in one of them."""
DIGEST = re.compile(r"[0-9a-zA-Z]{1,128}/[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingCas:
    """An input by digest that the bot could not fetch."""

    digest: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """Inputs that do not exist: the task's author is to blame."""

    missing_cas: list[MissingCas] | None = None
    missing_cipd: list[CipdPackage] | None = None


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
        error=(request.message or "")[:MAX_MESSAGE_CHARS],
        missing_cas=_missing_cas(client.missing_cas or []),
        missing_cipd=tuple(map(_cut, (client.missing_cipd or [])[:MAX_MISSING])),
    )
    failure = Failure(
        call.bot.bot_id,
        task_id,
        ending,
        key_of_uuid(request.request_uuid or ""),
        call_info(call.session.session_id, call.call, call.identity),
    )
    match end_with_error(server.store, failure, server.stamp(call.call)):
        case Missing():
            raise Refusal(Code.NOT_FOUND, f"no task {task_id}")
        case Foreign(bot_id):
            raise Refusal(Code.INVALID_ARGUMENT, f'task_id: recorded for "{bot_id}"')
        case _:
            server.last_seen.touch(call.bot.bot_id, call.call.now_ms)
            return Reply({})


def _missing_cas(said: list[MissingCas]) -> tuple[CasReference, ...]:
    for place, missing in enumerate(said):
        if not DIGEST.fullmatch(missing.digest or ""):
            line = f"client_error.missing_cas[{place}].digest: not <hash>/<size>"
            raise Refusal(Code.INVALID_ARGUMENT, line)
    found = []
    for missing in said[:MAX_MISSING]:
        name, _, size = (missing.digest or "").partition("/")
        instance = (missing.instance or "")[:MAX_MISSING_CHARS]
        found.append(CasReference(instance, CasDigest(name, int(size))))
    return tuple(found)


def _cut(package: CipdPackage) -> CipdPackage:
    texts = (package.package_name, package.version, package.path)
    return CipdPackage(*(text and text[:MAX_MISSING_CHARS] for text in texts))
