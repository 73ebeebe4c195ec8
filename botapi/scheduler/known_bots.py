"""Is there a bot, in whatever health, that has these dimensions?"""

from collections.abc import Iterable, Sequence

from botapi.domain.bot import Bot
from botapi.domain.matching import fits
from botapi.store import codec
from botapi.store.protocol import MAX_ALTERNATIVES, AnyOf, Store
from botapi.store.walk import PAGE, find_all

Constraint = frozenset[str]


def tags_of(wanted: Iterable[Constraint]) -> list[AnyOf]:
    """The constraints as tags of the kind `bot`."""
    return [frozenset(f"d:{flat}" for flat in alternatives) for alternatives in wanted]


def fits_one_query(wanted: Sequence[Constraint]) -> bool:
    """Can the store answer for all of these constraints at once, with one more tag?"""
    return sum(map(len, wanted)) < MAX_ALTERNATIVES


def any_bot(store: Store, wanted: Sequence[Constraint]) -> Bot | None:
    """One bot with these dimensions, dead ones included; None when there is none."""
    asked: list[Constraint] = []
    for constraint in sorted(wanted, key=len):
        if fits_one_query([*asked, constraint]):
            asked.append(constraint)
    is_exact = len(asked) == len(wanted)
    found = find_all(store, codec.BOT, tags_of(asked), limit=1 if is_exact else PAGE)
    bots = map(codec.read_bot, found)
    return next((bot for bot in bots if fits(frozenset(bot.dimensions), wanted)), None)
