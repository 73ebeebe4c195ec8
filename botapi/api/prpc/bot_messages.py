"""Bots and their events as messages (prpc-api 4)."""

from collections.abc import Mapping
from typing import Any

from swarmingpb.swarming_pb2 import BotEventResponse, BotInfo

from botapi.api.prpc.values import string_lists, timestamp
from botapi.domain.bot import Bot, Health, LiveBot, explain_in_state
from botapi.domain.bot_event import BotEvent
from botapi.domain.names import parse_task_id
from botapi.wire_json import dumps


def bot_info(bot: Bot, live: LiveBot | None) -> BotInfo:
    """A bot that there is. `live` is what every call refreshes; None when it was never stored."""
    termination = bot.termination_task_id if bot.dead else ""
    return BotInfo(
        bot_id=bot.bot_id,
        task_id=bot.task_id,
        external_ip=bot.external_ip,
        authenticated_as=bot.authenticated_as,
        first_seen_ts=timestamp(bot.first_seen_ms),
        is_dead=bot.dead,
        last_seen_ts=timestamp(live.seen_ms if live else bot.first_seen_ms),
        quarantined=bool(bot.quarantined),
        maintenance_msg=bot.maintenance,
        dimensions=string_lists(bot.dimensions),
        task_name=bot.task_name,
        version=bot.version,
        state=_state(live.state if live else None, bot.health),
        session_id=bot.session_id,
        termination_task_id=parse_task_id(termination) if termination else "",
    )


def deleted_bot_info(event: BotEvent) -> BotInfo:
    """A bot that is gone, by the last that happened to it: no task, never dead (prpc-api 5.1)."""
    return BotInfo(
        bot_id=event.bot_id,
        external_ip=event.external_ip,
        authenticated_as=event.authenticated_as,
        last_seen_ts=timestamp(event.at_ms),
        quarantined=bool(event.quarantined),
        maintenance_msg=event.maintenance,
        dimensions=string_lists(event.dimensions),
        version=event.version,
        state=_state(event.state, Health(event.quarantined, event.maintenance)),
        deleted=True,
        session_id=event.session_id,
    )


def event_response(event: BotEvent) -> BotEventResponse:
    """An event of a bot."""
    return BotEventResponse(
        ts=timestamp(event.at_ms),
        event_type=str(event.kind),
        message=event.message,
        dimensions=string_lists(event.dimensions),
        state=_state(event.state, Health(event.quarantined, event.maintenance)),
        external_ip=event.external_ip,
        authenticated_as=event.authenticated_as,
        version=event.version,
        quarantined=bool(event.quarantined),
        maintenance_msg=event.maintenance,
        task_id=event.task_id,
        session_id=event.session_id,
    )


def _state(state: Mapping[str, Any] | None, health: Health) -> str:
    """JSON text, with the reason of a quarantine where pages look for it."""
    return dumps(explain_in_state(state or {}, health)).decode()
