"""What a bot is, and how its health follows from what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

SELF_QUARANTINED = "Bot self-quarantined."
PAUSED_BY = "paused by an operator: "
"""How the reason of a pause begins where it stands among those of maintenance."""
TERMINATION_FLAG = 1
SWAP_WINDOW_MS = 600_000
SWAPS_TO_QUARANTINE = 3
MAX_PAST_SESSIONS = 8
"""Ended sessions of a bot that are remembered."""
MAX_HEALTH_CHARS = 4_096
"""Most characters kept of a reason; a bot may send any number of bad dimensions."""


class BotStatus(StrEnum):
    """Exactly one word for each bot, the first that applies in this order."""

    DEAD = "dead"
    QUARANTINED = "quarantined"
    MAINTENANCE = "maintenance"
    DRAINING = "draining"
    """Paused, and its run goes on."""
    PAUSED = "paused"
    BUSY = "busy"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Health:
    """Why a bot gets no work; both empty means healthy."""

    quarantined: str = ""
    maintenance: str = ""

    @property
    def is_healthy(self) -> bool:
        """May it be given work?"""
        return not self.quarantined and not self.maintenance


@dataclass(frozen=True, slots=True)
class SessionSwap:
    """A handshake that took the bot id over from another live session."""

    at_ms: int
    session_id: str
    external_ip: str


@dataclass(frozen=True, slots=True)
class Bot:
    """One bot as the server knows it (bot-api 9.1).

    What changes at every poll (last seen, state) is not here but in `LiveBot`: an idle
    poll writes nothing. `task_id` is a run id. Times in ms, 0 means "never".
    """

    bot_id: str
    dimensions: tuple[str, ...]
    first_seen_ms: int
    session_id: str = ""
    epoch: int = 0
    external_ip: str = ""
    authenticated_as: str = ""
    version: str = ""
    quarantined: str = ""
    maintenance: str = ""
    dead: bool = False
    idle_since_ms: int = 0
    task_id: str = ""
    task_name: str = ""
    task_flags: int = 0
    owners: tuple[str, ...] = ()
    last_finished_task: str = ""
    last_finished_name: str = ""
    last_finished_flags: int = 0
    last_abandoned_task: str = ""
    termination_task_id: str = ""
    last_event_dedup_key: str = ""
    claim_seq: int = 0
    polls_before_claim: tuple[str, ...] = ()
    given_lease: str = ""
    """The lease of its task, if the server claimed it for the bot (docs/extensions.md), and the bot
    has not claimed it itself since."""
    swaps: tuple[SessionSwap, ...] = ()
    past_sessions: tuple[str, ...] = ()
    """The sessions before this one: none of them takes the bot id back."""
    note: str = ""
    rbe_effective_bot_id: str = ""
    """Its name in the lease channel (bot-api 3.7); empty where that is the bot id."""
    admin_quarantine: str = ""
    """Why an admin keeps it from work (bot-api 9.3), empty when none does."""
    admin_quarantine_until_ms: int = 0
    """When that ends by itself, at the bot's next call; 0: not."""
    pause: str = ""
    """Why an operator gives it no new work for a while (product 4.2), empty when none does."""
    pause_until_ms: int = 0
    restart_asked: str = ""
    """Why an operator has it start over at its next poll; its next session ends that."""
    steered_since_event: bool = False
    """A person changed its health since its last event: its next call leaves one."""
    event_count: int = 0
    """Events kept so far: orders those of one millisecond."""

    @property
    def health(self) -> Health:
        """Both reasons together."""
        return Health(self.quarantined, self.maintenance)

    @property
    def run(self) -> tuple[str, str]:
        """What its silence is judged for: its task, and the lease that it has not claimed itself.

        A bot that claims what it had missed has spoken of its run.
        """
        return self.task_id, self.given_lease

    def has_missed_its_lease(self, heard: str | None) -> bool:
        """Was a lease claimed for it whose answer it never saw? `heard` is the latest it knows,
        None when it does not say."""
        return bool(self.task_id) and heard is not None and self.given_lease not in {"", heard}

    def was_given(self, claim_id: str) -> bool:
        """Is this claim one that the server made for it, and that it never made itself?"""
        return bool(self.given_lease) and claim_id == f"{self.bot_id}:{self.given_lease}"

    @property
    def admin_complaints(self) -> list[str]:
        """What an admin has against this bot, as a further reason of bot-api 6.2."""
        return [f"quarantined by an admin: {self.admin_quarantine}"] * bool(self.admin_quarantine)

    @property
    def pause_words(self) -> list[str]:
        """An operator's pause, as a further reason of maintenance."""
        return [f"{PAUSED_BY}{self.pause}"] * bool(self.pause)

    def steered(self, own: Health) -> Health:
        """What the bot says of its health, with what admins and operators say of it."""
        return Health(
            _with_lines(own.quarantined, self.admin_complaints),
            _with_lines(own.maintenance, self.pause_words),
        )

    def kept_from_work(self, reason: str, until_ms: int = 0) -> "Bot":
        """The bot with an admin's reason to give it no work; an empty reason lets it work.

        Its other reasons stay until it polls again.
        """
        after = replace(self, admin_quarantine=reason, admin_quarantine_until_ms=until_ms)
        return after._with_words_instead_of(self)

    def paused(self, reason: str, until_ms: int = 0) -> "Bot":
        """The bot with an operator's reason to give it no new work; an empty one resumes it."""
        after = replace(self, pause=reason, pause_until_ms=until_ms)
        return after._with_words_instead_of(self)

    def _with_words_instead_of(self, before: "Bot") -> "Bot":
        own = Health(
            _without_lines(self.quarantined, before.admin_complaints),
            _without_lines(self.maintenance, before.pause_words),
        )
        health = self.steered(own)
        idle_since = self.idle_since_ms if health.is_healthy else 0
        return replace(
            self,
            quarantined=health.quarantined,
            maintenance=health.maintenance,
            idle_since_ms=idle_since,
        )

    def at(self, now_ms: int) -> "Bot":
        """The bot without what was asked for a time that is over."""
        after = self
        if 0 < self.admin_quarantine_until_ms <= now_ms:
            after = after.kept_from_work("")
        return after.paused("") if 0 < self.pause_until_ms <= now_ms else after

    @property
    def is_busy(self) -> bool:
        """Busy means only that it is not idle (bot-api 9.1)."""
        return self.idle_since_ms == 0

    @property
    def status(self) -> BotStatus:
        """The one word of the pages and the API."""
        if self.dead:
            return BotStatus.DEAD
        if self.quarantined:
            return BotStatus.QUARANTINED
        if _without_lines(self.maintenance, self.pause_words):
            return BotStatus.MAINTENANCE
        if self.pause:
            return BotStatus.DRAINING if self.task_id else BotStatus.PAUSED
        return BotStatus.BUSY if self.task_id else BotStatus.IDLE

    @property
    def composite(self) -> tuple[int, int, int, int]:
        """The four integers of bot-api 9.1."""
        return (
            256 if self.maintenance else 512,
            64 if self.dead else 128,
            4 if self.quarantined else 8,
            1 if self.is_busy else 2,
        )


