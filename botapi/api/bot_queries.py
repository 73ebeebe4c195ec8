"""Bots by what is asked of them: one filter for both APIs, the commands and the pages.

By bot id, ascending. A page and the counts under the same filter agree (prpc-api 5.7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from botapi.api.parts import MANY, ApiParts
from botapi.concurrency import giving_way
from botapi.domain.bot import Bot, BotStatus
from botapi.store import codec
from botapi.store.protocol import AnyOf, Key

COUNTED = 1_000_000
"""Bots counted no further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BotFilter:
    """All of it must hold; None is "do not ask".

    `dimensions` are constraints: each a set of flat `key:value`, one must be there.
    `busy` means "not idle" (bot-api 9.1); `statuses` are the one word, empty for any.
    """

    dimensions: tuple[AnyOf, ...] = ()
    quarantined: bool | None = None
    maintenance: bool | None = None
    dead: bool | None = None
    busy: bool | None = None
    statuses: frozenset[BotStatus] = frozenset()


def find_bots(
    parts: ApiParts, asked: BotFilter, *, after: Key | None, limit: int
) -> tuple[list[Bot], Key | None]:
    """Up to `limit` bots behind the key `after`, and where the next page begins."""

    def fetch() -> tuple[list[Bot], Key | None]:
        page = parts.store.find(codec.BOT, _tags(asked), after=after, limit=limit)
        return [codec.read_bot(doc) for doc in giving_way(page.docs)], page.after

    return parts.concurrency.native(fetch) if limit > MANY else fetch()


def count_bots(parts: ApiParts, asked: BotFilter) -> int:
    """How many bots there are, counting no further than `COUNTED`."""
    return parts.store.count(codec.BOT, _tags(asked), up_to=COUNTED)


def _tags(asked: BotFilter) -> Sequence[AnyOf]:
    found = [frozenset(f"d:{flat}" for flat in alternatives) for alternatives in asked.dimensions]
    for value, yes, no in (
        (asked.quarantined, "quarantined", "healthy"),
        (asked.maintenance, "maint", "ok"),
        (asked.dead, "dead", "alive"),
        (asked.busy, "busy", "idle"),
    ):
        if value is not None:
            found.append(frozenset({f"s:{yes if value else no}"}))
    if asked.statuses:
        found.append(frozenset(f"st:{status}" for status in asked.statuses))
    return found
