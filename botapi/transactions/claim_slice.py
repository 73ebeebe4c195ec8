"""The claim: slice taken, task running, bot busy, in one step (bot-api 4.3)."""

from dataclasses import dataclass, replace

from botapi import __version__
from botapi.domain.bot import TERMINATION_FLAG, Bot
from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind
from botapi.domain.claim import Attempt, Decision, Run, Skip, Terminate, decide
from botapi.domain.names import run_id
from botapi.domain.task import PendingSlice, Task, TaskRequest, TaskState, become, lease_id
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn, join_key
from botapi.transactions.counted import count_claim
from botapi.transactions.create_task import EXPIRE
from botapi.transactions.update_bot import Stamp, stage_update


@dataclass(frozen=True, slots=True)
class Claim:
    """What a bot asks for. `dedup_key` is the bot's own claim id.

    `given_lease`: the lease, when the server claims it for the bot (docs/extensions.md).
    """

    bot_id: str
    task_id: str
    attempt: Attempt
    dedup_key: str
    seq: int
    recent_polls: tuple[str, ...]
    call: CallInfo | None = None
    logs_cloud_project: str = ""
    given_lease: str = ""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A waiting bot for which the lease it gets is claimed at once (docs/extensions.md).

    `stamp` and `call` are those of its held call.
    """

    bot_id: str
    session_id: str
    seq: int
    recent_polls: tuple[str, ...]
    call: CallInfo
    logs_cloud_project: str
    stamp: Stamp

    def claim(self, pending: PendingSlice) -> Claim:
        """As this bot would claim that slice."""
        lease = lease_id(pending)
        attempt = Attempt(
            self.session_id, f"{self.bot_id}:{lease}", pending.slice_index, pending.shard
        )
        return Claim(
            bot_id=self.bot_id,
            task_id=pending.task_id,
            attempt=attempt,
            dedup_key=lease,
            seq=self.seq,
            recent_polls=self.recent_polls,
            call=self.call,
            logs_cloud_project=self.logs_cloud_project,
            given_lease=lease,
        )

    def stamp_at(self, now_ms: int) -> Stamp:
        """For the transaction that claims."""
        return replace(self.stamp, now_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The referee's word, and what a manifest is made from; None for a task unknown."""

    decision: Decision
    task: Task | None = None
    request: TaskRequest | None = None
    bot: Bot | None = None


class BotVanished(Exception):
    """The bot was deleted between the check of its session and its claim."""


def claim_slice(store: Store, claim: Claim, stamp: Stamp) -> Claimed:
    """Decide and write. The same claim again gets the same answer and writes nothing.

    The first claim that a bot makes of what was claimed for it is no such repeat.

    Raises BotVanished.
    """
    return store.transact(lambda txn: stage_claim(txn, claim, stamp), label="claim_slice")


def stage_claim(txn: Txn, claim: Claim, stamp: Stamp) -> Claimed:
    """The same inside somebody's transaction."""
    key = codec.task_key(claim.task_id)
    task_was, req, offer_doc, bot_doc = (
        *txn.get(codec.TASK, key),
        *txn.get(codec.REQ, key),
        *txn.get(codec.OFFER, key),
        *txn.get(codec.BOT, join_key(claim.bot_id)),
    )
    if bot_doc is None:
        raise BotVanished(claim.bot_id)
    if task_was is None or req is None:
        return Claimed(Skip("no such task"))
    task, request, bot = (
        codec.read_task(task_was),
        codec.read_request(req),
        codec.read_bot(bot_doc),
    )
    offer = codec.read_offer(offer_doc) if offer_doc is not None else None
    decision = decide(task, request, bot, offer, claim.attempt)
    is_missed = bot.was_given(claim.attempt.claim_id) and not claim.given_lease
    match decision:
        case Run(is_retry=False) | Terminate(is_retry=False):
            task = _stage_run(txn, (task, task_was), request, (bot, bot_doc), claim, stamp)
        case Run() | Terminate() if is_missed:
            task = _stage_taken(txn, (task, task_was), (bot, bot_doc), claim, stamp.now_ms)
        case Skip(reason) if is_missed and bot.task_id == run_id(task.task_id):
            _stage_never_begun(txn, (bot, bot_doc), claim, stamp, reason)
        case _:
            pass
    return Claimed(decision, task, request, bot)