@dataclass(frozen=True, slots=True)
class LiveBot:
    """What every call of a bot refreshes: kept in memory, stored now and then."""

    bot_id: str
    seen_ms: int
    run_seen_ms: int = 0
    """The latest task_update of the current run."""
    state: Mapping[str, Any] | None = None


def quarantine_from_state(state: Mapping[str, Any]) -> str:
    """`state.quarantined` as a message, empty for none (bot-api 6.3)."""
    value = state.get("quarantined")
    if isinstance(value, str):
        return value
    if value is None or value is False or value in (0, []):
        return ""
    return SELF_QUARANTINED


def quarantine_from_dimensions(dimensions: Mapping[str, Sequence[str]]) -> str:
    """The dimension `quarantined` as a message, empty for none (bot-api 6.2)."""
    values = dimensions.get("quarantined") or [""]
    first = values[0]
    if first.lower() in {"true", "1"}:
        return SELF_QUARANTINED
    return first


def health_of(
    state: Mapping[str, Any],
    dimensions: Mapping[str, Sequence[str]],
    complaints: Sequence[str],
) -> Health:
    """Why this bot may not work: its own words first, then each of our complaints.

    `complaints` are the errors collected while reading the call (bot-api 6.2).
    """
    own = quarantine_from_state(state)
    if own in {"", SELF_QUARANTINED}:
        own = quarantine_from_dimensions(dimensions) or own
    message = "\n".join([own, *complaints] if own else complaints)
    maintenance = state.get("maintenance")
    return Health(_cut(message), _cut(maintenance) if isinstance(maintenance, str) else "")


def _with_lines(text: str, lines: Sequence[str]) -> str:
    return "\n".join([text, *lines] if text else lines)


def _without_lines(text: str, lines: Sequence[str]) -> str:
    return "\n".join(line for line in text.split("\n") if line not in lines)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_HEALTH_CHARS else text[:MAX_HEALTH_CHARS] + "..."


def explain_in_state(state: Mapping[str, Any], health: Health) -> dict[str, Any]:
    """The state with the quarantine text put where pages look for it (bot-api 6.3).

    A specific message of the bot is never overwritten.
    """
    if not health.quarantined or quarantine_from_state(state) not in {"", SELF_QUARANTINED}:
        return dict(state)
    return {**state, "quarantined": health.quarantined}
