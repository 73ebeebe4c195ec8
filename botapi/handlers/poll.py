"""The life-cycle channel: gather facts, ask the rule, answer with one command (bot-api 3)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, assert_never

from botapi import logs, metrics
from botapi.auth.botsession import (
    SESSION_LIFE_MS,
    BadToken,
    Session,
    is_expired,
    is_too_old,
)
from botapi.auth.credentials import Identity
from botapi.bot_call import (
    BotServer,
    Call,
    Reply,
    call_info,
    call_number,
    debug_info,
    heard_lease,
    rbe_config,
    rbe_settings,
    read_state,
    skep_settings,
)
from botapi.cfg.provider import Snapshot
from botapi.domain import dimensions
from botapi.domain.bot import (
    SWAP_WINDOW_MS,
    SWAPS_TO_QUARANTINE,
    Bot,
    SessionSwap,
    explain_in_state,
    health_of,
)
from botapi.domain.bot_event import BotUpdate, EventKind, apply, new_bot
from botapi.domain.bot_groups import BotGroup
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id, is_request_uuid
from botapi.domain.poll import (
    FOREVER_STREAK,
    NO_SESSION,
    Decision,
    PollFacts,
    Presented,
    Restart,
    Sleep,
    Update,
    Work,
    decide,
    sleep_s,
    treats_as_foreign,
)
from botapi.domain.rbe_config import EffectiveId, RbeConfig, effective_id
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.update_bot import state_problem, update_bot

MAX_DIMENSION_VALUES = 180
"""Every value is an index entry; a bot with more is quarantined."""
MAX_VERSION_CHARS = 128
REMEMBERED_DROPS = 20_000
"""Bots for which it is remembered that the drop of a trusted dimension was logged."""
FOREIGN_NOTE = (
    "runs an archive this server never made; it is left alone until bots.cfg says "
    'bot_archive: "keep" for its group, or an admin installs ours'
)
KEEP_NOTE = 'keeps an archive of its own: its group says bot_archive: "keep"'

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """Body of `POST /poll`; null counts as absent."""

    session: str | None = None
    dimensions: dict[str, list[str]] | None = None
    state: Any = None
    version: str | None = None
    request_uuid: str | None = None
    force: bool | None = None
    skep: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """One poll, read and checked."""

    bot_id: str
    token: Presented
    session: Session | None
    snapshot: Snapshot
    group: BotGroup
    identity: Identity
    stored: Bot | None
    dims: tuple[str, ...] | None
    rbe: RbeConfig
    effective_bot_id: str
    state: Mapping[str, Any]
    complaints: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Does the bot call itself ours?"""
        client = self.state.get("client")
        return isinstance(client, Mapping) and client.get("name") == "skep"

    def has_missed_its_lease(self, heard: str | None) -> bool:
        """Was a lease claimed for the bot in an answer that this process of it never saw?"""
        if self.stored is None or self.token is not Presented.VALID:
            return False
        return self.stored.has_missed_its_lease(heard)


