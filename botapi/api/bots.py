"""Bots and their events."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from botapi.api import access, bot_history, bot_queries, cursors, filters, queries
from botapi.api.bodies import Body
from botapi.api.bot_queries import BotFilter, count_bots, find_bots
from botapi.api.parts import MANY, ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.views import bot_view, event_view
from botapi.api.why import count_statuses
from botapi.concurrency import giving_way
from botapi.domain.bot import Bot, BotStatus
from botapi.domain.bot_groups import ArchivePolicy
from botapi.domain.errors import Code, Refusal
from botapi.domain.filter_facts import BotFacts
from botapi.domain.filter_language import passes
from botapi.domain.permissions import Caller, Permission
from botapi.store import codec
from botapi.store.protocol import Doc, Key, join_key, prefix_range
from botapi.transactions.cancel_task import Actor
from botapi.transactions.steer_bot import Steer, steer_bot

MAX_STEER_REASON = 500
"""Less than other reasons may have: it is part of what is kept of the bot."""
MAX_STEER_S = 366 * 86_400
"""Longest time that a bot may be asked to be kept from work for."""


class SteerBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bots/<id>/quarantine` and `/pause`; `for_s` 0 is until somebody ends it."""

    reason: str = ""
    for_s: int = 0


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bots/<id>/release`, `/resume` and `/restart`."""

    reason: str = ""


STEER_BODY = Body(SteerBody)
REASON_BODY = Body(ReasonBody)
NEEDS_REASON = frozenset({Steer.QUARANTINE, Steer.PAUSE, Steer.RESTART})
LIST_PARAMETERS = ("q", "dimension", "status", "at", "count", "limit", "cursor")


def listed(parts: ApiParts, caller: Caller, query: Query, base_url: str) -> Json:
    """One page of bots by id, of pools that the caller may list.

    The counts by status are of the bots with these dimensions. With a `q` they are there
    only when the index can answer it. With `at` it is the fleet as it was then.
    """
    queries.check_names(query, LIST_PARAMETERS)
    plan = filters.plan_bots(_asked_by(query), query)
    dimensions = access.confined(caller, Permission.LIST_BOTS, plan.asked.dimensions)
    plan = replace(plan, asked=replace(plan.asked, dimensions=dimensions))
    if queries.last(query, "at"):
        return bot_history.fleet_at(parts, plan, query)
    sieve = _sieve(parts, plan, base_url) if plan.rest.parts else None
    after = cursors.read_cursor(parts, "bots", query)
    limit = queries.page_limit(query)
    counted = filters.count(
        query, sieve, lambda: count_bots(parts, plan.asked), bot_queries.COUNTED
    )
    if sieve is not None:
        bots, next_after = sieve.page(after, limit)
    else:
        bots, next_after = find_bots(parts, plan.asked, after=after, limit=limit)
    found: Json = {
        "items": _views(parts, bots, base_url),
        "next_cursor": cursors.next_cursor(parts, "bots", query, next_after),
        "counts": None if sieve else count_statuses(parts, plan.asked.dimensions),
    }
    return found | (counted.as_json() if counted else {})


def _asked_by(query: Query) -> BotFilter:
    statuses = queries.given(query, "status")
    for status in statuses:
        if status not in set(BotStatus):
            known = ", ".join(BotStatus)
            raise refuse("?status", f'"{status[:40]}" is no status; use one of {known}')
    return BotFilter(
        dimensions=tuple(queries.dimensions(query)),
        statuses=frozenset(map(BotStatus, statuses)),
    )


def _sieve(parts: ApiParts, plan: filters.BotPlan, base_url: str) -> filters.Sieve[Bot]:
    now_ms = parts.clock.now_ms()

    def find(after: Key | None, limit: int) -> tuple[list[Bot], Key | None]:
        return find_bots(parts, plan.asked, after=after, limit=limit)

    def keep(bots: list[Bot]) -> list[Bot]:
        def look() -> list[Bot]:
            live = parts.last_seen.get(*(bot.bot_id for bot in bots))
            return [
                bot
                for bot in giving_way(bots)
                if passes(
                    plan.rest,
                    BotFacts(bot, live.get(bot.bot_id), _expected(parts, bot, base_url), now_ms),
                )
            ]

        return parts.concurrency.native(look)

    _warm(parts, base_url)
    return filters.Sieve(find, keep, lambda bot: join_key(bot.bot_id))


def read(parts: ApiParts, bot_id: str, base_url: str) -> Json:
    """One bot. Raises Refusal NOT_FOUND."""
    return _views(parts, [codec.read_bot(_stored(parts, bot_id))], base_url)[0]


def _stored(parts: ApiParts, bot_id: str) -> Doc:
    (doc,) = parts.store.get(codec.BOT, join_key(bot_id)) if _is_key(bot_id) else (None,)
    if doc is None:
        raise Refusal(Code.NOT_FOUND, f'there is no bot "{bot_id[:80]}"')
    return doc


def _is_key(bot_id: str) -> bool:
    return 1 <= len(bot_id.encode("utf-8", "replace")) <= 256


def events(parts: ApiParts, bot_id: str, query: Query) -> Json:
    """One page of a bot's events, newest first."""
    queries.check_names(query, ("limit", "cursor"))
    _stored(parts, bot_id)
    lo, hi = prefix_range(bot_id)
    listing = f"events {bot_id}"
    page = parts.store.find(
        codec.EVENT,
        [],
        after=cursors.read_cursor(parts, listing, query),
        limit=queries.page_limit(query),
        lo=lo,
        hi=hi,
    )
    return {
        "items": [event_view(codec.read_event(doc)) for doc in page.docs],
        "next_cursor": cursors.next_cursor(parts, listing, query, page.after),
    }


def timeline(parts: ApiParts, bot_id: str, query: Query) -> Json:
    """What a bot was at, see `bot_history.timeline`. Raises Refusal."""
    _stored(parts, bot_id)
    return bot_history.timeline(parts, bot_id, query)


def steer(
    parts: ApiParts, bot_id: str, verb: Steer, actor: str, body: SteerBody, base_url: str
) -> Json:
    """Keep a bot from work, let it work again, or restart it. Raises Refusal NOT_FOUND."""
    reason = queries.reason(body.reason, MAX_STEER_REASON)
    if verb in NEEDS_REASON and not reason:
        raise refuse("/reason", f"is missing: say why ({verb})")
    if not 0 <= body.for_s <= MAX_STEER_S:
        raise refuse("/for_s", f"{body.for_s} is not from 0 to {MAX_STEER_S} seconds")
    _stored(parts, bot_id)
    now_ms = parts.clock.now_ms()
    until_ms = now_ms + body.for_s * 1000 if body.for_s else 0
    asking = Actor(actor, reason, parts.new_id())
    steer_bot(parts.store, bot_id, verb, asking, now_ms=now_ms, until_ms=until_ms)
    return read(parts, bot_id, base_url)


def origins(parts: ApiParts, bot_id: str) -> dict[str, str]:
    """Which dimensions of a bot come from its group in bots.cfg: key to `config`."""
    group = parts.config.cached().bots.group_of(bot_id)
    return dict.fromkeys(group.dimensions, "config")


def _views(parts: ApiParts, bots: Sequence[Bot], base_url: str) -> list[Json]:
    """The bots as JSON; many of them on a native thread, so that the loop goes on."""

    def build() -> list[Json]:
        live = parts.last_seen.get(*(bot.bot_id for bot in bots))
        return [
            bot_view(bot, live.get(bot.bot_id), _expected(parts, bot, base_url))
            for bot in giving_way(bots)
        ]

    _warm(parts, base_url)
    return parts.concurrency.native(build) if len(bots) > MANY else build()


def _warm(parts: ApiParts, base_url: str) -> None:
    """Have the versions at hand; without an archive no bot has an expected one."""
    with suppress(Refusal):
        parts.archives.warm(base_url)


def _expected(parts: ApiParts, bot: Bot, base_url: str) -> str:
    """The version a bot should run; empty when we do not decide that, or cannot.

    An archive carries the URL its bot uses, so a bot that came under another of our names
    runs another version that is just as good.
    """
    group = parts.config.cached().bots.group_of(bot.bot_id)
    if group.bot_archive is ArchivePolicy.KEEP or bot.note:
        return ""
    return parts.archives.peek(bot.bot_id, group, bot.version, base_url)
