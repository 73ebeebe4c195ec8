"""What bots were, from the events that they left: one over a span of time, all at a moment."""

from botapi.api import cursors, queries
from botapi.api.bot_queries import BotFilter
from botapi.api.filters import BotPlan
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.views import bot_view, interval_view, rfc3339, share_view
from botapi.clock import DAY_MS
from botapi.domain import bot_timeline
from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import BotEvent, EventKind
from botapi.domain.filter_facts import BotFacts, present_only
from botapi.domain.filter_language import passes
from botapi.store import codec
from botapi.store.protocol import Key, prefix_range, split_key
from botapi.store.walk import END

MAX_TIMELINE_EVENTS = 2_000
"""Events that one timeline of a bot is read from."""
EVENTS_BEFORE = 10
"""Events read to tell what a bot was at then: not each tells whether it was dead."""
MAX_LOOKED = 200
"""Bots that one page of the fleet of a time that is past looks at."""


def timeline(parts: ApiParts, bot_id: str, query: Query) -> Json:
    """What a bot was at from `from` to `to`; by default the last day.

    It is read from at most `MAX_TIMELINE_EVENTS` of its events, the newest of that time:
    when there were more, `cut` says so, and `from` is where the answer begins instead.
    """
    queries.check_names(query, ("from", "to"))
    now_ms = parts.clock.now_ms()
    end_ms = min(now_ms, queries.time_ms(query, "to") or now_ms)
    start_ms = queries.time_ms(query, "from") or end_ms - DAY_MS
    if start_ms >= end_ms:
        raise refuse("?from", f"{rfc3339(start_ms)} is not before the end, {rfc3339(end_ms)}")

    def build() -> Json:
        lo, hi = codec.event_range(bot_id, start_ms, end_ms)
        docs = parts.store.scan(codec.EVENT, lo, hi, limit=MAX_TIMELINE_EVENTS + 1)
        is_cut = len(docs) > MAX_TIMELINE_EVENTS
        within = [codec.read_event(doc) for doc in docs[:MAX_TIMELINE_EVENTS]]
        begin_ms = within[-1].at_ms if is_cut else start_ms
        before = [] if is_cut else last_events(parts, bot_id, start_ms)
        intervals = bot_timeline.timeline(before, within, begin_ms, end_ms)
        return {
            "bot_id": bot_id,
            "from": rfc3339(begin_ms),
            "to": rfc3339(end_ms),
            "cut": is_cut,
            "intervals": [interval_view(one) for one in intervals],
            "shares": [share_view(one) for one in bot_timeline.shares(intervals)],
        }

    return parts.concurrency.native(build)


def last_events(parts: ApiParts, bot_id: str, before_ms: int) -> list[BotEvent]:
    """A few events of the bot before that time, newest first."""
    lo, hi = codec.event_range(bot_id, 0, before_ms)
    docs = parts.store.scan(codec.EVENT, lo, hi, limit=EVENTS_BEFORE)
    return [codec.read_event(doc) for doc in docs]


def fleet_at(parts: ApiParts, plan: BotPlan, query: Query) -> Json:
    """One page of the bots that there were at the time `at`, by id, as they were then.

    What is asked for must have held then. A page looks at `MAX_LOOKED` bots and may be short
    and yet not the last. Bots that were deleted since are there; what events do not keep is
    null. Raises Refusal.
    """
    at_ms = _moment(parts, query)
    if queries.last(query, "count"):
        raise refuse("?count", "is not known of a time that is past; leave it out, or at=")
    unknown = present_only(plan.rest)
    if unknown:
        raise refuse("?q", f'"{unknown}" is not known of a time that is past; leave it out, or at=')
    after = cursors.read_cursor(parts, "bots", query)
    limit = queries.page_limit(query)

    def build() -> tuple[list[Json], Key | None]:
        return _page(parts, plan, at_ms, after or "", limit)

    items, next_after = parts.concurrency.native(build)
    next_cursor = cursors.next_cursor(parts, "bots", query, next_after)
    return {"items": items, "next_cursor": next_cursor, "counts": None}


def _moment(parts: ApiParts, query: Query) -> int:
    """The time `at`, within what is kept. Raises Refusal."""
    at_ms = queries.time_ms(query, "at")
    now_ms = parts.clock.now_ms()
    days = parts.settings.event_retention_days
    oldest_ms = now_ms - days * DAY_MS
    if at_ms > now_ms:
        raise refuse("?at", f"is in the future; here it is {rfc3339(now_ms)}")
    if at_ms < oldest_ms:
        problem = f"events are kept for {days} days; give a time after {rfc3339(oldest_ms)}"
        raise refuse("?at", problem)
    return at_ms


def _page(
    parts: ApiParts, plan: BotPlan, at_ms: int, lo: Key, limit: int
) -> tuple[list[Json], Key | None]:
    """Bots whose events begin at `lo` or behind, and where the next page begins."""
    kept: list[Json] = []
    looked = 0
    while keys := parts.store.scan_keys(codec.EVENT, lo, END, limit=1):
        if len(kept) == limit or looked == MAX_LOOKED:
            return kept, lo
        looked += 1
        bot_id = split_key(keys[0])[0]
        lo = prefix_range(bot_id)[1]
        events = last_events(parts, bot_id, at_ms + 1)
        if events and events[0].kind is not EventKind.BOT_DELETED:
            bot = bot_timeline.as_it_was(events[0], was_dead=bot_timeline.is_dead(events))
            live = LiveBot(bot_id, 0, state=events[0].state)
            if _is_asked_for(bot, plan.asked) and passes(plan.rest, BotFacts(bot, live, "", at_ms)):
                kept.append(bot_view(bot, live, ""))
    return kept, None


def _is_asked_for(bot: Bot, asked: BotFilter) -> bool:
    """Is it what an index would find of bots as they are now?"""
    has_dimensions = all(any_of & set(bot.dimensions) for any_of in asked.dimensions)
    return has_dimensions and (not asked.statuses or bot.status in asked.statuses)