def poll(server: BotServer, call: Call, request: PollRequest) -> Reply:
    """Answer with the command of bot-api 3.2, and keep what the bot says of itself."""
    fleet = server.config.cached().fleet
    if fleet.force_sleep:
        return _all_asleep(server, call, request, fleet.max_bot_sleep_s)
    if not is_request_uuid(request.request_uuid or ""):
        raise Refusal(Code.INVALID_ARGUMENT, "request_uuid: not 0 to 50 of a-zA-Z0-9-_/")
    hints = server.offers.idle.hints
    facts = _read(server, call, request)
    _refuse_stale(facts.stored, request)
    own = health_of(facts.state, request.dimensions or {}, facts.complaints)
    health = facts.stored.at(call.now_ms).steered(own) if facts.stored is not None else own
    version = _version(request)
    foreign = treats_as_foreign(
        facts.group.bot_archive,
        is_ours=facts.is_ours,
        known_version=server.archives.knows(version) or bool(facts.group.archive_pin),
    )
    expected = server.expected_version(facts.bot_id, facts.group, call)
    heard = heard_lease(request.skep)
    decision = decide(
        PollFacts(
            token=facts.token,
            version=version,
            expected_version=expected,
            may_update=not foreign,
            hash_differs=facts.session is not None
            and facts.group.config_hash != facts.session.handshake_config_hash,
            health=health,
            restart_asked=facts.stored.restart_asked if facts.stored is not None else "",
            rbe_idle=facts.state.get("rbe_idle") is True,
        )
    )
    if facts.has_missed_its_lease(heard):
        decision = Work(idle=False)  # nothing before it has asked for that lease again
    state = explain_in_state(facts.state, health)
    changes = _changes(facts, call, foreign=foreign and version != expected)
    update = BotUpdate(
        _event_kind(decision),
        message=decision.message if isinstance(decision, Restart) else _news(facts, changes),
        dedup_key=request.request_uuid or "",
        dimensions=facts.dims,
        state=state or None,
        call=call_info(_session_id(facts), call, facts.identity, version),
        health=own,
        owners=facts.group.owners,
        seq=call_number(request.skep),
        heard=heard,
        changes=changes,
    )
    uuid = request.request_uuid or ""
    if not _is_repeat(server, facts, uuid):
        if not _store(server, call, facts, update) and facts.stored is not None:
            server.offers.idle.confirm(facts.stored, hints)
        if facts.token is not Presented.SUPERSEDED:
            server.last_seen.touch(facts.bot_id, call.now_ms, state=state)
        server.polls.add(facts.bot_id, _own_session_id(facts), uuid)
    reply = _reply(server, call, facts, request, decision)
    pool = metrics.pool_label(next(iter(facts.group.dimensions.get("pool", ())), ""))
    metrics.POLLS[pool, str(reply.body["cmd"])].inc()
    logs.note(pool=pool)
    return reply


def _all_asleep(server: BotServer, call: Call, request: PollRequest, max_s: float) -> Reply:
    """The emergency stop of settings.cfg: every bot sleeps, whoever it is (bot-api 3.4).

    Nothing is recorded but that a bot with a good session is alive, so that a long stop
    does not bury the fleet.
    """
    token, session = _session_of(server, call, request.session)
    if session is not None and token is Presented.VALID:
        server.last_seen.touch(session.bot_id, call.now_ms)
    duration = sleep_s(FOREVER_STREAK, max_s, server.rng.uniform(0, 1))
    body: dict[str, object] = {"cmd": "sleep", "duration": round(duration, 3)}
    metrics.POLLS["none", "sleep"].inc()
    if request.skep is not None:
        body["skep"] = skep_settings(server.settings)
    return Reply(body)


def _read(server: BotServer, call: Call, request: PollRequest) -> _Facts:
    """Steps 1 to 11 of bot-api 3.1."""
    token, session = _session_of(server, call, request.session)
    dims = request.dimensions or {}
    claimed_id = (dims.get("id") or [""])[0]
    check_bot_id(claimed_id)
    bot_id = session.bot_id if session is not None else claimed_id
    logs.note(bot_id=bot_id)
    snapshot = (
        server.config.fresh_enough(session.last_seen_config_ms)
        if session is not None
        else server.config.cached()
    )
    group = snapshot.bots.group_of(bot_id)
    identity = server.authorize(bot_id, group.auth, call)
    (doc,) = server.store.get(codec.BOT, join_key(bot_id))
    stored = codec.read_bot(doc) if doc is not None else None
    if session is not None and stored is not None and stored.session_id != session.session_id:
        token = Presented.SUPERSEDED
    complaints = _dimension_complaints(dims)
    if bot_id != claimed_id:
        complaints.append(f'the dimension id is "{claimed_id}", the session belongs to "{bot_id}"')
    merged = None if complaints else _merged(bot_id, dims, group, snapshot)
    state, wrong = read_state(request.state)
    complaints += wrong
    problem = state_problem(state)
    if problem:
        complaints, state = [*complaints, problem], {}
    if not _version(request):
        complaints.append("the bot does not say which version it runs")
    rbe = rbe_config(bot_id, group, snapshot)
    name = effective_id(bot_id, merged, rbe) if merged is not None else EffectiveId()
    complaints += filter(None, [rbe.conflict, name.problem])
    if token is Presented.ABSENT:
        complaints.append(NO_SESSION)
    complaints += _standing_complaints(stored, call)
    return _Facts(
        bot_id=bot_id,
        token=token,
        session=session,
        snapshot=snapshot,
        group=group,
        identity=identity,
        stored=stored,
        dims=None if merged is None else dimensions.flatten(merged),
        rbe=rbe,
        effective_bot_id=name.bot_id or _former_effective_id(session),
        state=state,
        complaints=tuple(complaints),
    )


