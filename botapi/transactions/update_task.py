"""A run's progress: output at an absolute offset, and its end (bot-api 5.1 to 5.5)."""

from dataclasses import dataclass, replace
from functools import partial

from botapi import metrics
from botapi.domain.bot import Bot
from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind, event_key
from botapi.domain.completion import Ending, event_of
from botapi.domain.names import run_id
from botapi.domain.output import Append, Gap, place
from botapi.domain.task import Task
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn, join_key
from botapi.transactions.finish_task import stage_end
from botapi.transactions.late_output import stage_late
from botapi.transactions.update_bot import Stamp, stage_update


@dataclass(frozen=True, slots=True)
class Progress:
    """One call of a bot about its run. `ending` is None while it goes on.

    `resends`: this bot can be asked for missing bytes, also at the end.
    """

    bot_id: str
    session_id: str
    task_id: str
    offset: int
    output: bytes
    ending: Ending | None
    dedup_key: str
    resends: bool
    output_limit: int
    call: CallInfo | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Stored. `must_stop` tells the bot to end the task, for this reason."""

    task: Task
    must_stop: str = ""


@dataclass(frozen=True, slots=True)
class NotCurrent:
    """The bot does not run this task (any more); nothing was stored."""

    must_stop: str


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such task."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """The run is recorded for another bot, this one; only a mistake of ours gets here."""

    bot_id: str


Outcome = Accepted | NotCurrent | Missing | Foreign | Gap

PIECE_BYTES = 256 * 1024
"""Largest stored piece of output."""


def update_task(store: Store, progress: Progress, stamp: Stamp) -> Outcome:
    """Append, and finish when `ending` says so. A repeat changes nothing."""
    key = codec.task_key(progress.task_id)

    def work(txn: Txn) -> Outcome:
        bot_doc, task_doc, position_doc = (
            *txn.get(codec.BOT, join_key(progress.bot_id)),
            *txn.get(codec.TASK, key),
            *txn.get(codec.OUTPOS, codec.output_position_key(progress.task_id)),
        )
        if task_doc is None:
            return Missing()
        if bot_doc is None:
            return NotCurrent(f"this bot does not run {progress.task_id}")
        bot, task = (codec.read_bot(bot_doc), bot_doc), (codec.read_task(task_doc), task_doc)
        if task[0].is_final:
            return _after_the_end(txn, bot, task, progress, stamp)
        why_not = _why_not(bot[0], task[0], progress)
        if why_not is not None:
            return why_not
        placed = place(
            codec.read_output_position(position_doc),
            progress.offset,
            progress.output,
            limit=progress.output_limit,
            may_skip=progress.ending is not None and not progress.resends,
        )
        if isinstance(placed, Gap):
            return placed
        _stage_output(txn, progress.task_id, placed)
        position = placed.position, position_doc
        if progress.ending is not None:
            ended = stage_end(txn, task, progress.ending, stamp.now_ms, position).task
            stage_update(txn, progress.bot_id, _end_event(progress, ended), stamp, known=bot)
            return Accepted(ended)
        if placed.data or placed.position.missing_bytes:
            txn.put(codec.OUTPOS, codec.output_position_doc(progress.task_id, *position))
            txn.notify(f"task!{progress.task_id}")
        return Accepted(task[0], must_stop="being killed" if task[0].killing else "")

    return store.transact(work, label="update_task")


def _after_the_end(
    txn: Txn,
    known: tuple[Bot, Doc],
    ended: tuple[Task, Doc],
    progress: Progress,
    stamp: Stamp,
) -> Outcome:
    """The run is over already: perhaps by this very call, perhaps without this bot."""
    task = ended[0]
    if _is_own_end(known[0], progress, task, stamp):
        return Accepted(task)
    why_not = _why_not(known[0], task, progress)
    if why_not is not None:
        return why_not
    metrics.after_commit(metrics.LATE_UPDATES.inc)
    if progress.output:
        task = stage_late(txn, ended, progress.offset, progress.output)
    if progress.ending is not None:
        update = replace(_end_event(progress, task), message=_late(progress, task))
        stage_update(txn, progress.bot_id, update, stamp, known=known)
    return Accepted(task, must_stop=f"the task has ended: {task.state}")


def _why_not(bot: Bot, task: Task, progress: Progress) -> NotCurrent | Foreign | None:
    if bot.task_id != run_id(progress.task_id):
        return NotCurrent(f"this bot does not run {progress.task_id}")
    if bot.session_id != progress.session_id:
        return NotCurrent("another process took this bot id over")
    return None if task.bot_id == progress.bot_id else Foreign(task.bot_id)


def _stage_output(txn: Txn, task_id: str, placed: Append) -> None:
    metrics.after_commit(partial(metrics.OUTPUT_BYTES.inc, len(placed.data)))
    for start in range(0, len(placed.data), PIECE_BYTES):
        piece = placed.data[start : start + PIECE_BYTES]
        txn.put(codec.OUT, codec.output_doc(task_id, placed.offset + start, piece))


def _end_event(progress: Progress, task: Task) -> BotUpdate:
    return BotUpdate(event_of(task), dedup_key=progress.dedup_key, call=progress.call)


def _is_own_end(bot: Bot, progress: Progress, task: Task, stamp: Stamp) -> bool:
    """Did this very call end the run, in a commit whose outcome was unknown?"""
    key = event_key(_end_event(progress, task), stamp.event_id)
    return progress.ending is not None and bot.last_event_dedup_key == key


def _late(progress: Progress, task: Task) -> str:
    """What the bot says of a run that had ended without it; the result stays as it is."""
    said = progress.ending
    assert said is not None  # noqa: S101 - the caller has looked
    return (
        f"late result of {run_id(task.task_id)}, which had ended as {task.state}: "
        f"exit code {said.exit_code}, {said.duration_s} s, "
        f"{len(progress.output)} bytes of output from {progress.offset} on kept apart"
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """A bot's own failure at its run."""

    bot_id: str
    task_id: str
    ending: Ending
    dedup_key: str
    call: CallInfo | None = None


def end_with_error(store: Store, failure: Failure, stamp: Stamp) -> Outcome:
    """End the bot's current run because the bot itself failed (bot-api 5.7)."""

    def work(txn: Txn) -> Outcome:
        bot_doc, task_doc = (
            *txn.get(codec.BOT, join_key(failure.bot_id)),
            *txn.get(codec.TASK, codec.task_key(failure.task_id)),
        )
        if bot_doc is None or codec.read_bot(bot_doc).task_id != run_id(failure.task_id):
            return NotCurrent(f"this bot does not run {failure.task_id}")
        if task_doc is None:
            return Missing()
        task = codec.read_task(task_doc)
        if task.bot_id != failure.bot_id:
            return Foreign(task.bot_id)
        done = stage_end(txn, (task, task_doc), failure.ending, stamp.now_ms)
        update = BotUpdate(
            EventKind.TASK_ERROR,
            message=failure.ending.error,
            dedup_key=failure.dedup_key,
            call=failure.call,
        )
        stage_update(txn, failure.bot_id, update, stamp)
        return Accepted(done.task)

    return store.transact(work, label="task_error")
