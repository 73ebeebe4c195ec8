"""Turn a lease into a manifest, exactly once (bot-api 4)."""

import logging
from dataclasses import replace
from typing import Any

import msgspec

from botapi.bot_call import BotCall, BotServer, Reply, call_info, call_number, read_state
from botapi.domain.claim import Attempt, Run, Skip
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_lease_id, parse_task_id
from botapi.manifest import ClaimedBy, claim_answer, found
from botapi.transactions.claim_slice import BotVanished, Claim, Claimed, claim_slice
from botapi.transactions.update_bot import state_problem

EXTRA_LIFE_MS = 300_000
"""Added to a claimed run's times for the life of the config snapshot (bot-api 2.1)."""
SHARDS = 16

log = logging.getLogger(__name__)


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /claim`."""

    session: str | None = None
    claim_id: str | None = None
    task_id: str | None = None
    task_to_run_shard: int | None = None
    task_to_run_id: int | None = None
    state: Any = None
    dimensions: Any = None
    version: Any = None
    skep: dict[str, Any] | None = None


def claim(server: BotServer, call: BotCall, request: ClaimRequest) -> Reply:
    """`run` with a manifest, `skip` with a reason, or `terminate`."""
    wanted = _checked(call, request)
    try:
        claimed = claim_slice(server.store, wanted, server.stamp(call.call))
    except BotVanished:
        raise Refusal(Code.INTERNAL, "this bot was deleted; poll again") from None
    server.last_seen.touch(
        call.bot.bot_id,
        call.call.now_ms,
        state=_state(call, request),
        is_run=not isinstance(claimed.decision, Skip),
    )
    by = ClaimedBy(call.session, call.identity.name, is_ours=request.skep is not None)
    answer = claim_answer(server, by, claimed)
    if isinstance(claimed.decision, Run):
        answer["session"] = _session_of_run(server, call, claimed)
    return Reply(answer)


def _session_of_run(server: BotServer, call: BotCall, claimed: Claimed) -> str:
    """The bot's token, whose config snapshot lives as long as the run may (bot-api 2.1)."""
    task, request, _ = found(claimed)
    chosen = request.slices[task.slice_index]
    life_ms = 1000 * (chosen.hard_timeout_s + chosen.grace_period_s) + EXTRA_LIFE_MS
    session = server.refreshed(call.session, call.call)
    config = replace(session.bot_config, expiry_ms=call.call.now_ms + life_ms)
    return server.token(replace(session, bot_config=config))


def _state(call: BotCall, request: ClaimRequest) -> dict[str, Any] | None:
    """What the bot says of itself; here a bad one harms nothing but itself (bot-api 4.1)."""
    state, wrong = read_state(request.state)
    problem = wrong[0] if wrong else state_problem(state)
    if problem:
        log.warning("claim of %s: state ignored: %s", call.bot.bot_id, problem)
        return None
    return state or None


def _checked(call: BotCall, request: ClaimRequest) -> Claim:
    for name in ("claim_id", "task_id", "task_to_run_id"):
        if not getattr(request, name):
            raise Refusal(Code.INVALID_ARGUMENT, f"{name}: missing")
    if not is_lease_id(str(request.claim_id)):
        raise Refusal(Code.INVALID_ARGUMENT, "claim_id: not 1 to 128 of a-zA-Z0-9-_./:")
    try:
        task_id = parse_task_id(str(request.task_id))
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"task_id: {error}") from None
    number = int(request.task_to_run_id or 0)
    if number < 1 or number % 16 != 1:
        raise Refusal(Code.INVALID_ARGUMENT, f"task_to_run_id: not 1 + 16 * slice: {number}")
    shard = request.task_to_run_shard or 0
    if not 0 <= shard < SHARDS:
        raise Refusal(Code.INVALID_ARGUMENT, f"task_to_run_shard: not 0 to {SHARDS - 1}: {shard}")
    return Claim(
        bot_id=call.bot.bot_id,
        task_id=task_id,
        attempt=Attempt(
            session_id=call.session.session_id,
            claim_id=f"{call.bot.bot_id}:{request.claim_id}",
            slice_index=number // 16,
            shard=shard,
        ),
        dedup_key=str(request.claim_id),
        seq=call_number(request.skep),
        recent_polls=call.recent_polls,
        call=call_info(call.session.session_id, call.call, call.identity),
        logs_cloud_project=call.session.bot_config.logs_cloud_project,
    )