def _stage_taken(
    txn: Txn, of: tuple[Task, Doc], known: tuple[Bot, Doc], claim: Claim, now_ms: int
) -> Task:
    """The bot claims what was claimed for it: from now on it is a claim like any.

    Its run starts now, and whoever judged it by the silence before must look again.
    """
    (old, old_doc), (bot, was) = of, known
    new = replace(old, started_ms=now_ms)
    txn.put(codec.TASK, codec.task_doc(new, old_doc))
    txn.delete(codec.RUN_TIME, codec.run_time_key(old, codec.RunTime.STARTED))
    txn.put(codec.RUN_TIME, codec.run_time_doc(new, codec.RunTime.STARTED))
    own = replace(bot, claim_seq=claim.seq, polls_before_claim=claim.recent_polls, given_lease="")
    txn.put(codec.BOT, codec.bot_doc(own, was))
    return new


def _stage_never_begun(
    txn: Txn, known: tuple[Bot, Doc], claim: Claim, stamp: Stamp, reason: str
) -> None:
    """What was claimed for the bot has ended before it heard of it: it is free at once.

    As its next poll would make it. It stays known that the lease was given: a repeat of this
    claim is no repeat of one that was answered `run`.
    """
    lease = known[0].given_lease
    update = BotUpdate(
        EventKind.BOT_POLLING, message=reason, call=claim.call, seq=claim.seq, heard=lease
    )
    stage_update(txn, claim.bot_id, update, stamp, known=known)


def _stage_run(
    txn: Txn,
    task: tuple[Task, Doc],
    request: TaskRequest,
    known: tuple[Bot, Doc],
    claim: Claim,
    stamp: Stamp,
) -> Task:
    (old, was), (bot, _) = task, known
    new = become(
        old,
        TaskState.RUNNING,
        stamp.now_ms,
        bot_id=bot.bot_id,
        bot_version=bot.version,
        bot_dimensions=bot.dimensions,
        bot_owners=bot.owners,
        bot_idle_since_ms=bot.idle_since_ms or stamp.now_ms,
        bot_logs_cloud_project=claim.logs_cloud_project,
        server_versions=tuple(sorted({*old.server_versions, __version__})),
        session_id=bot.session_id,
        claim_id=claim.attempt.claim_id,
        started_ms=stamp.now_ms,
        properties_hash=request.slices[old.slice_index].properties_hash,
    )
    txn.put(codec.TASK, codec.task_doc(new, was))
    txn.put(codec.RUN_TIME, codec.run_time_doc(new, codec.RunTime.STARTED))
    txn.delete(codec.PEND, old.pend_key)
    txn.delete(codec.OFFER, codec.task_key(old.task_id))
    txn.delete(codec.DUE, codec.due_key(request.deadline_ms(old.slice_index), EXPIRE, old.task_id))
    terminates = request.is_termination
    update = BotUpdate(
        EventKind.BOT_TERMINATE if terminates else EventKind.REQUEST_TASK,
        dedup_key=claim.dedup_key,
        call=claim.call,
        task_id=run_id(old.task_id),
        task_name=request.name,
        task_flags=TERMINATION_FLAG if terminates else 0,
        changes={
            "claim_seq": claim.seq,
            "polls_before_claim": claim.recent_polls,
            "given_lease": claim.given_lease,
        },
    )
    stage_update(txn, bot.bot_id, update, stamp, known=known)
    txn.notify(f"task!{old.task_id}")
    count_claim(new)
    return new
