"""Turn a lease into a manifest, exactly once (bot-api 4)."""

import base64
import logging
from dataclasses import asdict, replace
from typing import Any, assert_never

import msgspec

from botapi.bot_call import BotCall, BotServer, Reply, call_info, read_state
from botapi.domain.claim import Attempt, Run, Skip, Terminate
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import is_lease_id, parse_task_id, run_id
from botapi.domain.task import Slice, Task, TaskRequest
from botapi.secrets.envelope import BadSeal, Place, Sealed
from botapi.secrets.key_file import KeyFileError
from botapi.secrets.vault import task_place
from botapi.transactions.claim_slice import BotVanished, Claim, Claimed, claim_slice
from botapi.transactions.release_secrets import release_secrets
from botapi.transactions.update_bot import state_problem

EXTRA_LIFE_MS = 300_000
"""Added to a claimed run's times for the life of the config snapshot (bot-api 2.1)."""
SHARDS = 16
NO_HINT = "-1"
"""The size of a named cache that no bot has ever reported (bot-api 4.4)."""

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
    match claimed.decision:
        case Skip(reason):
            return Reply({"cmd": "skip", "reason": reason})
        case Terminate():
            return Reply({"cmd": "terminate", "task_id": run_id(wanted.task_id)})
        case Run():
            return _run(server, call, claimed, is_ours=request.skep is not None)
        case _:
            assert_never(claimed.decision)


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
    seq = (request.skep or {}).get("seq")
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
        seq=seq if isinstance(seq, int) and 0 <= seq < 2**53 else 0,
        recent_polls=call.recent_polls,
        call=call_info(call.session.session_id, call.call, call.identity),
        logs_cloud_project=call.session.bot_config.logs_cloud_project,
    )


def _run(server: BotServer, call: BotCall, claimed: Claimed, *, is_ours: bool) -> Reply:
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
    secrets = _secrets(server, claimed.task, claimed.request, is_ours=is_ours)
    return Reply(
        {
            "cmd": "run",
            "session": server.token(session),
            "task_id": run_id(claimed.task.task_id),
            "manifest": manifest(claimed.request, index, call) | secrets,
        }
    )


def _secrets(
    server: BotServer, task: Task, request: TaskRequest, *, is_ours: bool
) -> dict[str, object]:
    """The keys of the manifest with what the run may know (bot-api 4.4, docs/secrets.md).

    Named secrets go to bots of ours only: others would put them where they can be read.
    What cannot be had is named, and such a bot ends the run.
    """
    if not request.secrets and not request.secret_bytes_ref:
        return {}
    released = release_secrets(server.store, task, request)
    opened = {
        variable: _opened(server, secret.place, secret.sealed) if secret is not None else None
        for variable, secret in released.named.items()
    }
    found: dict[str, object] = {}
    missing = sorted(variable for variable, value in opened.items() if value is None)
    if request.secret_bytes_ref and request.slices[task.slice_index].has_secret_bytes:
        place = task_place(request.secret_bytes_ref)
        own = _opened(server, place, released.task_secret) if released.task_secret else None
        missing += ["secret_bytes"] * (own is None)
        found |= {"secret_bytes": own} if own is not None else {}
    if is_ours:
        said = {variable: value for variable, value in opened.items() if value is not None}
        found["skep"] = {"secrets": said, "secrets_missing": missing}
    return found


def _opened(server: BotServer, place: Place, sealed: Sealed) -> str | None:
    """The value in base64; None when it does not open."""
    try:
        return base64.b64encode(server.vault.open(place, sealed)).decode()
    except (BadSeal, KeyFileError) as error:
        log.warning("a secret cannot be released: %s", error)
        return None


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
            "task": {"service_account": request.service_account},
        },
        "bot_authenticated_as": call.identity.name,
    }
    if request.realm:
        body["realm"] = {"name": request.realm}
    return body | {key: value for key, value in _optional(chosen).items() if value}


def _optional(chosen: Slice) -> dict[str, object]:
    """The keys of a manifest that are left out when they are empty."""
    return {
        "relative_cwd": chosen.relative_cwd,
        "env": dict(chosen.env),
        "env_prefixes": {key: list(paths) for key, paths in chosen.env_prefixes.items()},
        "caches": [
            {"name": cache.name, "path": cache.path, "hint": NO_HINT} for cache in chosen.caches
        ],
        "cas_input_root": chosen.cas_input_root and asdict(chosen.cas_input_root),
        "cipd_input": chosen.cipd_input and asdict(chosen.cipd_input),
        "outputs": list(chosen.outputs),
        "containment": chosen.containment_type and {"containment_type": chosen.containment_type},
    }
