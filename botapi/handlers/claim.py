"""Turn a lease into a manifest, exactly once (bot-api 4)."""

from dataclasses import dataclass, replace
from typing import Any, assert_never

from botapi.bot_call import BotCall, BotServer, Reply, read_state
from botapi.domain.claim import Attempt, Run, Skip, Terminate
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_lease_id, parse_task_id, run_id
from botapi.domain.task import TaskRequest
from botapi.transactions.claim_slice import BotVanished, Claim, Claimed, claim_slice
from botapi.transactions.update_bot import state_problem

EXTRA_LIFE_MS = 300_000
"""Added to a claimed run's times for the life of the config snapshot (bot-api 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
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
    state = read_state(request.state)[0] or None
    if state and state_problem(state):
        state = None
    server.last_seen.touch(call.bot.bot_id, call.call.now_ms, state=state, is_run=True)
    match claimed.decision:
        case Skip(reason):
            return Reply({"cmd": "skip", "reason": reason})
        case Terminate():
            return Reply({"cmd": "terminate", "task_id": run_id(wanted.task_id)})
        case Run():
            return _run(server, call, claimed)
        case _:
            assert_never(claimed.decision)


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
    seq = (request.skep or {}).get("seq")
    return Claim(
        bot_id=call.bot.bot_id,
        task_id=task_id,
        attempt=Attempt(
            session_id=call.session.session_id,
            claim_id=f"{call.bot.bot_id}:{request.claim_id}",
            slice_index=number // 16,
        ),
        dedup_key=str(request.claim_id),
        seq=seq if isinstance(seq, int) and 0 <= seq < 2**53 else 0,
        recent_polls=call.recent_polls,
    )


def _run(server: BotServer, call: BotCall, claimed: Claimed) -> Reply:
    if claimed.request is None or claimed.task is None or claimed.bot is None:
        raise Refusal(Code.INTERNAL, "a claimed task without a request")
    index = claimed.task.slice_index
    chosen = claimed.request.slices[index]
    life_ms = 1000 * (chosen.hard_timeout_s + chosen.grace_period_s) + EXTRA_LIFE_MS
    session = server.refreshed(call.session, call.call)
    session = replace(
        session,
        bot_config=replace(session.bot_config, expiry_ms=call.call.now_ms + life_ms),
    )
    return Reply(
        {
            "cmd": "run",
            "session": server.token(session),
            "task_id": run_id(claimed.task.task_id),
            "manifest": manifest(claimed.request, index, call),
        }
    )


def manifest(request: TaskRequest, index: int, call: BotCall) -> dict[str, object]:
    """What the bot executes (bot-api 4.4); empty optional keys are left out."""
    chosen = request.slices[index]
    body: dict[str, object] = {
        "task_id": run_id(request.task_id),
        "bot_id": call.bot.bot_id,
        "bot_dimensions": unflatten(call.bot.dimensions),
        "dimensions": {key: list(values) for key, values in chosen.dimensions.items()},
        "hard_timeout": chosen.hard_timeout_s,
        "io_timeout": chosen.io_timeout_s,
        "grace_period": chosen.grace_period_s,
        "command": list(chosen.command),
        "service_accounts": {
            "system": {"service_account": call.session.bot_config.system_service_account or "none"},
            "task": {"service_account": "none"},
        },
        "bot_authenticated_as": call.identity.name,
    }
    optional: dict[str, object] = {
        "relative_cwd": chosen.relative_cwd,
        "env": dict(chosen.env),
        "env_prefixes": {key: list(paths) for key, paths in chosen.env_prefixes.items()},
    }
    return body | {key: value for key, value in optional.items() if value}
