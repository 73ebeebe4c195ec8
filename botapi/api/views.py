"""Domain values as the JSON of docs/api.md; the pages show the same objects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import BotEvent
from botapi.domain.bot_timeline import Interval, Share
from botapi.domain.completion import cause_of
from botapi.domain.dimensions import unflatten
from botapi.domain.names import parse_task_id, run_id
from botapi.domain.slice_rules import CONTAINMENT_TYPES
from botapi.domain.task import OutputPosition, Slice, Task, TaskRequest

Json = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(ms: int) -> str | None:
    """The time in UTC with milliseconds; None for 0, which means "not yet"."""
    if not ms:
        return None
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def slice_view(slice_: Slice) -> Json:
    """One slice, in the words of the body of `POST /tasks`."""
    return {
        "command": list(slice_.command),
        "dimensions": {key: list(values) for key, values in slice_.dimensions.items()},
        "env": dict(slice_.env),
        "env_prefixes": {key: list(values) for key, values in slice_.env_prefixes.items()},
        "relative_cwd": slice_.relative_cwd,
        "expiration_s": slice_.expiration_s,
        "hard_timeout_s": slice_.hard_timeout_s,
        "io_timeout_s": slice_.io_timeout_s,
        "grace_period_s": slice_.grace_period_s,
        "wait_for_capacity": slice_.wait_for_capacity,
        "idempotent": slice_.idempotent,
        "caches": [asdict(cache) for cache in slice_.caches],
        "cas_input_root": _said(slice_.cas_input_root),
        "cipd_input": _said(slice_.cipd_input),
        "outputs": list(slice_.outputs),
        "containment": {
            "containment_type": CONTAINMENT_TYPES[slice_.containment_type],
            "lower_priority": slice_.lower_priority,
            "limit_processes": slice_.limit_processes,
            "limit_total_committed_memory": slice_.limit_total_committed_memory,
        },
        "has_secret_bytes": slice_.has_secret_bytes,
        "properties_hash": slice_.properties_hash or None,
    }


def request_view(request: TaskRequest) -> Json:
    """What was asked, as it is stored. The token of the topic is nobody's to read."""
    return {
        "name": request.name,
        "user": request.user,
        "authenticated": request.authenticated,
        "priority": request.priority,
        "tags": list(request.tags),
        "bot_ping_tolerance_s": request.bot_ping_tolerance_s,
        "service_account": request.service_account,
        "realm": request.realm or None,
        "parent_task_id": request.parent_task_id or None,
        "root_task_id": request.root_task_id or None,
        "pubsub_topic": request.pubsub_topic or None,
        "pubsub_userdata": request.pubsub_userdata or None,
        "pool_task_template": request.template or None,
        "secrets": dict(request.secrets),
        "max_retries": request.max_retries,
        "retry_of": request.retry_of or None,
        "retry_number": request.retry_number,
        "slices": [slice_view(slice_) for slice_ in request.slices],
    }


def task_view(task: Task, request: TaskRequest, position: OutputPosition, why: str) -> Json:
    """A task. `why` is the reason that it is pending, empty otherwise."""
    cause = cause_of(task)
    return request_view(request) | {
        "task_id": task.task_id,
        "run_id": _run_id(task),
        "state": str(task.state),
        "cause": str(cause) if cause else None,
        "error": task.error or None,
        "slice_index": task.slice_index,
        "created_at": rfc3339(task.created_ms),
        "started_at": rfc3339(task.started_ms),
        "completed_at": rfc3339(task.completed_ms),
        "abandoned_at": rfc3339(task.abandoned_ms),
        "bot_id": task.bot_id or None,
        "exit_code": task.exit_code,
        "duration_s": task.duration_s,
        "failure": task.failure,
        "internal_failure": task.internal_failure,
        "killing": task.killing,
        "cost_usd": task.cost_usd,
        "cost_saved_usd": task.cost_saved_usd,
        "deduped_from": task.deduped_from or None,
        "retried_as": task.retried_as or None,
        "cas_output_root": _said(task.cas_output_root),
        "cipd_pins": _said(task.cipd_pins),
        "missing_cas": [_said(missing) for missing in task.missing_cas],
        "missing_cipd": [_said(missing) for missing in task.missing_cipd],
        "performance": _said(task.performance),
        "output_bytes": max(task.output_bytes, position.committed),
        "missing_bytes": max(task.missing_bytes, position.missing_bytes),
        "output_limit_hit": position.limit_hit,
        "late_bytes": task.late_bytes,
        "why": why or None,
    }


