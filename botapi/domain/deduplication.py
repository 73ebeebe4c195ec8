"""May an earlier result stand for a new task, and how does it then look (bot-api 10.5)?"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from botapi.domain.names import run_id
from botapi.domain.task import Slice, Task, TaskState

_NOT_PROPERTIES = ("expiration_s", "wait_for_capacity", "properties_hash", "has_secret_bytes")
"""What a slice says beside its properties; the secret bytes themselves are hashed."""


def properties_hash(slice_: Slice, secret_bytes: bytes, secrets: Mapping[str, str]) -> str:
    """SHA-256 in hex over all properties, secrets included; equal for equal properties only.

    `secrets` maps variables to names of stored secrets; their values are not known here.
    The order of keys, and of the constraints of one dimension, makes no difference.
    """
    said = {key: value for key, value in asdict(slice_).items() if key not in _NOT_PROPERTIES}
    said["dimensions"] = {key: sorted(values) for key, values in slice_.dimensions.items()}
    said["secret_bytes"] = secret_bytes.hex() if slice_.has_secret_bytes else None
    said["secrets"] = dict(secrets)
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_usable(original: Task, wanted_hash: str, oldest_ms: int) -> bool:
    """Is it a success of just these properties, of its own, created at `oldest_ms` or later?"""
    return (
        original.state is TaskState.COMPLETED
        and not original.deduped_from
        and original.properties_hash == wanted_hash
        and original.created_ms >= oldest_ms
    )


def finished_as(new: Task, original: Task) -> Task:
    """The new task, finished with the original's state, bot, times and outputs; it never ran."""
    return replace(
        new,
        state=original.state,
        bot_id=original.bot_id,
        bot_version=original.bot_version,
        bot_dimensions=original.bot_dimensions,
        bot_owners=original.bot_owners,
        bot_idle_since_ms=original.bot_idle_since_ms,
        bot_logs_cloud_project=original.bot_logs_cloud_project,
        server_versions=original.server_versions,
        started_ms=original.started_ms,
        completed_ms=original.completed_ms,
        exit_code=original.exit_code,
        duration_s=original.duration_s,
        output_bytes=original.output_bytes,
        missing_bytes=original.missing_bytes,
        cas_output_root=original.cas_output_root,
        cipd_pins=original.cipd_pins,
        performance=original.performance,
        deduped_from=run_id(original.task_id),
        cost_saved_usd=original.cost_usd,
    )
