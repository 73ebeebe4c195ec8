"""`GET /tasks/<id>/why`: each bot of the pool with what keeps it from a pending task."""

from collections.abc import Iterator
from itertools import islice

from botapi.api import queries
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.tasks import canonical, unknown
from botapi.api.views import rfc3339
from botapi.domain.bot import Bot
from botapi.domain.matching import constraints, fits
from botapi.domain.pending import Miss, Obstacle, miss_of, summary, would_help
from botapi.domain.permissions import Caller, Permission
from botapi.domain.task import Slice, Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Key, join_key, prefix_range
from botapi.store.walk import find_all

MAX_BOTS = 20_000
"""Bots of a pool looked at; the answer says when there are more."""
MAX_AHEAD = 10_000
"""Slices before this one counted no further."""


def why(parts: ApiParts, caller: Caller, task_id: str, query: Query) -> Json:
    """Why it is pending, nearest misses first. Raises Refusal NOT_FOUND.

    A task that is not pending is answered with its state and no bots. `offset` goes on
    where an answer was cut. Bots are named to those who may list the bots of the pool.
    """
    queries.check_names(query, ("limit", "offset"))
    limit = queries.page_limit(query)
    offset = queries.number(query, "offset", 0, 0, MAX_BOTS)
    key = codec.task_key(canonical(task_id))
    task_doc, request_doc, offer_doc = (
        *parts.store.get(codec.TASK, key),
        *parts.store.get(codec.REQ, key),
        *parts.store.get(codec.OFFER, key),
    )
    if task_doc is None or request_doc is None:
        raise unknown(task_id)
    task, request = codec.read_task(task_doc), codec.read_request(request_doc)
    if task.state is not TaskState.PENDING:
        return _not_pending(task)
    found: Json = parts.concurrency.native(lambda: _look(parts, task, request, offset, limit))
    if offer_doc is not None:
        offer = codec.read_offer(offer_doc)
        found["offered_to"] = offer.bot_id
        found["summary"] = f"offered to {offer.bot_id}, which has not claimed it yet"
    is_shown = caller.may(Permission.LIST_BOTS, request.slices[task.slice_index].pool)
    return found if is_shown else found | _HIDDEN


_HIDDEN: Json = {"offered_to": None, "bots": [], "would_help": [], "next_offset": None}


def _not_pending(task: Task) -> Json:
    where = f" on {task.bot_id}" if task.bot_id else ""
    return {
        "task_id": task.task_id,
        "state": str(task.state),
        "summary": f"is not pending: {task.state}{where}",
        "bots": [],
        "would_help": [],
        "next_offset": None,
    }


def _look(parts: ApiParts, task: Task, request: TaskRequest, offset: int, limit: int) -> Json:
    slice_ = request.slices[task.slice_index]
    wanted = constraints(slice_.dimensions)
    bots = list(_bots_of(parts, slice_))
    candidates = [
        bot.bot_id for bot in bots if bot.idle_since_ms and fits(frozenset(bot.dimensions), wanted)
    ]
    waiting = _waiting(parts, candidates)
    misses = sorted(
        (miss_of(bot, wanted, is_waiting=bot.bot_id in waiting) for bot in bots),
        key=lambda miss: miss.distance,
    )
    ahead = _ahead(parts, task)
    page = misses[offset : offset + limit]
    return {
        "task_id": task.task_id,
        "state": str(task.state),
        "slice_index": task.slice_index,
        "slice_count": len(request.slices),
        "slice_expires_at": rfc3339(request.deadline_ms(task.slice_index)),
        "wait_for_capacity": slice_.wait_for_capacity,
        "pool": slice_.pool or None,
        "offered_to": None,
        "summary": summary(misses),
        "queue_position": ahead[0] + 1,
        "pool_position": ahead[1] + 1,
        "bots_looked_at": len(bots),
        "bots_cut": len(bots) >= MAX_BOTS,
        "obstacles": _counts(misses),
        "would_help": would_help(misses),
        "bots": [_view(miss) for miss in page],
        "next_offset": offset + limit if offset + limit < len(misses) else None,
    }


def _counts(misses: list[Miss]) -> Json:
    return {
        str(obstacle): sum(miss.obstacle is obstacle for miss in misses) for obstacle in Obstacle
    }


def _view(miss: Miss) -> Json:
    return {
        "bot_id": miss.bot_id,
        "reason": str(miss.obstacle),
        "detail": miss.detail,
        "misses": list(miss.unmet),
    }


def _bots_of(parts: ApiParts, slice_: Slice) -> Iterator[Bot]:
    """The bots of the slice's pool; of a termination task its one bot."""
    flat = f"d:pool:{slice_.pool}" if slice_.pool else f"d:id:{slice_.dimensions['id'][0]}"
    found = find_all(parts.store, codec.BOT, [frozenset({flat})])
    return map(codec.read_bot, islice(found, MAX_BOTS))


def _waiting(parts: ApiParts, bot_ids: list[str]) -> frozenset[str]:
    """Those with an open lease session: they ask for work."""
    sessions = parts.store.get(codec.LSESSION, *map(join_key, bot_ids)) if bot_ids else []
    return frozenset(
        bot_id
        for bot_id, doc in zip(bot_ids, sessions, strict=True)
        if doc is not None and not codec.read_lease_session(doc).closed
    )


def _ahead(parts: ApiParts, task: Task) -> tuple[int, int]:
    """Slices that go before this one: with the same dimensions, and in the whole pool."""
    queue = codec.queue_of_pend(task.pend_key)
    order = task.pend_key.removeprefix(queue)
    lo, _hi = codec.queue_range(queue)
    own = len(parts.store.scan_keys(codec.PEND, lo, task.pend_key, limit=MAX_AHEAD))
    in_pool = 0
    for other in _queues_of(parts, task.pool):
        lo, _hi = codec.queue_range(other)
        room = MAX_AHEAD - in_pool
        if room > 0:
            in_pool += len(parts.store.scan_keys(codec.PEND, lo, other + order, limit=room))
    return own, in_pool


def _queues_of(parts: ApiParts, pool: str) -> Iterator[Key]:
    """The queues of the pool in which something may wait."""
    lo, hi = prefix_range(pool)
    while keys := parts.store.scan_keys(codec.PEND, lo, hi, limit=1):
        queue = codec.queue_of_pend(keys[0])
        yield queue
        lo = codec.queue_range(queue)[1]
