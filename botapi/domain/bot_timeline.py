"""What a bot was at, read from the events it left: at one moment, and over a span of time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from botapi.domain.bot import PAUSED_BY, Bot, BotStatus
from botapi.domain.bot_event import RULES, BotEvent, OnTask

UNKNOWN = "unknown"
"""The state before the first event that is known."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bot was in one state, at one task, for one reason, within `[begin_ms, end_ms)`.

    `state` is a status of a bot or `UNKNOWN`; `task_id` is a run id, empty for none.
    """

    begin_ms: int
    end_ms: int
    state: str
    task_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """How long a bot was in a state, in ms, and which part of all the time that is, 0 to 1."""

    state: str
    length_ms: int
    share: float


def as_it_was(event: BotEvent, *, was_dead: bool) -> Bot:
    """The bot as this event left it; `was_dead` is whether it was dead before the event.

    What events do not hold is at its default: when it was first seen, what was asked of it.
    """
    rule = RULES[event.kind]
    paused = [line for line in event.maintenance.split("\n") if line.startswith(PAUSED_BY)]
    return Bot(
        event.bot_id,
        event.dimensions,
        0,
        session_id=event.session_id,
        external_ip=event.external_ip,
        authenticated_as=event.authenticated_as,
        version=event.version,
        quarantined=event.quarantined,
        maintenance=event.maintenance,
        dead=was_dead if rule.dead is None else rule.dead,
        idle_since_ms=event.idle_since_ms,
        task_id="" if rule.task is OnTask.RESET else event.task_id,
        owners=event.owners,
        pause=paused[0].removeprefix(PAUSED_BY) if paused else "",
    )


def is_dead(newest_first: Iterable[BotEvent]) -> bool:
    """Was the bot dead after the first of these events? Most kinds tell, some say nothing."""
    told = (RULES[event.kind].dead for event in newest_first)
    return next((dead for dead in told if dead is not None), False)


def timeline(
    before: Sequence[BotEvent], within: Sequence[BotEvent], start_ms: int, end_ms: int
) -> list[Interval]:
    """What the bot was at within `[start_ms, end_ms)`, oldest first and without gaps.

    `before` are its last events before `start_ms`, `within` those of the span, both newest
    first. Neighbours that say the same are one interval, and none is empty. A bot that died
    stays dead for the first reason, whatever comes in late.
    """
    begins = {start_ms: Interval(start_ms, end_ms, UNKNOWN)}
    dead = False
    for event in (*reversed(before), *reversed(within)):
        bot = as_it_was(event, was_dead=dead)
        if not (dead and bot.dead):
            at_ms = max(start_ms, event.at_ms)
            begins[at_ms] = _interval(bot, event, at_ms, end_ms)
        dead = bot.dead
    found: list[Interval] = []
    for one in begins.values():
        if found and replace(found[-1], begin_ms=one.begin_ms) == one:
            continue
        if found:
            found[-1] = replace(found[-1], end_ms=one.begin_ms)
        found.append(one)
    return found


def _interval(bot: Bot, event: BotEvent, begin_ms: int, end_ms: int) -> Interval:
    reasons = {
        BotStatus.DEAD: event.message,
        BotStatus.QUARANTINED: bot.quarantined,
        BotStatus.MAINTENANCE: bot.maintenance,
        BotStatus.DRAINING: bot.pause,
        BotStatus.PAUSED: bot.pause,
    }
    return Interval(begin_ms, end_ms, bot.status, bot.task_id, reasons.get(bot.status, ""))


def shares(intervals: Sequence[Interval]) -> list[Share]:
    """How long each state lasted, the longest first; `intervals` are those of a timeline."""
    lengths: dict[str, int] = {}
    for one in intervals:
        lengths[one.state] = lengths.get(one.state, 0) + one.end_ms - one.begin_ms
    whole = sum(lengths.values())
    ordered = sorted(lengths.items(), key=lambda item: (-item[1], item[0]))
    return [Share(state, length, length / whole) for state, length in ordered]
