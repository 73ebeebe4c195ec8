"""Something a bot wants kept: four kinds only (bot-api 1.6)."""

from dataclasses import dataclass
from typing import Any

from botapi.bot_call import BotCall, BotServer, Reply, read_state
from botapi.domain.bot import health_of
from botapi.domain.bot_event import FROM_BOTS, BotUpdate, CallInfo
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_request_uuid
from botapi.transactions.update_bot import state_problem, update_bot

MAX_VERSION_CHARS = 128
MAX_MESSAGE_CHARS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRequest:
    """Body of `POST /event`."""

    session: str | None = None
    event: str | None = None
    message: str | None = None
    state: Any = None
    version: str | None = None
    request_uuid: str | None = None
    dimensions: Any = None
    skep: dict[str, Any] | None = None


def event(server: BotServer, call: BotCall, request: EventRequest) -> Reply:
    """Keep it, once for each `request_uuid`."""
    kind = next((known for known in FROM_BOTS if known == request.event), None)
    if kind is None:
        names = ", ".join(sorted(FROM_BOTS))
        raise Refusal(Code.INVALID_ARGUMENT, f"event: not one of {names}")
    uuid = request.request_uuid or ""
    if not is_request_uuid(uuid):
        raise Refusal(Code.INVALID_ARGUMENT, "request_uuid: not 0 to 50 of a-zA-Z0-9-_/")
    state, wrong = read_state(request.state)
    problem = wrong[0] if wrong else state_problem(state)
    if problem:
        raise Refusal(Code.INVALID_ARGUMENT, f"state: {problem}")
    if len(request.version or "") > MAX_VERSION_CHARS:
        raise Refusal(Code.INVALID_ARGUMENT, f"version: over {MAX_VERSION_CHARS} characters")
    if call.is_superseded:
        return Reply({})
    health = None
    if state:
        quarantined = unflatten(call.bot.dimensions).get("quarantined", [])
        said = {"quarantined": quarantined} if quarantined else {}
        health = health_of(state, said, ())
    update = BotUpdate(
        kind,
        message=(request.message or "")[:MAX_MESSAGE_CHARS],
        dedup_key=uuid,
        state=state or None,
        call=CallInfo(
            call.session.session_id,
            call.call.presented.peer_ip,
            call.identity.name,
            request.version or "",
        ),
        health=health,
    )
    update_bot(
        server.store, call.bot.bot_id, update, server.stamp(call.call, uuid), once=bool(uuid)
    )
    server.last_seen.touch(call.bot.bot_id, call.call.now_ms, state=state)
    return Reply({})
