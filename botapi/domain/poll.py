"""The answer to a poll: one function for the decision tree of bot-api 3.2."""

from dataclasses import dataclass
from enum import StrEnum

from botapi.domain.bot import Health


class Presented(StrEnum):
    """What the poll's session token turned out to be."""

    VALID = "valid"
    BROKEN = "broken"
    ABSENT = "absent"
    SUPERSEDED = "superseded"
    """Valid, but a later handshake took the bot id over."""


@dataclass(frozen=True, slots=True)
class PollFacts:
    """All that the answer depends on."""

    token: Presented
    version: str
    expected_version: str
    may_update: bool
    """False for a bot of a foreign fleet: it is never told to update."""
    hash_differs: bool
    health: Health
    rbe_idle: bool
    restart_asked: str = ""
    """Why an operator has it start over; empty when none does."""


@dataclass(frozen=True, slots=True)
class Update:
    """Download that archive and restart into it."""

    version: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Start over with the same archive. `refresh`: the reply still carries a token."""

    message: str
    refresh: bool


@dataclass(frozen=True, slots=True)
class Sleep:
    """No work for a time drawn from [low_s, high_s)."""

    low_s: float
    high_s: float
    refresh: bool


@dataclass(frozen=True, slots=True)
class Work:
    """Open or keep the lease session. `idle`: the bot says that it found nothing to do."""

    idle: bool


Decision = Update | Restart | Sleep | Work

SOON_SHARE = 0.05
SOON_S = 1.0
FOREVER_STREAK = 1_000
"""The streak with which all bots sleep while settings.cfg forces them to."""
NO_SESSION = "no session token in the poll"


def decide(facts: PollFacts) -> Decision:
    """The first matching row of bot-api 3.2."""
    if facts.may_update and facts.version and facts.version != facts.expected_version:
        return Update(facts.expected_version)
    if facts.token is Presented.BROKEN:
        return Restart("session expired", refresh=False)
    if facts.token is Presented.SUPERSEDED:
        return Restart("another process took this bot id over", refresh=False)
    if facts.token is Presented.ABSENT:
        return Sleep(300, 600, refresh=False)
    if facts.hash_differs or facts.restart_asked:
        asked = f"asked by an operator: {facts.restart_asked}"
        return Restart("new bots.cfg config" if facts.hash_differs else asked, refresh=True)
    if facts.health.quarantined:
        return Sleep(60, 240, refresh=True)
    if facts.health.maintenance:
        return Sleep(10, 60, refresh=True)
    return Work(facts.rbe_idle)


def sleep_s(streak: int, max_s: float, roll: float) -> float:
    """The back-off of a bot that is to sleep, in seconds (bot-api 3.4).

    `streak` counts its idle cycles, `max_s` is `max_bot_sleep_time`. `roll` is drawn from
    [0, 1): one time in twenty the bot comes back at once, to hear of changes.
    """
    if roll >= 1 - SOON_SHARE:
        return SOON_S
    return float(min(max_s, 1.5 ** (min(streak, 10) + 1)))


def treats_as_foreign(archive_policy: str, *, is_ours: bool, known_version: bool) -> bool:
    """Must this bot never be told to update?

    Bots of a `keep` group are not. A bot that does not call itself ours, running a version
    this server never made, is treated alike until an admin decides: a foreign fleet is not
    converted by accident.
    """
    return archive_policy == "keep" or not (is_ours or known_version)