def _dimension_complaints(dims: Mapping[str, list[str]]) -> list[str]:
    if sum(map(len, dims.values())) > MAX_DIMENSION_VALUES:
        return [f"more than {MAX_DIMENSION_VALUES} dimension values"]
    return dimensions.validate(dims)


def _merged(
    bot_id: str, dims: Mapping[str, list[str]], group: BotGroup, snapshot: Snapshot
) -> dict[str, list[str]]:
    """The bot's dimensions with its group's word above its own (bot-api 3.1 step 7, 7.2)."""
    trusted = snapshot.bots.trusted_dimensions
    dropped = dimensions.dropped_keys(dims, group.dimensions, trusted)
    if dropped:
        _say_dropped(bot_id, dropped)
    return dimensions.overlay(dims, group.dimensions, trusted)


@lru_cache(maxsize=REMEMBERED_DROPS)
def _say_dropped(bot_id: str, keys: tuple[str, ...]) -> None:
    """Log it once; the bot says the same at every poll."""
    log.warning(
        'bot "%s": only its group may set the trusted dimensions %s; its own are dropped',
        bot_id,
        ", ".join(keys),
    )


def _former_effective_id(session: Session | None) -> str:
    """What is kept when it could not be computed this time (bot-api 2.6)."""
    return session.bot_config.rbe_effective_bot_id if session is not None else ""


def _version(request: PollRequest) -> str:
    """The archive that the bot says it runs; nothing that could not be a version."""
    version = request.version or ""
    return version if len(version) <= MAX_VERSION_CHARS else ""


def _session_of(
    server: BotServer, call: Call, token: str | None
) -> tuple[Presented, Session | None]:
    if not token:
        return Presented.ABSENT, None
    try:
        session = server.session_of(token)
    except BadToken:
        return Presented.BROKEN, None
    if is_expired(session, call.now_ms) or is_too_old(session, call.now_ms):
        return Presented.BROKEN, None
    return Presented.VALID, session


def _refuse_stale(stored: Bot | None, request: PollRequest) -> None:
    """An old poll that arrives after a later claim must not abandon the claimed task.

    The transaction looks again: the claim may come between.
    """
    seq = (request.skep or {}).get("seq")
    if stored is not None and isinstance(seq, int) and seq < stored.claim_seq:
        raise Refusal(
            Code.ABORTED, f"poll {seq} is older than the claim {stored.claim_seq} of this session"
        )


def _is_repeat(server: BotServer, facts: _Facts, uuid: str) -> bool:
    """Is this the retry of a poll that was answered? Then it has no effect (bot-api 1.1).

    A poll that the bot sent before its latest claim is remembered with the bot, one that
    this process answered in memory.
    """
    if facts.stored is None or not uuid:
        return False
    answered = server.polls.of(facts.bot_id, _own_session_id(facts))
    return uuid in facts.stored.polls_before_claim or uuid in answered


def _own_session_id(facts: _Facts) -> str:
    return facts.session.session_id if facts.session is not None else ""


def _standing_complaints(stored: Bot | None, call: Call) -> list[str]:
    """What does not stand in the call: two processes with one bot id.

    Two that keep taking the id from each other are shown, not served.
    """
    if stored is None:
        return []
    recent = [swap for swap in stored.swaps if swap.at_ms > call.now_ms - SWAP_WINDOW_MS]
    if len(recent) < SWAPS_TO_QUARANTINE:
        return []
    ends = sorted({swap.external_ip for swap in recent} | {stored.external_ip})
    return [f"two processes use this bot id: {', '.join(ends)}"]


def _changes(facts: _Facts, call: Call, *, foreign: bool) -> dict[str, Any]:
    if facts.token is Presented.SUPERSEDED:
        return _swapped(facts, call)
    note = KEEP_NOTE if facts.group.bot_archive == "keep" else FOREIGN_NOTE
    name = facts.effective_bot_id
    return {
        "note": note if foreign else "",
        "rbe_effective_bot_id": "" if name == facts.bot_id else name,
    }


