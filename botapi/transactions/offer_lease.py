"""Offers: pending slices given to waiting bots for a while, and what comes back unclaimed.

A bot that asks for it is given the claim with the offer, in one commit: then no offer stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from botapi.domain.claim import Run, Terminate
from botapi.domain.matching import queue_of
from botapi.domain.task import (
    MAX_OFFER_RETRIES,
    Offer,
    PendingSlice,
    TaskState,
    lease_id,
)
from botapi.store import codec
from botapi.store.codec import LeaseSession
from botapi.store.protocol import Doc, Key, Store, Txn, join_key
from botapi.transactions.claim_slice import BotVanished, Claimant, Claimed, stage_claim
from botapi.transactions.create_task import stage_queue
from botapi.transactions.expire_slice import stage_next_slice

NEW = {Run(is_retry=False), Terminate(is_retry=False)}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A bot that waits for work, with the queues it can serve.

    `claimant`: what it gets is to be claimed for it.
    """

    bot_id: str
    lease_session_id: str
    queue_keys: frozenset[Key]
    claimant: Claimant | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """What one round gave: offers by bot id, those of them that are claimed already, bots whose
    lease session is gone or has an offer already or that have a run, and the queues that may hold
    more."""

    offers: Mapping[str, Offer]
    claimed: Mapping[str, Claimed]
    stale: frozenset[str]
    more: frozenset[Key]


def offer_leases(
    store: Store, queue_keys: Sequence[Key], waiting: Sequence[Waiting], now_ms: int
) -> Offered:
    """Match the heads of these queues with these bots, the longest waiting first.

    A slice that is offered is not claimable by others until the offer is returned. A bot
    has at most one outstanding offer.
    """
    limit = len(waiting)

    def work(txn: Txn, docs: list[Doc]) -> Offered:
        pending = sorted((codec.read_pending(doc) for doc in docs), key=lambda p: p.order)
        free = list(waiting)
        offers: dict[str, Offer] = {}
        claimed: dict[str, Claimed] = {}
        stale: set[str] = set()
        for slot in pending:
            for bot in [b for b in free if slot.queue_key in b.queue_keys]:
                free.remove(bot)
                session = _open_session(txn, bot)
                if session is None:
                    stale.add(bot.bot_id)
                    continue
                claim = _stage_claim_of(txn, slot, bot, now_ms)
                if claim is not None and claim.decision in NEW:
                    claimed[bot.bot_id] = claim
                    offers[bot.bot_id] = Offer(lease_id(slot), bot.bot_id, now_ms, slot)
                elif claim is not None and claim.bot is not None and claim.bot.task_id:
                    stale.add(bot.bot_id)  # with a run that it has missed: it is told of it
                    continue
                else:
                    offers[bot.bot_id] = _stage_offer(txn, slot, session, now_ms)
                break
        more = _queues_with_more(queue_keys, pending, offers, limit)
        return Offered(offers, claimed, frozenset(stale), more)

    ranges = [codec.queue_range(key) for key in queue_keys]
    return store.take(codec.PEND, ranges, limit, work, label="offer_leases")


def _queues_with_more(
    queue_keys: Sequence[Key],
    pending: Sequence[PendingSlice],
    offers: Mapping[str, Offer],
    limit: int,
) -> frozenset[Key]:
    offered = {offer.pending.task_id for offer in offers.values()}
    left = {slot.queue_key for slot in pending if slot.task_id not in offered}
    full = {key for key in queue_keys if sum(s.queue_key == key for s in pending) >= limit}
    return frozenset(left | full)


def _open_session(txn: Txn, bot: Waiting) -> tuple[LeaseSession, Doc] | None:
    """The bot's lease session, if it is still the open one and holds no offer."""
    (doc,) = txn.get(codec.LSESSION, join_key(bot.bot_id))
    if doc is None:
        return None
    session = codec.read_lease_session(doc)
    if session.closed or session.lease_session_id != bot.lease_session_id:
        return None
    return (session, doc) if outstanding_offer(txn, session) is None else None


def outstanding_offer(txn: Txn | Store, session: LeaseSession) -> Offer | None:
    """The offer this session holds, None when it was claimed, returned or never made."""
    if not session.offer_task:
        return None
    (doc,) = txn.get(codec.OFFER, codec.task_key(session.offer_task))
    if doc is None:
        return None
    offer = codec.read_offer(doc)
    return offer if offer.bot_id == session.bot_id else None


def _stage_offer(
    txn: Txn, slot: PendingSlice, session: tuple[LeaseSession, Doc], now_ms: int
) -> Offer:
    offer = Offer(lease_id(slot), session[0].bot_id, now_ms, slot)
    txn.delete(codec.PEND, slot.key)
    txn.put(codec.OFFER, codec.offer_doc(offer))
    after = replace(session[0], offer_task=slot.task_id)
    txn.put(codec.LSESSION, codec.lease_session_doc(after, session[1]))
    return offer


def _stage_claim_of(txn: Txn, slot: PendingSlice, bot: Waiting, now_ms: int) -> Claimed | None:
    """The claim made for this bot, or the reason why not; None for a bot that claims itself."""
    if bot.claimant is None:
        return None
    try:
        return stage_claim(txn, bot.claimant.claim(slot), bot.claimant.stamp_at(now_ms))
    except BotVanished:
        return None


def return_offer(store: Store, offer: Offer, now_ms: int, reason: str) -> bool:
    """Put an unclaimed slice back into its queue; False when it is not outstanding any more.

    After three retries the slice ends (bot-api 10.4): the next slice, or BOT_DIED.
    """
    key = codec.task_key(offer.pending.task_id)

    def work(txn: Txn) -> bool:
        offer_was, task_was, req = (
            *txn.get(codec.OFFER, key),
            *txn.get(codec.TASK, key),
            *txn.get(codec.REQ, key),
        )
        if offer_was is None or codec.read_offer(offer_was).lease_id != offer.lease_id:
            return False
        txn.delete(codec.OFFER, key)
        if task_was is None or req is None:
            return True
        task = codec.read_task(task_was)
        slot = offer.pending
        if task.state is not TaskState.PENDING or task.slice_index != slot.slice_index:
            return True
        if slot.retry_count < MAX_OFFER_RETRIES:
            txn.put(codec.PEND, codec.pend_doc(replace(slot, retry_count=slot.retry_count + 1)))
            dimensions = codec.read_request(req).slices[slot.slice_index].dimensions
            stage_queue(txn, queue_of(dimensions), now_ms)
            txn.notify(f"pend!{slot.queue_key}")
            return True
        request = codec.read_request(req)
        error = f"{offer.bot_id} dropped the lease: {reason}"
        stage_next_slice(
            txn, (task, task_was), request, TaskState.BOT_DIED, now_ms, error, offer.bot_id
        )
        return True

    return store.transact(work, label="return_offer")
