"""The answer to a claim: the manifest of the run, or why there is none (bot-api 4.2, 4.4)."""

import base64
import logging
from dataclasses import asdict, dataclass
from typing import assert_never

from botapi.auth.botsession import Session
from botapi.bot_call import BotServer
from botapi.domain.bot import Bot
from botapi.domain.claim import Run, Skip, Terminate
from botapi.domain.dimensions import unflatten
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import run_id
from botapi.domain.task import Slice, Task, TaskRequest
from botapi.secrets.envelope import BadSeal, Place, Sealed
from botapi.secrets.key_file import KeyFileError
from botapi.secrets.vault import task_place
from botapi.transactions.claim_slice import Claimed
from botapi.transactions.release_secrets import release_secrets

NO_HINT = "-1"
"""The size of a named cache that no bot has ever reported (bot-api 4.4)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimedBy:
    """The bot that claimed, or for which it was done. `identity`: whom it proved to be."""

    session: Session
    identity: str
    is_ours: bool


def claim_answer(server: BotServer, by: ClaimedBy, claimed: Claimed) -> dict[str, object]:
    """What a claim is answered (bot-api 4.2), but for the session. Raises Refusal INTERNAL."""
    match claimed.decision:
        case Skip(reason):
            return {"cmd": "skip", "reason": reason}
        case Terminate():
            return {"cmd": "terminate", "task_id": run_id(found(claimed)[0].task_id)}
        case Run():
            return _run(server, by, claimed)
        case _:
            assert_never(claimed.decision)


def found(claimed: Claimed) -> tuple[Task, TaskRequest, Bot]:
    """What a run or an end of the bot is made of. Raises Refusal INTERNAL."""
    if claimed.request is None or claimed.task is None or claimed.bot is None:
        raise Refusal(Code.INTERNAL, "a claimed task without a request")
    return claimed.task, claimed.request, claimed.bot


def _run(server: BotServer, by: ClaimedBy, claimed: Claimed) -> dict[str, object]:
    task, request, bot = found(claimed)
    secrets = _secrets(server, task, request, is_ours=by.is_ours)
    return {
        "cmd": "run",
        "task_id": run_id(task.task_id),
        "manifest": manifest(request, task.slice_index, bot, by) | secrets,
    }


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


def manifest(request: TaskRequest, index: int, bot: Bot, by: ClaimedBy) -> dict[str, object]:
    """What the bot executes (bot-api 4.4); empty optional keys are left out."""
    chosen = request.slices[index]
    body: dict[str, object] = {
        "task_id": run_id(request.task_id),
        "bot_id": bot.bot_id,
        "bot_dimensions": unflatten(bot.dimensions),
        "dimensions": {key: list(values) for key, values in chosen.dimensions.items()},
        "hard_timeout": chosen.hard_timeout_s,
        "io_timeout": chosen.io_timeout_s,
        "grace_period": chosen.grace_period_s,
        "command": list(chosen.command),
        "service_accounts": {
            "system": {"service_account": by.session.bot_config.system_service_account or "none"},
            "task": {"service_account": request.service_account},
        },
        "bot_authenticated_as": by.identity,
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