def _swapped(facts: _Facts, call: Call) -> dict[str, Any]:
    """The older session is noted once, however often it polls."""
    if facts.session is None or facts.stored is None:
        return {}
    before, session_id = facts.stored.swaps, facts.session.session_id
    if any(swap.session_id == session_id for swap in before):
        return {}
    swap = SessionSwap(call.now_ms, session_id, call.presented.peer_ip)
    return {"swaps": (*before[-(SWAPS_TO_QUARANTINE - 1) :], swap)}


def _news(facts: _Facts, changes: Mapping[str, Any]) -> str:
    """A note about a foreign bot and a new effective id are told once in its events too."""
    stored = facts.stored or new_bot(facts.bot_id, (), 0)
    note = str(changes.get("note", stored.note))
    name = str(changes.get("rbe_effective_bot_id", stored.rbe_effective_bot_id))
    lines = [note] if note != stored.note else []
    if name != stored.rbe_effective_bot_id:
        lines.append(f"the effective bot id is {name or facts.bot_id}")
    return "\n".join(filter(None, lines))


def _session_id(facts: _Facts) -> str:
    """An older session does not take the id back by polling."""
    if facts.token is Presented.VALID and facts.session is not None:
        return facts.session.session_id
    return facts.stored.session_id if facts.stored is not None else ""


def _event_kind(decision: Decision) -> EventKind:
    match decision:
        case Update():
            return EventKind.REQUEST_UPDATE
        case Restart():
            return EventKind.REQUEST_RESTART
        case Sleep():
            return EventKind.REQUEST_SLEEP
        case Work(idle=True):
            return EventKind.BOT_IDLE
        case Work():
            return EventKind.BOT_POLLING
        case _:
            assert_never(decision)


def _store(server: BotServer, call: Call, facts: _Facts, update: BotUpdate) -> bool:
    """Write, unless nothing visible changed: an idle poll costs no transaction. Was it written?"""
    if facts.token is Presented.SUPERSEDED:
        update = _superseded(update)
    first = {**facts.group.dimensions, "id": (facts.bot_id,)}
    first_flat = dimensions.flatten(first)
    stamp = server.stamp(call, update.dedup_key)
    before = facts.stored or new_bot(facts.bot_id, first_flat, call.now_ms)
    change = apply(before, update, event_id=stamp.event_id, now_ms=call.now_ms)
    if change.is_repeat or not change.is_visible(facts.stored):
        return False
    server.offers.idle.forget(facts.bot_id)
    update_bot(server.store, facts.bot_id, update, stamp, first_dimensions=first_flat)
    return True


def _superseded(update: BotUpdate) -> BotUpdate:
    """The older of two processes changes nothing but the list of swaps."""
    return replace(
        update, kind=EventKind.BOT_LOG, dimensions=None, health=None, owners=None, call=None
    )


def _reply(
    server: BotServer, call: Call, facts: _Facts, request: PollRequest, decision: Decision
) -> Reply:
    body: dict[str, object]
    refresh = True
    match decision:
        case Update(version):
            body, refresh = {"cmd": "update", "version": version}, False
        case Restart(message, refresh):
            body = {"cmd": "bot_restart", "message": message}
        case Sleep(low, high, refresh):
            body = {"cmd": "sleep", "duration": round(server.rng.uniform(low, high), 3)}
        case Work():
            body = {"cmd": "rbe", "rbe": rbe_settings(facts.rbe)}
        case _:
            assert_never(decision)
    if refresh and facts.session is not None:
        body["session"] = server.token(
            replace(
                facts.session,
                expiry_ms=call.now_ms + SESSION_LIFE_MS,
                debug_info=debug_info(call),
                bot_config=server.session_config(
                    facts.group, call, facts.rbe, facts.effective_bot_id
                ),
                last_seen_config_ms=facts.snapshot.fetched_ms,
                credential_sha256=facts.identity.credential_sha256,
            ),
            instead_of=request.session or "",
        )
    if request.skep is not None:
        body["skep"] = skep_settings(server.settings)
    return Reply(body)
