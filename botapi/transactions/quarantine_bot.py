"""An admin keeps a bot from work, or lets it work again (BotSettings of bot-api 9.3)."""

from botapi.domain.bot import Bot
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn, join_key
from botapi.transactions.cancel_task import Actor
from botapi.transactions.offer_lease import outstanding_offer


def quarantine_bot(store: Store, bot_id: str, actor: Actor, *, on: bool, now_ms: int) -> Bot | None:
    """The bot as it is then, None when there is none; `actor.reason` says why.

    A quarantined bot is offered nothing from now on: its lease session is closed with the
    same change. A run that it has goes on. The bot hears of it at its next poll.
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
        after = bot.kept_from_work(actor.reason if on else "")
        if done is not None or after == bot:
            return bot
        txn.put(codec.BOT, codec.bot_doc(after, was))
        if on and leases is not None and not bot.task_id and not _has_offer(txn, leases):
            txn.delete(codec.LSESSION, key)
        txn.put(
            codec.AUDIT,
            codec.audit_doc(
                at_ms=now_ms,
                entry_id=actor.entry_id,
                actor=actor.name,
                verb="bot.quarantine" if on else "bot.release",
                target=f"bot {bot_id}",
                reason=actor.reason,
                before=bot.admin_quarantine,
                after=after.admin_quarantine,
            ),
        )
        return after

    return store.transact(work, label="quarantine_bot")


def _has_offer(txn: Txn, leases: Doc) -> bool:
    """Is an offer on its way to the bot? The session also names one that is over."""
    return outstanding_offer(txn, codec.read_lease_session(leases)) is not None
