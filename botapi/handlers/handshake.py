"""First contact: register the bot, open a session, hand out hooks and dimensions (bot-api 1.3)."""

from dataclasses import dataclass
from typing import Any

from botapi import __version__
from botapi.auth.botsession import SESSION_LIFE_MS, Session
from botapi.bot_call import (
    BotServer,
    Call,
    Reply,
    call_info,
    debug_info,
    rbe_config,
    rbe_settings,
    read_state,
    skep_settings,
)
from botapi.domain import dimensions
from botapi.domain.bot import explain_in_state, health_of
from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id, is_session_id
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.update_bot import state_problem, update_bot
from botapi.wire_json import dumps

MAX_VERSION_CHARS = 128
MAX_INITIAL_DIMENSIONS_BYTES = 16 * 1024
"""Most JSON kept of the dimensions that a bot sent before its hooks ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRequest:
    """Body of `POST /handshake`; null counts as absent."""

    dimensions: dict[str, list[str]] | None = None
    state: Any = None
    version: str | None = None
    session_id: str | None = None
    skep: dict[str, Any] | None = None


def handshake(server: BotServer, call: Call, request: HandshakeRequest) -> Reply:
    """A session for this process run. The same `session_id` again is the same session."""
    snapshot = server.config.latest()
    dims = request.dimensions or {}
    bot_id = (dims.get("id") or [""])[0]
    check_bot_id(bot_id)
    group = snapshot.bots.group_of(bot_id)
    identity = server.authorize(bot_id, group.auth, call)
    session_id = request.session_id or f"autogen-{call.now_ms}-{server.rng.randbits(32):08x}"
    if not is_session_id(session_id):
        raise Refusal(Code.INVALID_ARGUMENT, f"session_id: not 1 to 50 of a-z0-9-_/: {session_id}")
    if len(request.version or "") > MAX_VERSION_CHARS:
        raise Refusal(Code.INVALID_ARGUMENT, f"version: over {MAX_VERSION_CHARS} characters")
    complaints = dimensions.validate(dims)
    state, wrong = read_state(request.state)
    complaints += wrong
    problem = state_problem(state)
    if problem:
        complaints, state = [*complaints, problem], {}
    rbe = rbe_config(bot_id, group, snapshot)
    complaints += [rbe.conflict] if rbe.conflict else []
    (doc,) = server.store.get(codec.BOT, join_key(bot_id))
    before = codec.read_bot(doc) if doc is not None else None
    health = health_of(state, dims, complaints)
    known = before.at(call.now_ms).steered(health) if before is not None else health
    state = {
        **explain_in_state(state, known),
        "handshaking": True,
        "initial_dimensions": _kept(dims),
    }
    is_new = before is None or before.session_id != session_id
    epoch = (before.epoch if before is not None else 0) + (1 if is_new else 0)
    update = BotUpdate(
        EventKind.BOT_CONNECTED,
        dedup_key=session_id,
        state=state,
        call=call_info(session_id, call, identity, request.version or ""),
        health=health,
        owners=group.owners,
        changes={"epoch": epoch, "claim_seq": 0, "polls_before_claim": ()} if is_new else {},
    )
    assigned = {**group.dimensions, "id": (bot_id,)}
    if is_new or before is None or not before.task_id:
        # The same session with a run of its own is a repeat that arrived late: the poll
        # that a process really sends next abandons the run, this must not.
        update_bot(
            server.store,
            bot_id,
            update,
            server.stamp(call, session_id),
            first_dimensions=dimensions.flatten(assigned),
        )
    server.offers.idle.forget(bot_id)
    server.last_seen.touch(bot_id, call.now_ms, state=state)
    session = Session(
        bot_id=bot_id,
        session_id=session_id,
        expiry_ms=call.now_ms + SESSION_LIFE_MS,
        bot_config=server.session_config(group, call, rbe),
        last_seen_config_ms=snapshot.fetched_ms,
        handshake_config_hash=group.config_hash,
        epoch=epoch,
        credential_sha256=identity.credential_sha256,
        started_ms=call.now_ms,
        debug_info=debug_info(call),
    )
    body: dict[str, object] = {
        "session": server.token(session),
        "bot_version": server.expected_version(bot_id, group, call),
        "server_version": __version__,
        "bot_config_name": group.script_name or "bot_config.py",
        "bot_config_rev": server.archives.hooks_digest(
            server.archives.expected_release(bot_id, group)
        ),
        "bot_group_cfg": {"dimensions": {k: list(v) for k, v in group.dimensions.items()}},
        "rbe": rbe_settings(rbe),
    }
    if group.script:
        body["bot_config"] = group.script.decode()
    if request.skep is not None:
        body["skep"] = skep_settings(server.settings)
    return Reply(body)


def _kept(dims: dict[str, list[str]]) -> dict[str, list[str]]:
    """The dimensions as sent, unless there is no end of them."""
    return dims if len(dumps(dims)) <= MAX_INITIAL_DIMENSIONS_BYTES else {}
