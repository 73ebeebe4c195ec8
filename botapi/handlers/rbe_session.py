"""The lease channel: opened, held for work, kept alive, closed (bot-api 1.11, 3.5)."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from botapi.auth.botsession import SESSION_LIFE_MS, Session
from botapi.bot_call import (
    FRESH_MS,
    BotCall,
    BotServer,
    Reply,
    SessionCall,
    call_info,
    call_number,
    heard_lease,
)
from botapi.concurrency import Held
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id, run_id
from botapi.domain.task import Offer, TaskState
from botapi.manifest import ClaimedBy, claim_answer
from botapi.scheduler.idle_bots import IdleBot, facts_of
from botapi.store import codec
from botapi.store.codec import LeaseSession
from botapi.store.protocol import Outage, join_key
from botapi.transactions.claim_slice import Claimant, Claimed
from botapi.transactions.create_task import pending_slice
from botapi.transactions.lease_session import close_lease_session, open_lease_session
from botapi.transactions.offer_lease import outstanding_offer, return_offer

STATUSES = frozenset(
    {"OK", "UNHEALTHY", "HOST_REBOOTING", "BOT_TERMINATING", "INITIALIZING", "MAINTENANCE"}
)
CLOSING = frozenset({"HOST_REBOOTING", "BOT_TERMINATING"})
UNWELL_HOLD_S = 10.0
"""How long a bot that may not work is held, so that it does not ask in a loop."""
LEASE_IDLE_MS = 180_000
"""How long a lease session outlives the last call of its bot (bot-api 3.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseResult:
    """How a lease was completed; all absent means that the task was run."""

    skip_reason: str | None = None
    bot_internal_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReport:
    """The lease a bot works on, or has just finished."""

    id: str | None = None
    state: str | None = None
    result: LeaseResult | None = None
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProperties:
    """What a machine that RBE manages says of itself; read and not used."""

    pool_id: str | None = None
    pool_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """Body of `POST /rbe/session/create`."""

    session: str | None = None
    bot_version: str | None = None
    worker_properties: WorkerProperties | None = None
    skep: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """Body of `POST /rbe/session/update`."""

    session: str | None = None
    status: str | None = None
    nonblocking: bool | None = None
    lease: LeaseReport | None = None
    bot_version: str | None = None
    worker_properties: WorkerProperties | None = None
    skep: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Caller:
    """What is kept of a call while it is held. `claimant`: what it gets may be claimed for it."""

    session: Session
    base_url: str
    is_ours: bool
    is_there: Callable[[], bool]
    claimant: Claimant | None


def create(server: BotServer, call: BotCall, request: CreateRequest) -> Reply:  # noqa: ARG001
    """A lease session of this bot; the one before it, if any, is no longer good."""
    if not call.session.bot_config.rbe_instance:
        raise Refusal(Code.INVALID_ARGUMENT, "this bot's session names no RBE instance")
    lease_session_id = f"ls-{server.rng.randbits(96):024x}"
    if not call.is_superseded:
        opened = LeaseSession(
            call.bot.bot_id,
            lease_session_id,
            call.session.session_id,
            call.call.now_ms,
            effective_bot_id=call.session.bot_config.rbe_effective_bot_id,
        )
        open_lease_session(server.store, opened)
    session = replace(
        server.refreshed(call.session, call.call), rbe_bot_session_id=lease_session_id
    )
    token = server.token(session, instead_of=call.token)
    return Reply({"session": token, "session_id": lease_session_id})


def update(server: BotServer, call: SessionCall, request: UpdateRequest) -> Reply | Held[Reply]:
    """Report on a lease, and wait for one while the bot is free.

    Held only with status OK and no ACTIVE lease, and never with `nonblocking`. A status
    other than OK never gets a lease.
    """
    caller = _Caller(
        call.session,
        call.call.base_url,
        is_ours=request.skep is not None,
        is_there=call.call.is_there,
        claimant=_claimant(server, call, request),
    )
    bot = _still_idle(server, call, request)
    if bot is not None:
        return _held(server, caller, bot, _body(server, call))
    hints = server.offers.idle.hints
    known = server.known(call)
    status, lease = _checked(call, request)
    body = _body(server, call)
    session = None if known.is_superseded else _live_session(server, known)
    if session is None:
        return Reply(body | {"status": "BOT_TERMINATING"})
    if lease is not None and lease.state == "COMPLETED":
        _complete(server, known, session, lease)
    if status in CLOSING:
        _close(server, known, session, "the bot closed its lease session")
        return Reply(body)
    if _is_renamed(known, session):
        _close(server, known, session, "the bot has another effective id")
        return Reply(body | {"status": "UNHEALTHY"})
    if status == "OK" and lease is not None and lease.state == "ACTIVE":
        state = _active_state(server, known, str(lease.id))
        return Reply(body | ({"lease": {"id": lease.id, "state": state}} if state else {}))
    bot = _idle_bot(server, known, session, hints)
    if status != "OK":
        return Reply(body | _without_work(server, caller, bot))
    offer = _missed_offer(server, known, request) or _offer_of(server, session)
    if offer is not None:
        return Reply(body | {"lease": _lease(offer)})
    return _held(server, caller, bot, body, at_once=bool(request.nonblocking))


def _claimant(server: BotServer, call: SessionCall, request: UpdateRequest) -> Claimant | None:
    """For whom a claim may be made with the offer: a bot that says which lease it knows."""
    if not server.offers.may_claim or heard_lease(request.skep) is None:
        return None
    session = call.session
    return Claimant(
        bot_id=session.bot_id,
        session_id=session.session_id,
        seq=call_number(request.skep),
        recent_polls=server.polls.of(session.bot_id, session.session_id),
        call=call_info(session.session_id, call.call, call.identity),
        logs_cloud_project=session.bot_config.logs_cloud_project,
        stamp=server.stamp(call.call),
    )


def _missed_offer(server: BotServer, call: BotCall, request: UpdateRequest) -> Offer | None:
    """The lease that was claimed for this bot in an answer that it has not seen.

    It claims by itself then, which changes nothing and gives it the manifest.
    """
    bot = call.bot
    if not bot.has_missed_its_lease(heard_lease(request.skep)):
        return None
    key = codec.task_key(parse_task_id(bot.task_id))
    task_doc, req = (*server.store.get(codec.TASK, key), *server.store.get(codec.REQ, key))
    if task_doc is None or req is None:
        return None
    task = codec.read_task(task_doc)
    pending = pending_slice(codec.read_request(req), task.slice_index)
    return Offer(bot.given_lease, bot.bot_id, task.started_ms, pending)


def _body(server: BotServer, call: SessionCall) -> dict[str, object]:
    return {"session": server.refreshed_token(call), "status": "OK"}


def _still_idle(server: BotServer, call: SessionCall, request: UpdateRequest) -> IdleBot | None:
    """The bot as its held call left it a moment ago, if this is just the next one."""
    session = call.session
    bot = server.offers.idle.take(session.bot_id, session.session_id, session.rbe_bot_session_id)
    is_next = request.status == "OK" and request.lease is None and not request.nonblocking
    if bot is None or not is_next:
        return None
    return bot if bot.effective_bot_id == session.bot_config.rbe_effective_bot_id else None


def _idle_bot(server: BotServer, call: BotCall, session: LeaseSession, hints: int) -> IdleBot:
    """What its held calls must know of this bot. `hints` had come before it was read."""
    now_s = server.clock.monotonic()
    return IdleBot(
        bot_id=call.bot.bot_id,
        lease_session_id=session.lease_session_id,
        effective_bot_id=call.session.bot_config.rbe_effective_bot_id,
        read_s=now_s,
        lease_read_s=now_s,
        hints=hints,
        **facts_of(call.bot),
    )


def _live_session(server: BotServer, call: BotCall) -> LeaseSession | None:
    """The lease session of this call, None when it was closed, replaced or forgotten.

    Its token tells when the bot last called: it is as old as that, or up to `FRESH_MS`
    older, since a young token is given back as it is.
    """
    session = _open_session(server, call.bot.bot_id, call.session.rbe_bot_session_id)
    made_ms = call.session.expiry_ms - SESSION_LIFE_MS
    if session is None or call.call.now_ms - made_ms <= LEASE_IDLE_MS + FRESH_MS:
        return session
    _close(server, call, session, "the lease session was idle for too long")
    return None


def _is_renamed(call: BotCall, session: LeaseSession) -> bool:
    """Did a poll find another effective id than the session was opened with (bot-api 1.11)?"""
    name = call.session.bot_config.rbe_effective_bot_id
    return bool(session.effective_bot_id) and session.effective_bot_id != name


def _offer_of(server: BotServer, session: LeaseSession) -> Offer | None:
    """What this session may be given at once; nothing while all bots are to sleep."""
    return None if _all_asleep(server) else outstanding_offer(server.store, session)


def _all_asleep(server: BotServer) -> bool:
    """Does settings.cfg force every bot to sleep (bot-api 3.4)?"""
    return server.config.cached().fleet.force_sleep


def _checked(call: SessionCall, request: UpdateRequest) -> tuple[str, LeaseReport | None]:
    if not call.session.rbe_bot_session_id:
        raise Refusal(Code.INVALID_ARGUMENT, "no lease session: call rbe/session/create first")
    if request.status not in STATUSES:
        known = ", ".join(sorted(STATUSES))
        raise Refusal(Code.INVALID_ARGUMENT, f"status: not one of {known}")
    lease = request.lease
    if lease is not None:
        if not lease.id:
            raise Refusal(Code.INVALID_ARGUMENT, "lease.id: missing")
        if lease.state not in {"ACTIVE", "COMPLETED"}:
            raise Refusal(Code.INVALID_ARGUMENT, "lease.state: not ACTIVE or COMPLETED")
    return request.status, lease


def _open_session(server: BotServer, bot_id: str, lease_session_id: str) -> LeaseSession | None:
    (doc,) = server.store.get(codec.LSESSION, join_key(bot_id))
    if doc is None:
        return None
    session = codec.read_lease_session(doc)
    is_open = not session.closed and session.lease_session_id == lease_session_id
    return session if is_open else None


def _complete(server: BotServer, call: BotCall, session: LeaseSession, lease: LeaseReport) -> None:
    """A lease that was never claimed goes back to its queue; a claimed one needs nothing."""
    offer = outstanding_offer(server.store, session)
    if offer is None or offer.lease_id != lease.id:
        return
    result = lease.result or LeaseResult()
    reason = result.bot_internal_error or result.skip_reason or "completed without a claim"
    return_offer(server.store, offer, call.call.now_ms, reason)


def _close(server: BotServer, call: BotCall, session: LeaseSession, reason: str) -> None:
    offer = outstanding_offer(server.store, session)
    close_lease_session(server.store, session.bot_id, session.lease_session_id)
    if offer is not None:
        return_offer(server.store, offer, call.call.now_ms, reason)


def _active_state(server: BotServer, call: BotCall, lease_id: str) -> str:
    """ACTIVE while the bot's claimed task runs or its offer stands, CANCELLED while it is
    being killed, empty when the lease is lost."""
    parts = lease_id.split("-")
    if len(parts) != 4:
        return ""
    try:
        key = codec.task_key(parts[1])
    except ValueError:
        return ""
    task_doc, offer_doc = (
        *server.store.get(codec.TASK, key),
        *server.store.get(codec.OFFER, key),
    )
    if offer_doc is not None:
        offer = codec.read_offer(offer_doc)
        return "ACTIVE" if (offer.bot_id, offer.lease_id) == (call.bot.bot_id, lease_id) else ""
    if task_doc is None:
        return ""
    task = codec.read_task(task_doc)
    if task.state is not TaskState.RUNNING or call.bot.task_id != run_id(task.task_id):
        return ""
    return "CANCELLED" if task.killing else "ACTIVE"


def _held(
    server: BotServer,
    caller: _Caller,
    bot: IdleBot,
    body: dict[str, object],
    *,
    at_once: bool = False,
) -> Held[Reply]:
    """The bot waits for an offer from now on; not if it wants to know `at_once`.

    An offer that is made, or a session that is closed, in the moment in which the wait ends is
    found by the bot's next call, which follows at once: so a call that was held reads nothing
    more.
    """
    dims = frozenset[str]() if _all_asleep(server) else bot.dimensions
    hold_s = 0.0 if at_once else _hold_s(server, caller, bot, may_work=bool(dims))
    waiter = server.offers.begin(
        bot.bot_id,
        bot.lease_session_id,
        dims,
        hold_s,
        is_there=caller.is_there,
        claimant=caller.claimant,
    )

    def reply() -> Reply:
        offer = server.offers.end(waiter)
        if offer is not None:
            return Reply(body | {"lease": _lease(offer)} | _claimed(server, caller, waiter.claimed))
        if dims and not waiter.done.is_set():
            server.offers.idle.keep(bot)
        return Reply(body | _without_work(server, caller, bot))

    return Held(waiter.done, waiter.wait_s, reply)


def _claimed(server: BotServer, caller: _Caller, claimed: Claimed | None) -> dict[str, object]:
    """The answer to the claim that was made for the bot (docs/extensions.md), if one was."""
    if claimed is None or caller.claimant is None:
        return {}
    by = ClaimedBy(caller.session, caller.claimant.call.authenticated_as, is_ours=True)
    return {"skep": {"claim": claim_answer(server, by, claimed)}}


def _hold_s(server: BotServer, caller: _Caller, bot: IdleBot, *, may_work: bool) -> float:
    """For how long the call is held at most.

    A bot that had better poll is held for a short time only, one of ours not at all: the
    reply tells it to.
    """
    settings = server.settings
    hold_s = server.offers.hold_s(settings.hold_min_s, settings.hold_max_s)
    if not may_work:
        hold_s = min(hold_s, UNWELL_HOLD_S)
    if hold_s and server.has_news(bot, caller.session, caller.base_url):
        hold_s = 0.0 if caller.is_ours else min(hold_s, UNWELL_HOLD_S)
    return hold_s


def _without_work(server: BotServer, caller: _Caller, bot: IdleBot) -> dict[str, object]:
    """What tells a bot of ours that it had better poll."""
    if not caller.is_ours:
        return {}
    with suppress(Outage):
        news = server.has_news(bot, caller.session, caller.base_url)
        return {"skep": {"poll": True}} if news else {}
    return {}


def _lease(offer: Offer) -> dict[str, object]:
    """The lease of bot-api 1.11; `task_to_run_id` is a number, never a string."""
    slot = offer.pending
    return {
        "id": offer.lease_id,
        "state": "PENDING",
        "payload": {
            "reservation_id": offer.lease_id,
            "task_id": slot.task_id,
            "slice_index": slot.slice_index,
            "task_to_run_shard": slot.shard,
            "task_to_run_id": 1 + 16 * slot.slice_index,
        },
    }
