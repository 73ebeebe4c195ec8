"""What each kind of event changes on a bot: one table, one function (bot-api 9.2, 9.3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from botapi.domain.bot import MAX_PAST_SESSIONS, TERMINATION_FLAG, Bot, Health
from botapi.domain.names import is_request_uuid


class EventKind(StrEnum):
    """Everything that can happen to a bot, by its name on the wire."""

    BOT_CONNECTED = "bot_connected"
    BOT_ERROR = "bot_error"
    BOT_LOG = "bot_log"
    BOT_REBOOTING = "bot_rebooting"
    BOT_SHUTDOWN = "bot_shutdown"
    BOT_IDLE = "bot_idle"
    BOT_POLLING = "bot_polling"
    REQUEST_SLEEP = "request_sleep"
    REQUEST_UPDATE = "request_update"
    REQUEST_RESTART = "request_restart"
    REQUEST_TASK = "request_task"
    BOT_TERMINATE = "bot_terminate"
    TASK_UPDATE = "task_update"
    TASK_COMPLETED = "task_completed"
    TASK_KILLED = "task_killed"
    TASK_ERROR = "task_error"
    BOT_MISSING = "bot_missing"
    BOT_DELETED = "bot_deleted"


class OnTask(StrEnum):
    """What happens to the task recorded on the bot."""

    KEEP = "keep"
    RESET = "reset"
    SET = "set"
    ABANDON = "abandon"
    """Abandon it, but go on naming it: dead bots show the task they died on."""


@dataclass(frozen=True, slots=True)
class EventRule:
    """One row of the table in bot-api 9.2; None means "unchanged"."""

    task: OnTask
    dead: bool | None
    idle: bool | None
    frequent: bool = False
    creates: bool = False


_KEEP, _RESET, _SET = OnTask.KEEP, OnTask.RESET, OnTask.SET
K = EventKind

RULES: Mapping[EventKind, EventRule] = {
    K.BOT_CONNECTED: EventRule(_RESET, dead=False, idle=None, creates=True),
    K.BOT_ERROR: EventRule(_KEEP, dead=None, idle=None),
    K.BOT_LOG: EventRule(_KEEP, dead=None, idle=None),
    K.BOT_REBOOTING: EventRule(_RESET, dead=None, idle=False),
    K.BOT_SHUTDOWN: EventRule(_RESET, dead=True, idle=True),
    K.BOT_IDLE: EventRule(_RESET, dead=False, idle=True, frequent=True, creates=True),
    K.BOT_POLLING: EventRule(_RESET, dead=False, idle=False, frequent=True, creates=True),
    K.REQUEST_SLEEP: EventRule(_RESET, dead=False, idle=True, frequent=True, creates=True),
    K.REQUEST_UPDATE: EventRule(_RESET, dead=False, idle=False, creates=True),
    K.REQUEST_RESTART: EventRule(_RESET, dead=False, idle=False, creates=True),
    K.REQUEST_TASK: EventRule(_SET, dead=False, idle=False, creates=True),
    K.BOT_TERMINATE: EventRule(_SET, dead=None, idle=False),
    K.TASK_UPDATE: EventRule(_KEEP, dead=None, idle=False, frequent=True),
    K.TASK_COMPLETED: EventRule(_RESET, dead=None, idle=False),
    K.TASK_KILLED: EventRule(_RESET, dead=None, idle=False),
    K.TASK_ERROR: EventRule(_RESET, dead=None, idle=False),
    K.BOT_MISSING: EventRule(OnTask.ABANDON, dead=True, idle=True),
    K.BOT_DELETED: EventRule(_RESET, dead=True, idle=True),
}

FROM_BOTS = frozenset({K.BOT_ERROR, K.BOT_LOG, K.BOT_REBOOTING, K.BOT_SHUTDOWN})
"""The kinds a bot may post to `/event` (bot-api 1.6)."""

_FINISHING = frozenset({K.TASK_COMPLETED, K.TASK_KILLED, K.TASK_ERROR})
_STOPPED = frozenset({K.BOT_SHUTDOWN, K.BOT_MISSING, K.BOT_DELETED})


@dataclass(frozen=True, slots=True)
class CallInfo:
    """Who made the call that an event comes from."""

    session_id: str
    external_ip: str
    authenticated_as: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class BotUpdate:
    """Something that happened to a bot, with what the call said; None means "not said"."""

    kind: EventKind
    message: str = ""
    dedup_key: str = ""
    dimensions: tuple[str, ...] | None = None
    state: Mapping[str, Any] | None = None
    call: CallInfo | None = None
    health: Health | None = None
    owners: tuple[str, ...] | None = None
    task_id: str = ""
    task_name: str = ""
    task_flags: int = 0
    seq: int = 0
    """The number of a poll within its session, 0 for none (docs/extensions.md)."""
    heard: str | None = None
    """The latest lease that a polling bot knows of (docs/extensions.md)."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of Bot to set: epoch, swaps, claim_seq, given_lease, note."""


