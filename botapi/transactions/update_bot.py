"""The only way a bot changes: one event, its effect, and the run it abandons (bot-api 9.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import (
    RULES,
    BotChange,
    BotUpdate,
    EventKind,
    apply,
    is_stale,
    new_bot,
)
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.contact import DEFAULT_CONTACT_S, may_run_on_s
from botapi.domain.names import parse_task_id
from botapi.store import codec
from botapi.store.documents import pack
from botapi.store.protocol import Doc, Store, TooLarge, Txn, join_key
from botapi.transactions.finish_task import stage_finish

_OVER_ITS_HEAD = frozenset({EventKind.BOT_CONNECTED, EventKind.BOT_DELETED})
"""Abandon a run whose process does not know it yet: another one connects, or a person acts."""
BOT_KEEP_MORE_MS = 4 * 3600 * 1000
"""How much longer than its events a dead bot is kept (bot-api 9.6)."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a transaction may not choose itself, since it may run twice.

    `event_id` names the event that may result, so that a retry writes the same one.
    `contact_s`: seconds without contact after which a bot of ours stops its task.
    """

    now_ms: int
    event_id: str
    keep_event_ms: int
    contact_s: float = DEFAULT_CONTACT_S


def state_problem(state: Mapping[str, Any]) -> str:
    """Why no document can hold this state of a bot, empty when one can.

    One such state would keep the last-seen times of every bot from being stored.
    """
    try:
        pack(Doc("state", state))
    except TooLarge as error:
        return f"bad state dict: {error}"
    except OverflowError:
        return "bad state dict: a whole number has more than 64 bits"
    return ""


def stage_update(
    txn: Txn,
    bot_id: str,
    update: BotUpdate,
    stamp: Stamp,
    *,
    first_dimensions: tuple[str, ...] = (),
    known: tuple[Bot, Doc] | None = None,
) -> Bot | None:
    """Apply the update inside somebody's transaction.

    None when the bot does not exist and the event does not create one. Only the last
    event's dedup key is compared: consecutive repeats are no second event. A call that comes
    too late changes nothing. `known` is the bot, if this transaction has read it before.
    """
    before, was = known or _read(txn, bot_id)
    if before is None:
        if not RULES[update.kind].creates:
            return None
        before = new_bot(bot_id, first_dimensions, stamp.now_ms)
    if is_stale(before, update):
        return before
    change = apply(before, update, event_id=stamp.event_id, now_ms=stamp.now_ms)
    if change.is_repeat:
        return before
    _write(txn, change, was, stamp)
    return change.bot


def _read(txn: Txn, bot_id: str) -> tuple[Bot | None, Doc | None]:
    (doc,) = txn.get(codec.BOT, join_key(bot_id))
    return (None if doc is None else codec.read_bot(doc)), doc


def _write(txn: Txn, change: BotChange, was: Doc | None, stamp: Stamp) -> None:
    forget_at = stamp.now_ms + stamp.keep_event_ms + BOT_KEEP_MORE_MS
    txn.put(codec.BOT, codec.bot_doc(change.bot, was, forget_at if change.bot.dead else None))
    connects = change.event is not None and change.event.kind is EventKind.BOT_CONNECTED
    if change.abandoned:
        _end_abandoned(txn, change, stamp)
    if was is None or connects:
        # Silence is looked for among the bots last seen: one that is never heard of again
        # must be found there too, even if this process ends before it stores what it saw;
        # and one that comes back must not be buried for what was stored before.
        state = change.event.state if change.event is not None else None
        live = LiveBot(change.bot.bot_id, stamp.now_ms, stamp.now_ms, state)
        (live_was,) = txn.get(codec.LIVE, codec.live_key(change.bot.bot_id))
        txn.put(codec.LIVE, codec.live_doc(live, live_was))
    if change.event is not None:
        txn.put(codec.EVENT, codec.event_doc(change.event, stamp.keep_event_ms))


def _end_abandoned(txn: Txn, change: BotChange, stamp: Stamp) -> None:
    """End the run that the bot does not name any more, before what was seen of it changes."""
    kind = change.event.kind if change.event is not None else None
    runs_on_s = 0.0
    if kind in _OVER_ITS_HEAD:
        (live,) = txn.get(codec.LIVE, codec.live_key(change.bot.bot_id))
        state = None if live is None else codec.read_live(live).state
        runs_on_s = may_run_on_s(stamp.contact_s, state)
    error = f"the bot went on without it: {kind}" if kind is not None else ""
    ending = Ending(EndedBy.ABANDONED, error=error, may_run_on_s=runs_on_s)
    stage_finish(txn, parse_task_id(change.abandoned), ending, stamp.now_ms)


def update_bot(
    store: Store,
    bot_id: str,
    update: BotUpdate,
    stamp: Stamp,
    *,
    first_dimensions: tuple[str, ...] = (),
    once: bool = False,
) -> Bot | None:
    """One event on one bot; the bot as it is afterwards, None when there is none.

    `once`: the event's id was chosen by the bot, and a repeat of it, however late, is no
    second event.
    """
    seen_key = join_key("event", bot_id, stamp.event_id)

    def work(txn: Txn) -> Bot | None:
        if once:
            (seen,) = txn.get(codec.DEDUP, seen_key)
            if seen is not None:
                (doc,) = txn.get(codec.BOT, join_key(bot_id))
                return codec.read_bot(doc) if doc is not None else None
            expire_at = stamp.now_ms + stamp.keep_event_ms
            txn.put(codec.DEDUP, Doc(seen_key, {}, expire_at=expire_at))
        return stage_update(txn, bot_id, update, stamp, first_dimensions=first_dimensions)

    return store.transact(work, label=f"update_bot.{update.kind}")
