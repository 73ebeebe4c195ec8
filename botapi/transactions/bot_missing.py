"""A bot that fell silent, a run nobody speaks of, a run that nobody stops: all end the run."""

from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.names import parse_task_id
from botapi.store import codec
from botapi.store.protocol import Store, Txn, join_key
from botapi.transactions.finish_task import Finished, stage_end, stage_finish
from botapi.transactions.update_bot import Stamp, stage_update


def bot_missing(store: Store, seen: LiveBot, judged: Bot, stamp: Stamp) -> bool:
    """Mark the bot dead and abandon its run; False when it was heard of meanwhile.

    `seen` and `judged` are what the sweep judged by; they are compared with the stored records
    again. The bot goes on naming the task it died on (bot-api 5.6).
    """

    def work(txn: Txn) -> bool:
        live_doc, bot_doc = (
            *txn.get(codec.LIVE, codec.live_key(seen.bot_id)),
            *txn.get(codec.BOT, join_key(seen.bot_id)),
        )
        if live_doc is None or bot_doc is None:
            return False
        bot = codec.read_bot(bot_doc)
        if bot.dead or bot.run != judged.run:
            return False
        if codec.read_live(live_doc).seen_ms > seen.seen_ms:
            return False
        silent_s = (stamp.now_ms - seen.seen_ms) // 1000
        update = BotUpdate(EventKind.BOT_MISSING, message=f"not heard of for {silent_s} s")
        stage_update(txn, seen.bot_id, update, stamp)
        txn.delete(codec.LSESSION, join_key(seen.bot_id))
        return True

    return store.transact(work, label="bot_missing")


def forget_live(store: Store, bot_id: str) -> bool:
    """Remove what was last seen of a bot that is gone itself; False when there is such a bot."""

    def work(txn: Txn) -> bool:
        if txn.get(codec.BOT, join_key(bot_id)) != [None]:
            return False
        txn.delete(codec.LIVE, codec.live_key(bot_id))
        txn.delete(codec.LSESSION, join_key(bot_id))
        return True

    return store.transact(work, label="forget_live")


def run_missing(store: Store, seen: LiveBot, judged: Bot, stamp: Stamp) -> Finished | None:
    """End a run whose bot is there but has said nothing of it for the ping tolerance.

    None when the run or the record changed meanwhile: `seen` and `judged` are what the sweep
    judged by.
    """

    def work(txn: Txn) -> Finished | None:
        live_doc, bot_doc = (
            *txn.get(codec.LIVE, codec.live_key(seen.bot_id)),
            *txn.get(codec.BOT, join_key(seen.bot_id)),
        )
        if live_doc is None or bot_doc is None:
            return None
        if codec.read_live(live_doc).run_seen_ms > seen.run_seen_ms:
            return None
        if codec.read_bot(bot_doc).run != judged.run:
            return None
        error = "the bot has said nothing of this run for too long"
        ending = Ending(EndedBy.ABANDONED, error=error)
        return stage_finish(txn, parse_task_id(judged.task_id), ending, stamp.now_ms)

    return store.transact(work, label="run_missing")


def kill_ignored(
    store: Store, bot_id: str, run_id: str, killed_ms: int, stamp: Stamp
) -> Finished | None:
    """End a run that was told to stop at `killed_ms` and has not ended long after.

    None when it is not that run any more, or has ended. The bot goes on being told to stop.
    """

    def work(txn: Txn) -> Finished | None:
        bot_doc, task_doc = (
            *txn.get(codec.BOT, join_key(bot_id)),
            *txn.get(codec.TASK, codec.task_key(run_id)),
        )
        if bot_doc is None or task_doc is None or codec.read_bot(bot_doc).task_id != run_id:
            return None
        task = codec.read_task(task_doc)
        if not task.killing or task.abandoned_ms != killed_ms:
            return None
        ending = Ending(EndedBy.ABANDONED, error="the bot did not stop it in time")
        return stage_end(txn, (task, task_doc), ending, stamp.now_ms)

    return store.transact(work, label="kill_ignored")