def _run_id(task: Task) -> str | None:
    """Its own run, or the one whose result it has; None before there is one."""
    return task.deduped_from or (run_id(task.task_id) if task.started_ms else None)


def _said(value: Any) -> Json | None:  # noqa: ANN401 - a dataclass or None
    """What a bot said, without what it did not say; None for nothing at all."""
    return asdict(value, dict_factory=_without_none) if value is not None else None


def _without_none(pairs: list[tuple[str, Any]]) -> Json:
    return {name: value for name, value in pairs if value is not None}


def bot_view(bot: Bot, live: LiveBot | None, expected_version: str) -> Json:
    """A bot. `live` is what every call refreshes; None when it was never stored."""
    return {
        "bot_id": bot.bot_id,
        "status": str(bot.status),
        "dimensions": unflatten(bot.dimensions),
        "state": dict(live.state) if live and live.state else {},
        "version": bot.version or None,
        "expected_version": expected_version or None,
        "task_id": _task_id(bot.task_id),
        "quarantine_reason": bot.quarantined or None,
        "maintenance": bot.maintenance or None,
        "quarantined_until": rfc3339(bot.admin_quarantine_until_ms),
        "paused_until": rfc3339(bot.pause_until_ms),
        "restart_asked": bot.restart_asked or None,
        "first_seen_at": rfc3339(bot.first_seen_ms),
        "last_seen_at": rfc3339(live.seen_ms if live else 0),
        "external_ip": bot.external_ip or None,
        "authenticated_as": bot.authenticated_as or None,
        "session_id": bot.session_id or None,
        "note": bot.note or None,
    }


def event_view(event: BotEvent) -> Json:
    """An event of a bot."""
    return {
        "event_id": event.event_id,
        "at": rfc3339(event.at_ms),
        "event": str(event.kind),
        "message": event.message or None,
        "task_id": _task_id(event.task_id),
        "version": event.version or None,
        "session_id": event.session_id or None,
        "external_ip": event.external_ip or None,
        "quarantined": event.quarantined or None,
        "maintenance": event.maintenance or None,
    }


def interval_view(interval: Interval) -> Json:
    """What a bot was at for a while."""
    return {
        "begin": rfc3339(interval.begin_ms),
        "end": rfc3339(interval.end_ms),
        "seconds": (interval.end_ms - interval.begin_ms) / 1000,
        "state": interval.state,
        "task_id": _task_id(interval.task_id),
        "reason": interval.reason or None,
    }


def share_view(share: Share) -> Json:
    """How long a bot was in a state."""
    seconds = share.length_ms / 1000
    return {"state": share.state, "seconds": seconds, "share": round(share.share, 4)}


def audit_view(body: Mapping[str, Any]) -> Json:
    """An entry of the audit record, from its stored body."""
    texts = ("actor", "verb", "target", "reason", "before", "after")
    return {"at": rfc3339(body["at_ms"])} | {name: body[name] for name in texts}


@dataclass(frozen=True, slots=True)
class Output:
    """Some bytes of a task's output. `final`: the task is final and nothing follows."""

    offset: int
    data: bytes
    state: str
    final: bool

    @property
    def next_offset(self) -> int:
        """Where to go on reading."""
        return self.offset + len(self.data)

    def headers(self) -> dict[str, str]:
        """What stands beside the bytes."""
        return {
            "X-Skep-Offset": str(self.offset),
            "X-Skep-Next-Offset": str(self.next_offset),
            "X-Skep-Task-State": self.state,
            "X-Skep-Final": "1" if self.final else "0",
        }


def _task_id(run: str) -> str | None:
    """The task of a run; None for no run."""
    return parse_task_id(run) if run else None
