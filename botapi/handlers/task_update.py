"""The runner's channel: output, progress, completion, and the `must_stop` reply (bot-api 5)."""

import base64
import binascii
import logging
from dataclasses import replace
from typing import Any, assert_never

import msgspec

from botapi.bot_call import BotCall, BotServer, Reply, Said, Text, call_info
from botapi.domain.artifacts import (
    CacheStats,
    CasReference,
    CipdPins,
    IsolatedStats,
    PerformanceStats,
    Took,
    TransferStats,
)
from botapi.domain.bot_event import key_of_uuid
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.output import Gap
from botapi.domain.task import Task
from botapi.store import codec
from botapi.transactions.update_task import (
    Accepted,
    Foreign,
    Missing,
    NotCurrent,
    Outcome,
    Progress,
    update_task,
)

MAX_OFFSET = 10**15 - 1
"""The largest offset that a key of stored output can name."""
MAX_ITEMS_CHARS = 16_384
"""Longest set of item sizes, in base64, that is kept with the statistics of a run."""

log = logging.getLogger(__name__)


class TaskUpdateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /task_update`."""

    session: str | None = None
    task_id: str | None = None
    id: str | None = None
    request_uuid: str | None = None
    output: str | None = None
    output_chunk_start: int | None = None
    exit_code: int | None = None
    duration: float | None = None
    hard_timeout: bool | None = None
    io_timeout: bool | None = None
    canceled: bool | None = None
    cost_usd: float | None = None
    cas_output_root: CasReference | None = None
    cipd_pins: CipdPins | None = None
    bot_overhead: float | None = None
    cache_trim_stats: Took | None = None
    cipd_stats: Took | None = None
    cleanup_stats: Took | None = None
    named_caches_stats: CacheStats | None = None
    isolated_stats: IsolatedStats | None = None
    skep: dict[str, Any] | None = None

    @property
    def is_completing(self) -> bool:
        """The completion test of bot-api 5.1."""
        return bool(
            self.exit_code is not None or self.canceled or self.hard_timeout or self.io_timeout
        )


def task_update(server: BotServer, call: BotCall, request: TaskUpdateRequest) -> Said:
    """Store the output at its absolute offset; end the run when the call says so."""
    if not request.task_id:
        raise Refusal(Code.INVALID_ARGUMENT, "task_id: missing")
    is_completing = request.is_completing
    if call.bot.task_id != request.task_id or call.is_superseded:
        return _not_current(f"this bot does not run {request.task_id}", is_completing=is_completing)
    try:
        task_id, output = _checked(request)
    except Refusal:
        _refuse_if_missing(server, request)
        raise
    if not is_completing and not output:
        return _heartbeat(server, call, task_id)
    progress = Progress(
        bot_id=call.bot.bot_id,
        session_id=call.session.session_id,
        task_id=task_id,
        offset=request.output_chunk_start or 0,
        output=output,
        ending=_ending(request) if is_completing else None,
        dedup_key=key_of_uuid(request.request_uuid or ""),
        resends=request.skep is not None,
        output_limit=server.settings.output_limit_bytes,
        call=call_info(call.session.session_id, call.call, call.identity),
    )
    if not output:
        progress = _at_the_end(server, progress)
    outcome = update_task(server.store, progress, server.stamp(call.call))
    server.last_seen.touch(call.bot.bot_id, call.call.now_ms, is_run=True)
    return _reply(server, call, outcome, is_completing=is_completing)


def _checked(request: TaskUpdateRequest) -> tuple[str, bytes]:
    """The validation of bot-api 5.1, in its order, but for the task that is missing."""
    try:
        task_id = parse_task_id(str(request.task_id))
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"task_id: {error}") from None
    if (request.cost_usd or 0) < 0:
        raise Refusal(Code.INVALID_ARGUMENT, f"cost_usd: negative: {request.cost_usd}")
    if (request.duration or 0) < 0:
        raise Refusal(Code.INVALID_ARGUMENT, f"duration: negative: {request.duration}")
    if (request.duration is None) != (request.exit_code is None):
        raise Refusal(Code.INVALID_ARGUMENT, "duration and exit_code: both or none, one is missing")
    if request.bot_overhead is not None and request.duration is None:
        raise Refusal(Code.INVALID_ARGUMENT, "bot_overhead: needs duration")
    if not 0 <= (request.output_chunk_start or 0) <= MAX_OFFSET:
        start = request.output_chunk_start
        raise Refusal(Code.INVALID_ARGUMENT, f"output_chunk_start: not 0 to {MAX_OFFSET}: {start}")
    if abs(request.exit_code or 0) >= 2**63:
        raise Refusal(Code.INVALID_ARGUMENT, f"exit_code: over 64 bits: {request.exit_code}")
    try:
        return task_id, base64.b64decode(request.output or "", validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(Code.INVALID_ARGUMENT, "output: not base64") from None


def _refuse_if_missing(server: BotServer, request: TaskUpdateRequest) -> None:
    """Of a task that does not exist nothing else is said (bot-api 5.1): looked at only now."""
    try:
        key = codec.task_key(request.task_id or "")
    except ValueError:
        return
    if server.store.get(codec.TASK, key) == [None]:
        raise Refusal(Code.NOT_FOUND, f"no task {request.task_id}")


def _ending(request: TaskUpdateRequest) -> Ending:
    return Ending(
        by=EndedBy.BOT,
        exit_code=request.exit_code,
        duration_s=request.duration,
        hard_timeout=bool(request.hard_timeout),
        io_timeout=bool(request.io_timeout),
        canceled=bool(request.canceled),
        cost_usd=request.cost_usd or 0.0,
        cas_output_root=request.cas_output_root,
        cipd_pins=request.cipd_pins,
        performance=_performance(request),
    )


def _performance(request: TaskUpdateRequest) -> PerformanceStats | None:
    """The statistics, which count only beside `bot_overhead` (bot-api 5.5)."""
    if request.bot_overhead is None:
        return None
    isolated = request.isolated_stats
    if isolated is not None:
        isolated = IsolatedStats(_bounded(isolated.download), _bounded(isolated.upload))
    return PerformanceStats(
        bot_overhead=request.bot_overhead,
        cache_trim=request.cache_trim_stats,
        cipd=request.cipd_stats,
        cleanup=request.cleanup_stats,
        named_caches=request.named_caches_stats,
        isolated=isolated,
    )


def _bounded(stats: TransferStats | None) -> TransferStats | None:
    """Without sets of items that would fill the store; the numbers stay."""
    if stats is None:
        return None
    cold, hot = _short(stats.items_cold), _short(stats.items_hot)
    if (cold, hot) != (stats.items_cold, stats.items_hot):
        log.warning("isolated_stats: a set of items over %d characters", MAX_ITEMS_CHARS)
    return replace(stats, items_cold=cold, items_hot=hot)


def _short(items: str | None) -> str | None:
    return items if len(items or "") <= MAX_ITEMS_CHARS else None


def _at_the_end(server: BotServer, progress: Progress) -> Progress:
    """A completing call without output leaves no gap unless it names an offset."""
    if progress.offset:
        return progress
    (doc,) = server.store.get(codec.OUTPOS, codec.output_position_key(progress.task_id))
    position = codec.read_output_position(doc)
    return replace(progress, offset=position.committed + position.missing_bytes)


def _heartbeat(server: BotServer, call: BotCall, task_id: str) -> Reply:
    """Nothing to store: only the answer whether to go on, and that the bot lives."""
    (doc,) = server.store.get(codec.TASK, codec.task_key(task_id))
    if doc is None:
        raise Refusal(Code.NOT_FOUND, f"no task {task_id}")
    task = codec.read_task(doc)
    if task.bot_id != call.bot.bot_id:
        raise _foreign(task.bot_id)
    server.last_seen.touch(call.bot.bot_id, call.call.now_ms, is_run=True)
    return _ok(server, call, _stop_reason(task))


def _stop_reason(task: Task) -> str:
    if task.is_final:
        return f"the task has ended: {task.state}"
    return "being killed" if task.killing else ""


def _reply(server: BotServer, call: BotCall, outcome: Outcome, *, is_completing: bool) -> Said:
    match outcome:
        case Accepted(_task, reason):
            return _ok(server, call, "" if is_completing else reason)
        case NotCurrent(reason):
            return _not_current(reason, is_completing=is_completing)
        case Gap(committed):
            line = f"output_chunk_start: {committed} bytes are stored, send from there"
            return Text(line, 409, (("X-Skep-Committed", str(committed)),))
        case Missing():
            raise Refusal(Code.NOT_FOUND, "no such task")
        case Foreign(bot_id):
            raise _foreign(bot_id)
        case _:
            assert_never(outcome)


def _foreign(bot_id: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, f'task_id: this run is recorded for "{bot_id}"')


def _ok(server: BotServer, call: BotCall, stop_reason: str) -> Reply:
    body: dict[str, object] = {
        "ok": True,
        "must_stop": bool(stop_reason),
        "session": server.refreshed_token(call),
    }
    if stop_reason:
        body["stop_reason"] = stop_reason
    return Reply(body)


def _not_current(reason: str, *, is_completing: bool) -> Reply:
    """Rows 1 and 2 of bot-api 5.3: no token, and nothing was stored."""
    if is_completing:
        return Reply({"ok": False, "must_stop": False})
    return Reply({"ok": False, "must_stop": True, "stop_reason": reason})
