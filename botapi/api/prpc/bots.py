"""`swarming.v2.Bots` (prpc-api 5): each method in the order of checks that stands there."""

from collections.abc import Callable, Mapping

from swarmingpb import swarming_pb2
from swarmingpb.swarming_pb2 import (
    BotEventsRequest,
    BotEventsResponse,
    BotInfo,
    BotInfoListResponse,
    BotRequest,
    BotsCount,
    BotsCountRequest,
    BotsRequest,
    DeleteResponse,
    TerminateRequest,
    TerminateResponse,
)

from botapi.api import access, ending
from botapi.api.bot_queries import BotFilter, count_bots, find_bots
from botapi.api.parts import MANY
from botapi.api.prpc import paging
from botapi.api.prpc.bot_dimensions import get_bot_dimensions
from botapi.api.prpc.bot_messages import bot_info, deleted_bot_info, event_response
from botapi.api.prpc.bot_tasks import list_bot_tasks
from botapi.api.prpc.call import Call, Handler
from botapi.api.prpc.paging import bad
from botapi.api.prpc.values import timestamp
from botapi.concurrency import giving_way
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import bot_id_problem
from botapi.domain.permissions import Permission
from botapi.store import codec
from botapi.store.protocol import join_key, prefix_range

LIST_BOTS = Permission.LIST_BOTS
_FLAGS = {swarming_pb2.NULL: None, swarming_pb2.FALSE: False, swarming_pb2.TRUE: True}


def get_bot(call: Call, asked: BotRequest) -> BotInfo:
    """One bot; of one that is gone what its last event says."""
    check_id(asked.bot_id)
    access.check_bot(call.parts, call.caller, LIST_BOTS, asked.bot_id)
    if bot_id_problem(asked.bot_id):
        raise no_bot(asked.bot_id)
    (doc,) = call.parts.store.get(codec.BOT, join_key(asked.bot_id))
    if doc is not None:
        live = call.parts.last_seen.get(asked.bot_id)
        return bot_info(codec.read_bot(doc), live.get(asked.bot_id))
    last = call.parts.store.scan(codec.EVENT, *prefix_range(asked.bot_id), limit=1)
    if not last:
        raise no_bot(asked.bot_id)
    return deleted_bot_info(codec.read_event(last[0]))


def delete_bot(call: Call, asked: BotRequest) -> DeleteResponse:
    """Forget a bot; one that runs comes back at its next poll."""
    check_id(asked.bot_id)
    access.check_bot(call.parts, call.caller, Permission.DELETE_BOT, asked.bot_id)
    ending.delete(call.parts, call.caller, asked.bot_id, "")
    return DeleteResponse(deleted=True)


def terminate_bot(call: Call, asked: TerminateRequest) -> TerminateResponse:
    """Ask a bot to exit: the task that does, or the one on its way."""
    check_id(asked.bot_id)
    reason = ending.one_line(asked.reason)
    access.check_bot(call.parts, call.caller, Permission.TERMINATE_BOT, asked.bot_id)
    made = ending.terminate(call.parts, call.caller, asked.bot_id, reason)
    return TerminateResponse(task_id=made.task.task_id)


def list_bot_events(call: Call, asked: BotEventsRequest) -> BotEventsResponse:
    """One page of a bot's events, latest first; none for a bot nobody knows."""
    check_id(asked.bot_id)
    parts, limit = call.parts, paging.page_limit(asked.limit)
    listing = f"ListBotEvents {asked.bot_id}"
    after = paging.read_cursor(parts, listing, asked.cursor)
    access.check_bot(parts, call.caller, LIST_BOTS, asked.bot_id)
    found = BotEventsResponse(now=timestamp(parts.clock.now_ms()))
    span = paging.time_range(asked)
    if span is None or bot_id_problem(asked.bot_id):
        return found
    lo, hi = codec.event_range(asked.bot_id, *span)

    def fill() -> None:
        docs = parts.store.find(codec.EVENT, [], after=after, limit=limit, lo=lo, hi=hi).docs
        found.items.extend(event_response(codec.read_event(doc)) for doc in giving_way(docs))
        if docs:
            is_full = len(docs) == limit
            found.cursor = paging.next_cursor(parts, listing, docs[-1].key, is_full)

    _aside(call, fill, limit)
    return found


def list_bots(call: Call, asked: BotsRequest) -> BotInfoListResponse:
    """One page of bots by id, ascending."""
    parts, limit = call.parts, paging.page_limit(asked.limit)
    after = paging.read_cursor(parts, "ListBots", asked.cursor)
    wanted = paging.constraints(asked.dimensions)
    access.check_pools(call.caller, LIST_BOTS, paging.pools_of(wanted))
    asked_for = BotFilter(
        dimensions=wanted,
        quarantined=_FLAGS[asked.quarantined],
        maintenance=_FLAGS[asked.in_maintenance],
        dead=_FLAGS[asked.is_dead],
        busy=_FLAGS[asked.is_busy],
    )
    fleet = parts.config.cached().fleet
    found = BotInfoListResponse(
        now=timestamp(parts.clock.now_ms()),
        death_timeout=int(fleet.bot_death_s or parts.settings.bot_death_s),
    )

    def fill() -> None:
        bots, _ = find_bots(parts, asked_for, after=after, limit=limit)
        live = parts.last_seen.get(*(bot.bot_id for bot in bots))
        found.items.extend(bot_info(bot, live.get(bot.bot_id)) for bot in giving_way(bots))
        if bots:
            last, is_full = join_key(bots[-1].bot_id), len(bots) == limit
            found.cursor = paging.next_cursor(parts, "ListBots", last, is_full)

    _aside(call, fill, limit)
    return found


def count_all_bots(call: Call, asked: BotsCountRequest) -> BotsCount:
    """How many bots there are, and of these how many in each of four states that overlap."""
    parts = call.parts
    wanted = paging.constraints(asked.dimensions)
    access.check_pools(call.caller, LIST_BOTS, paging.pools_of(wanted))

    def count() -> BotsCount:
        return BotsCount(
            now=timestamp(parts.clock.now_ms()),
            count=count_bots(parts, BotFilter(dimensions=wanted)),
            quarantined=count_bots(parts, BotFilter(dimensions=wanted, quarantined=True)),
            maintenance=count_bots(parts, BotFilter(dimensions=wanted, maintenance=True)),
            dead=count_bots(parts, BotFilter(dimensions=wanted, dead=True)),
            busy=count_bots(parts, BotFilter(dimensions=wanted, busy=True)),
        )

    return parts.concurrency.native(count)


def check_id(bot_id: str) -> None:
    """Raise Refusal INVALID_ARGUMENT when no bot is named."""
    if not bot_id:
        raise bad("bot_id is required")


def no_bot(bot_id: str) -> Refusal:
    """There is no such bot, code 5."""
    return Refusal(Code.NOT_FOUND, f"no such bot: {bot_id[:80]}")


def _aside(call: Call, fill: Callable[[], None], limit: int) -> None:
    """Long pages are made on a native thread, so that the loop goes on."""
    if limit > MANY:
        call.parts.concurrency.native(fill)
    else:
        fill()


METHODS: Mapping[str, Handler] = {
    "GetBot": get_bot,
    "DeleteBot": delete_bot,
    "ListBotEvents": list_bot_events,
    "TerminateBot": terminate_bot,
    "ListBotTasks": list_bot_tasks,
    "ListBots": list_bots,
    "CountBots": count_all_bots,
    "GetBotDimensions": get_bot_dimensions,
}