@dataclass(frozen=True, slots=True)
class BotEvent:
    """One thing that happened, kept. `event_id` makes a repeat the same event."""

    bot_id: str
    at_ms: int
    event_id: str
    kind: EventKind
    message: str
    task_id: str
    session_id: str
    version: str
    external_ip: str
    authenticated_as: str
    dimensions: tuple[str, ...]
    quarantined: str
    maintenance: str
    state: Mapping[str, Any] | None = None
    owners: tuple[str, ...] = ()
    idle_since_ms: int = 0
    seq: int = 0
    """The bot's event count: orders events of one millisecond."""


@dataclass(frozen=True, slots=True)
class BotChange:
    """The decision: the bot as it is now, the event to keep, the run that was abandoned."""

    bot: Bot
    event: BotEvent | None
    abandoned: str
    is_repeat: bool = False

    def is_visible(self, before: Bot | None) -> bool:
        """Is there anything to store? False for an idle poll that repeats the last one."""
        if before is None or self.event is not None or self.abandoned:
            return True
        return before != replace(self.bot, last_event_dedup_key=before.last_event_dedup_key)


def new_bot(bot_id: str, dimensions: tuple[str, ...], now_ms: int) -> Bot:
    """A bot never heard of: alive, healthy, and not idle before it says so (bot-api 12.2)."""
    return Bot(bot_id, dimensions, now_ms)


def key_of_uuid(request_uuid: str) -> str:
    """The dedup key in a `request_uuid` that nobody validates (bot-api 5.1): it may be anything."""
    if is_request_uuid(request_uuid):
        return request_uuid
    return hashlib.sha256(request_uuid.encode("utf-8", "surrogatepass")).hexdigest()


def event_key(update: BotUpdate, event_id: str) -> str:
    """What the bot remembers of its last event, to know a repeat by."""
    return f"{update.kind}:{update.dedup_key or event_id}"


def is_stale(bot: Bot, update: BotUpdate) -> bool:
    """Does this call come too late to say anything of the bot, whatever its kind?

    A call of an older session, a handshake that is repeated under a run of its session, a
    poll from before the latest claim or by a bot that has not heard of it. Who made the call
    judged by the bot as it was then; this is asked once more of the bot as it is when the
    change is made.
    """
    if update.call is None or not bot.session_id:
        return False
    session_id = update.call.session_id
    if update.kind is EventKind.BOT_CONNECTED:
        is_repeat = session_id == bot.session_id and bool(bot.task_id)
        return is_repeat or session_id in bot.past_sessions
    is_before_claim = 0 < update.seq < bot.claim_seq
    is_before_claim |= bot.has_missed_its_lease(update.heard)
    return session_id != bot.session_id or is_before_claim


def apply(bot: Bot, update: BotUpdate, *, event_id: str, now_ms: int) -> BotChange:
    """What the update makes of the bot, in the order of bot-api 9.3, steps 5 to 9.

    Frequent kinds leave an event only when something visible changed, be it by a person. An
    update without a dedup key has its event id as one: the transaction that runs again after
    a commit of unknown outcome must not count the event twice.
    """
    dedup_key = event_key(update, event_id)
    if dedup_key == bot.last_event_dedup_key:
        return BotChange(bot, None, "", is_repeat=True)
    was, bot = bot, bot.at(now_ms)
    if update.health is not None:
        update = replace(update, health=bot.steered(update.health))
    rule = RULES[update.kind]
    retasked, abandoned = _retasked(bot, update, rule)
    changes = {
        **_told(bot, update),
        **retasked,
        **_liveness(bot, update, rule, now_ms),
        "last_event_dedup_key": dedup_key,
        "steered_since_event": False,
    }
    if not rule.frequent or update.message or abandoned or was.steered_since_event:
        after = replace(bot, **changes, event_count=bot.event_count + 1)
    else:
        after = replace(bot, **changes)
        if (was.dimensions, was.composite) == (after.dimensions, after.composite):
            return BotChange(after, None, abandoned)
        after = replace(after, event_count=bot.event_count + 1)
    return BotChange(after, _event(bot, after, update, abandoned, event_id, now_ms), abandoned)


