"""Why a pending slice has no bot: what keeps each bot from it, and what would have to change."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from botapi.domain.bot import Bot, BotStatus

MAX_HELP = 5
"""Most things named that would help."""
MAX_NAMED = 3
"""Most bots named in one of them."""


class Obstacle(StrEnum):
    """The first reason that keeps a bot from a slice, the one easiest to overcome first."""

    NONE = "none"
    """Nothing: it may be offered the slice at any moment."""
    NOT_WAITING = "not_waiting"
    BUSY = "busy"
    PAUSED = "paused"
    MAINTENANCE = "maintenance"
    QUARANTINED = "quarantined"
    DEAD = "dead"
    DIMENSIONS = "dimensions"


_OF_STATUS = {
    BotStatus.BUSY: Obstacle.BUSY,
    BotStatus.DRAINING: Obstacle.PAUSED,
    BotStatus.PAUSED: Obstacle.PAUSED,
    BotStatus.MAINTENANCE: Obstacle.MAINTENANCE,
    BotStatus.QUARANTINED: Obstacle.QUARANTINED,
    BotStatus.DEAD: Obstacle.DEAD,
}
_RANK = {obstacle: rank for rank, obstacle in enumerate(Obstacle)}


@dataclass(frozen=True, slots=True)
class Miss:
    """One bot and what keeps it from the slice.

    `unmet` are the constraints that its dimensions do not meet, each as `os:Mac|os:Windows`.
    """

    bot_id: str
    obstacle: Obstacle
    detail: str = ""
    unmet: tuple[str, ...] = ()

    @property
    def distance(self) -> tuple[int, int, str]:
        """Sorts the nearest miss first: fewest unmet constraints, easiest obstacle, bot id."""
        return len(self.unmet), _RANK[self.obstacle], self.bot_id


def miss_of(bot: Bot, wanted: Sequence[frozenset[str]], *, is_waiting: bool) -> Miss:
    """What keeps this bot from a slice with these constraints (bot-api 10.1, 9.1)."""
    own = frozenset(bot.dimensions)
    unmet = tuple(
        "|".join(sorted(alternatives)) for alternatives in wanted if alternatives.isdisjoint(own)
    )
    if unmet:
        return Miss(bot.bot_id, Obstacle.DIMENSIONS, f"has no {' and no '.join(unmet)}", unmet)
    obstacle = _OF_STATUS.get(bot.status)
    if obstacle is None:
        if is_waiting:
            return Miss(bot.bot_id, Obstacle.NONE, "fits, and waits for work")
        return Miss(bot.bot_id, Obstacle.NOT_WAITING, "fits, but is not asking for work now")
    detail = {
        Obstacle.BUSY: f"runs {bot.task_id}",
        Obstacle.PAUSED: bot.maintenance,
        Obstacle.MAINTENANCE: bot.maintenance,
        Obstacle.QUARANTINED: bot.quarantined.split("\n")[0],
        Obstacle.DEAD: "has not called for too long",
    }[obstacle]
    return Miss(bot.bot_id, obstacle, detail)


def would_help(misses: Iterable[Miss]) -> list[str]:
    """What would have to change for some bot to take the slice, the smallest change first."""
    by_change: dict[tuple[int, int, tuple[str, ...]], list[str]] = {}
    for miss in misses:
        key = (len(miss.unmet), _RANK[miss.obstacle], miss.unmet)
        by_change.setdefault(key, []).append(miss.bot_id)
    lines = []
    for (_, rank, unmet), bots in sorted(by_change.items())[:MAX_HELP]:
        lines.append(_help(tuple(Obstacle)[rank], unmet, sorted(bots)))
    return lines or ["add a bot to the pool: it has none"]


def _help(obstacle: Obstacle, unmet: tuple[str, ...], bots: list[str]) -> str:
    shown = ", ".join(bots[:MAX_NAMED]) + (", ..." if len(bots) > MAX_NAMED else "")
    some = f"one of {len(bots)} bots" if len(bots) > 1 else "the bot"
    text = {
        Obstacle.NONE: f"nothing: {some} takes it in its turn",
        Obstacle.NOT_WAITING: f"{some} asks for work again",
        Obstacle.BUSY: f"{some} ends its run",
        Obstacle.PAUSED: f"resume {some}",
        Obstacle.MAINTENANCE: f"{some} ends its maintenance",
        Obstacle.QUARANTINED: f"{some} is released from quarantine",
        Obstacle.DEAD: f"{some} comes back",
        Obstacle.DIMENSIONS: f"give {some} {' and '.join(unmet)}, or ask for less",
    }[obstacle]
    return f"{text} ({shown})"


def summary(misses: Sequence[Miss]) -> str:
    """One line: how many bots, by what keeps them."""
    counted = Counter(miss.obstacle for miss in misses)
    parts = [
        f"{counted[obstacle]} {_WORDS[obstacle]}" for obstacle in Obstacle if counted[obstacle]
    ]
    bots = "1 bot" if len(misses) == 1 else f"{len(misses)} bots"
    return f"{bots} in the pool: {', '.join(parts)}" if misses else "the pool has no bots"


_WORDS = {
    Obstacle.NONE: "could take it now",
    Obstacle.NOT_WAITING: "not asking for work",
    Obstacle.BUSY: "busy",
    Obstacle.PAUSED: "paused",
    Obstacle.MAINTENANCE: "in maintenance",
    Obstacle.QUARANTINED: "quarantined",
    Obstacle.DEAD: "dead",
    Obstacle.DIMENSIONS: "without the dimensions",
}
