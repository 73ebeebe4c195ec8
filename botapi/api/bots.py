"""Bots and their events."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from botapi.api import cursors, queries
from botapi.api.bodies import Body
from botapi.api.parts import MANY, ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.views import bot_view, event_view
from botapi.api.why import count_statuses
from botapi.domain.bot import Bot, BotStatus
from botapi.domain.bot_groups import ArchivePolicy
from botapi.domain.errors import Code, Refusal
from botapi.store import codec
from botapi.store.protocol import Doc, join_key, prefix_range
from botapi.transactions.cancel_task import Actor
from botapi.transactions.quarantine_bot import quarantine_bot

MAX_QUARANTINE_REASON = 500
"""Less than other reasons may have: it is part of what is kept of the bot."""


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bots/<id>/quarantine` and `/release`."""

    reason: str = ""


REASON_BODY = Body(ReasonBody)
LIST_PARAMETERS = ("dimension", "status", "limit", "cursor")


def listed(parts: ApiParts, query: Query, base_url: str) -> Json:
    """One page of bots by id. The counts are of the dimensions asked for, in any status."""
    queries.check_names(query, LIST_PARAMETERS)
    wanted = queries.dimensions(query)
    filters = [frozenset(f"d:{flat}" for flat in alternatives) for alternatives in wanted]
    statuses = queries.given(query, "status")
    for status in statuses:
        if status not in set(BotStatus):
            known = ", ".join(BotStatus)
            raise refuse("?status", f'"{status[:40]}" is no status; use one of {known}')
    if statuses:
        filters.append(frozenset(f"st:{status}" for status in statuses))
    page = parts.store.find(
        codec.BOT,
        filters,
        after=cursors.read_cursor(parts, "bots", query),
        limit=queries.page_limit(query),
    )
    return {
        "items": _views(parts, page.docs, base_url),
        "next_cursor": cursors.next_cursor(parts, "bots", query, page.after),
        "counts": count_statuses(parts, wanted),
    }


def read(parts: ApiParts, bot_id: str, base_url: str) -> Json:
    """One bot. Raises Refusal NOT_FOUND."""
    return _views(parts, [_stored(parts, bot_id)], base_url)[0]


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


def quarantine(
    parts: ApiParts, bot_id: str, actor: str, body: ReasonBody, base_url: str, *, on: bool
) -> Json:
    """Keep a bot from work, or let it work again. Raises Refusal NOT_FOUND."""
    reason = queries.reason(body.reason, MAX_QUARANTINE_REASON)
    if on and not reason:
        raise refuse("/reason", "is missing: say why the bot gets no work")
    _stored(parts, bot_id)
    asking = Actor(actor, reason, parts.new_id())
    quarantine_bot(parts.store, bot_id, asking, on=on, now_ms=parts.clock.now_ms())
    return read(parts, bot_id, base_url)


def origins(parts: ApiParts, bot_id: str) -> dict[str, str]:
    """Which dimensions of a bot come from its group in bots.cfg: key to `config`."""
    group = parts.config.cached().bots.group_of(bot_id)
    return dict.fromkeys(group.dimensions, "config")


def _views(parts: ApiParts, docs: Sequence[Doc], base_url: str) -> list[Json]:
    """The bots of these documents; many of them on a native thread, so that the loop goes on."""

    def build() -> list[Json]:
        bots = [codec.read_bot(doc) for doc in docs]
        live = parts.last_seen.get(*(bot.bot_id for bot in bots))
        return [
            bot_view(bot, live.get(bot.bot_id), _expected(parts, bot, base_url)) for bot in bots
        ]

    with suppress(Refusal):
        parts.archives.warm(base_url)
    return parts.concurrency.native(build) if len(docs) > MANY else build()


def _expected(parts: ApiParts, bot: Bot, base_url: str) -> str:
    """The version a bot should run; empty when we do not decide that, or cannot.

    An archive carries the URL its bot uses, so a bot that came under another of our names
    runs another version that is just as good.
    """
    group = parts.config.cached().bots.group_of(bot.bot_id)
    if group.bot_archive is ArchivePolicy.KEEP or bot.note:
        return ""
    return parts.archives.peek(bot.bot_id, group, bot.version, base_url)
