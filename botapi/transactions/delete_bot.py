"""A bot is forgotten: record, contact and lease session go, what it did stays (bot-api 10.6)."""

from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.domain.names import host_id
from botapi.store import codec
from botapi.store.protocol import Store, Txn, join_key
from botapi.transactions.cancel_task import Actor
from botapi.transactions.enrol_bot import stage_revoke_host
from botapi.transactions.update_bot import Stamp, stage_update


def delete_bot(store: Store, bot_id: str, actor: Actor, stamp: Stamp) -> bool:
    """Remove it; its run ends as abandoned, its host is not enrolled any more.

    False when there is no such bot. Of a host with several bots only the one that is named
    as the host takes the enrolment with it. An offer on its way comes back by itself.
    """
    key = join_key(bot_id)

    def work(txn: Txn) -> bool:
        bot_doc, done = (
            *txn.get(codec.BOT, key),
            *txn.get(codec.AUDIT, codec.audit_key(stamp.now_ms, actor.entry_id)),
        )
        if bot_doc is None or done is not None:
            return done is not None
        bot = codec.read_bot(bot_doc)
        update = BotUpdate(EventKind.BOT_DELETED, message=actor.reason)
        stage_update(txn, bot_id, update, stamp, known=(bot, bot_doc))
        txn.delete(codec.BOT, key)
        txn.delete(codec.LIVE, codec.live_key(bot_id))
        txn.delete(codec.LSESSION, key)
        txn.notify(f"bot!{bot_id}")
        if host_id(bot_id) == bot_id:
            stage_revoke_host(txn, bot_id)
        txn.put(
            codec.AUDIT,
            codec.audit_doc(
                at_ms=stamp.now_ms,
                entry_id=actor.entry_id,
                actor=actor.name,
                verb="bot.delete",
                target=f"bot {bot_id}",
                reason=actor.reason,
                before=bot.status,
                after="",
            ),
        )
        return True

    return store.transact(work, label="delete_bot")
