"""What the held call of a bot without work must know, kept from one such call to the next.

A bot that waits for work calls again as soon as its held call has ended, all day long, and mostly
nothing has happened meanwhile. Then its next call reads nothing. What is known is used for REST_S
at most since it was read, be it by a poll, which reads the bot anyway; it is forgotten when the bot
makes any other call here, when slices are offered to bots of this process, and when some bot is
steered or deleted, in whatever process.
A store that sends no hints gives no reason to believe that nothing has happened: there it is
never kept.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from botapi.concurrency import native_lock
from botapi.domain.bot import Bot

REST_S = 130.0
"""Longest that nobody looks at the bot: it polls about as often, and a poll does look."""
LEASE_REST_S = 900.0
"""The same for its lease session, which only its own calls replace or close."""
BETWEEN_S = 5.0
"""Longest between two held calls."""
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class IdleBot:
    """A bot that may be given work, or none: then `dimensions` are empty."""

    bot_id: str
    session_id: str
    lease_session_id: str
    effective_bot_id: str
    dimensions: frozenset[str]
    version: str
    is_kept: bool
    """Does it run an archive that is not ours, and is let be?"""
    must_poll: bool
    """Has a person steered it, or asked it to restart, since it said anything?"""
    read_s: float
    """When the store was asked about the bot, by the monotonic clock."""
    lease_read_s: float
    """The same of its lease session."""
    hints: int
    """How many reasons to look again there had been by then."""


def facts_of(bot: Bot) -> dict[str, Any]:
    """The fields of an IdleBot that are read from the stored bot."""
    may_work = not bot.task_id and bot.health.is_healthy
    return {
        "session_id": bot.session_id,
        "dimensions": frozenset(bot.dimensions) if may_work else frozenset[str](),
        "version": bot.version,
        "is_kept": bool(bot.note),
        "must_poll": bool(bot.restart_asked or bot.steered_since_event),
    }


class IdleBots:
    """The bots whose held call has just ended without work. Any thread may call."""

    def __init__(self, monotonic: Callable[[], float], *, hears_of_changes: bool) -> None:
        self._monotonic = monotonic
        self._hears = hears_of_changes
        self._lock = native_lock()
        self.hints = 0
        """How many have come; to be looked at before the store is asked."""
        self._ended: OrderedDict[str, tuple[IdleBot, float]] = OrderedDict()

    def keep(self, bot: IdleBot) -> None:
        """Its held call ended because the time was over."""
        if not self._hears or bot.must_poll or bot.hints != self.hints:
            return
        with self._lock:
            self._ended[bot.bot_id] = bot, self._monotonic()
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def take(self, bot_id: str, session_id: str, lease_session_id: str) -> IdleBot | None:
        """The bot whose next call has come; None when the store must be asked."""
        with self._lock:
            bot, ended_s = self._ended.pop(bot_id, (None, 0.0))
        if bot is None or (bot.session_id, bot.lease_session_id) != (session_id, lease_session_id):
            return None
        now_s = self._monotonic()
        is_new = (
            now_s - ended_s <= BETWEEN_S
            and now_s - bot.read_s <= REST_S
            and now_s - bot.lease_read_s <= LEASE_REST_S
        )
        return bot if is_new and bot.hints == self.hints else None

    def confirm(self, stored: Bot, hints: int) -> None:
        """A poll has read the bot, before which so many hints had come, and changed nothing.

        What is known is as new as that then, unless it is not what was read.
        """
        with self._lock:
            known, ended_s = self._ended.get(stored.bot_id, (None, 0.0))
            if known is None:
                return
            if replace(known, **facts_of(stored)) == known and not stored.task_id:
                confirmed = replace(known, read_s=self._monotonic(), hints=hints)
                self._ended[stored.bot_id] = confirmed, ended_s
            else:
                del self._ended[stored.bot_id]

    def forget(self, bot_id: str) -> None:
        """Something may have happened to it."""
        if bot_id in self._ended:
            with self._lock:
                self._ended.pop(bot_id, None)

    def hear(self) -> None:
        """A person changed a bot, something was offered, or hints were lost: all may be old."""
        self.hints += 1
