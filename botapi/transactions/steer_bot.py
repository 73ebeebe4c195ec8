"""A person keeps a bot from work, lets it work again, or has it start over (bot-api 9.3)."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from botapi.domain.bot import Bot
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn, join_key
from botapi.transactions.cancel_task import Actor
from botapi.transactions.offer_lease import outstanding_offer


class Steer(StrEnum):
    """What is asked of a bot; the words of the API, the CLI and the audit record."""

    QUARANTINE = "quarantine"
    RELEASE = "release"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"

    @property
    def ends_work(self) -> bool:
        """Does the bot get no new lease from now on, or not before it has polled?"""
        return self in {Steer.QUARANTINE, Steer.PAUSE, Steer.RESTART}


_CHANGES: dict[Steer, Callable[[Bot, str, int], Bot]] = {
    Steer.QUARANTINE: lambda bot, reason, until_ms: bot.kept_from_work(reason, until_ms),
    Steer.RELEASE: lambda bot, _reason, _until_ms: bot.kept_from_work(""),
    Steer.PAUSE: lambda bot, reason, until_ms: bot.paused(reason, until_ms),
    Steer.RESUME: lambda bot, _reason, _until_ms: bot.paused(""),
    Steer.RESTART: lambda bot, reason, _until_ms: replace(bot, restart_asked=reason),
}


def steer_bot(
    store: Store, bot_id: str, steer: Steer, actor: Actor, *, now_ms: int, until_ms: int = 0
) -> Bot | None:
    """The bot as it is then, None when there is none; `actor.reason` says why.

    A bot that is kept from work is offered nothing from now on: its lease session is closed
    with the same change, so that it polls. A run that it has goes on. `until_ms` is when a
    quarantine or a pause ends by itself; 0 is not. Its held call is answered, and the next one
    leaves an event.
    """
    key = join_key(bot_id)

    def work(txn: Txn) -> Bot | None:
        was, done, leases = (
            *txn.get(codec.BOT, key),
            *txn.get(codec.AUDIT, codec.audit_key(now_ms, actor.entry_id)),
            *txn.get(codec.LSESSION, key),
        )
        if was is None:
            return None
        bot = codec.read_bot(was)
        after = _CHANGES[steer](bot.at(now_ms), actor.reason, until_ms)
        if done is not None or after == bot:
            return bot
        after = replace(after, steered_since_event=True)
        txn.put(codec.BOT, codec.bot_doc(after, was))
        txn.notify(f"bot!{bot_id}")
        is_free = not bot.task_id and leases is not None and not _has_offer(txn, leases)
        if steer.ends_work and is_free:
            txn.delete(codec.LSESSION, key)
        txn.put(
            codec.AUDIT,
            codec.audit_doc(
                at_ms=now_ms,
                entry_id=actor.entry_id,
                actor=actor.name,
                verb=f"bot.{steer}",
                target=f"bot {bot_id}",
                reason=actor.reason,
                before=_said(bot, steer),
                after=_said(after, steer),
            ),
        )
        return after

    return store.transact(work, label="steer_bot")


def _said(bot: Bot, steer: Steer) -> str:
    """What the audit record keeps of the bot before and after."""
    if steer in {Steer.QUARANTINE, Steer.RELEASE}:
        return _until(bot.admin_quarantine, bot.admin_quarantine_until_ms)
    if steer in {Steer.PAUSE, Steer.RESUME}:
        return _until(bot.pause, bot.pause_until_ms)
    return bot.restart_asked


def _until(reason: str, until_ms: int) -> str:
    return f"{reason} (until {until_ms} ms)" if until_ms else reason


def _has_offer(txn: Txn, leases: Doc) -> bool:
    """Is an offer on its way to the bot? The session also names one that is over."""
    return outstanding_offer(txn, codec.read_lease_session(leases)) is not None