def _told(bot: Bot, update: BotUpdate) -> dict[str, Any]:
    """The facts that the call states about itself."""
    said: dict[str, Any] = dict(update.changes)
    if update.kind is EventKind.BOT_CONNECTED:
        said["restart_asked"] = ""
    if update.dimensions is not None:
        said["dimensions"] = update.dimensions
    if update.call is not None:
        if bot.session_id not in {"", update.call.session_id}:
            past = (*bot.past_sessions, bot.session_id)
            said["past_sessions"] = past[-MAX_PAST_SESSIONS:]
        said["session_id"] = update.call.session_id
        said["external_ip"] = update.call.external_ip
        said["authenticated_as"] = update.call.authenticated_as
        said["version"] = update.call.version or bot.version
    if update.health is not None:
        said["quarantined"] = update.health.quarantined
        said["maintenance"] = update.health.maintenance
    if update.owners is not None:
        said["owners"] = update.owners
    return said


def _retasked(bot: Bot, update: BotUpdate, rule: EventRule) -> tuple[dict[str, Any], str]:
    """What becomes of the current task, and the run that was abandoned by it, if any."""
    current = bot.task_id
    leaves = rule.task in {OnTask.RESET, OnTask.ABANDON} or (
        rule.task is OnTask.SET and current != update.task_id
    )
    new: dict[str, Any] = {}
    abandoned = ""
    if current and leaves and update.kind not in _FINISHING and current != bot.last_abandoned_task:
        abandoned = current
        new["last_abandoned_task"] = current
    if current and update.kind in _FINISHING:
        new |= {
            "last_finished_task": current,
            "last_finished_name": bot.task_name,
            "last_finished_flags": bot.task_flags,
        }
    if update.kind is EventKind.BOT_CONNECTED:
        new |= {"last_finished_task": "", "last_finished_name": "", "last_finished_flags": 0}
    if rule.task is OnTask.RESET:
        new |= {"task_id": "", "task_name": "", "task_flags": 0}
    elif rule.task is OnTask.SET:
        new |= {
            "task_id": update.task_id,
            "task_name": update.task_name,
            "task_flags": update.task_flags,
        }
    return new, abandoned


def _liveness(bot: Bot, update: BotUpdate, rule: EventRule, now_ms: int) -> dict[str, Any]:
    """Termination id, idleness and liveness; health is what the call has just said of it."""
    terminated = (
        bot.last_finished_task
        if update.kind is EventKind.BOT_SHUTDOWN and bot.last_finished_flags & TERMINATION_FLAG
        else ""
    )
    is_healthy = (update.health or bot.health).is_healthy
    idle_since = bot.idle_since_ms
    if rule.idle is not None:
        may_idle = is_healthy or update.kind in _STOPPED
        idle_since = (idle_since or now_ms) if rule.idle and may_idle else 0
    elif not is_healthy:
        idle_since = 0
    dead = bot.dead if rule.dead is None else rule.dead
    return {"termination_task_id": terminated, "idle_since_ms": idle_since, "dead": dead}


def _event(
    before: Bot, after: Bot, update: BotUpdate, abandoned: str, event_id: str, now_ms: int
) -> BotEvent:
    task_id = after.task_id
    if update.kind in _FINISHING:
        task_id = before.task_id
    elif update.kind in _STOPPED and abandoned:
        task_id = abandoned
    message = update.message or after.maintenance or after.quarantined
    if abandoned:
        message = "\n".join(filter(None, [message, f"Abandoned task {abandoned}"]))
    return BotEvent(
        bot_id=after.bot_id,
        at_ms=now_ms,
        event_id=event_id,
        kind=update.kind,
        message=message,
        task_id=task_id,
        session_id=after.session_id,
        version=after.version,
        external_ip=after.external_ip,
        authenticated_as=after.authenticated_as,
        dimensions=after.dimensions,
        quarantined=after.quarantined,
        maintenance=after.maintenance,
        state=update.state,
        owners=after.owners,
        idle_since_ms=after.idle_since_ms,
        seq=after.event_count,
    )
