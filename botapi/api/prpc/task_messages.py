"""Tasks as the public API tells them (prpc-api 4): nothing that is not so is ever set."""

import base64
import binascii
from collections.abc import Mapping

from swarmingpb import swarming_pb2 as pb

from botapi.api.prpc.values import string_lists, timestamp
from botapi.domain import artifacts
from botapi.domain.item_sets import read_items
from botapi.domain.names import run_id
from botapi.domain.task import Slice, Task, TaskRequest, TaskState

REDACTED = b"<REDACTED>"
"""What is shown in place of a secret."""
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

STATES: Mapping[TaskState, pb.TaskState.ValueType] = {
    state: pb.TaskState.Value(state.value) for state in TaskState
}


def result_message(
    task: Task,
    stats: artifacts.PerformanceStats | None = None,
    *,
    with_cost: bool = False,
) -> pb.TaskResultResponse:
    """How a task stands, with the statistics that were asked for.

    `with_cost`: say the cost also when it is nothing, as ListBotTasks does.
    """
    cost = 0.0 if task.deduped_from else task.cost_usd
    return pb.TaskResultResponse(
        task_id=task.task_id,
        bot_dimensions=string_lists(task.bot_dimensions),
        bot_id=task.bot_id,
        bot_idle_since_ts=timestamp(task.bot_idle_since_ms),
        bot_version=task.bot_version,
        bot_logs_cloud_project=task.bot_logs_cloud_project,
        completed_ts=timestamp(task.completed_ms),
        cost_saved_usd=task.cost_saved_usd if task.deduped_from else 0.0,
        created_ts=timestamp(task.created_ms),
        deduped_from=task.deduped_from,
        duration=task.duration_s or 0.0,
        exit_code=_int64(task.exit_code),
        failure=task.failure,
        internal_failure=task.internal_failure,
        modified_ts=timestamp(task.modified_ms),
        cas_output_root=_cas(task.cas_output_root),
        server_versions=sorted(set(task.server_versions)),
        started_ts=timestamp(task.started_ms),
        state=STATES[task.state],
        abandoned_ts=timestamp(task.abandoned_ms),
        costs_usd=[cost] if cost or with_cost else [],
        name=task.name,
        tags=sorted(set(task.tags)),
        user=task.user,
        performance_stats=None if stats is None else _performance(stats),
        cipd_pins=_pins(task.cipd_pins),
        run_id=_run_id(task),
        current_task_slice=task.slice_index,
        missing_cas=[_missing(reference) for reference in task.missing_cas],
        missing_cipd=[_package(package) for package in task.missing_cipd],
    )


def _run_id(task: Task) -> str:
    """Its own once it was claimed, the original's when it took over another's result."""
    if task.deduped_from:
        return task.deduped_from
    return run_id(task.task_id) if task.started_ms else ""


def request_message(request: TaskRequest) -> pb.TaskRequestResponse:
    """What was asked for; without its id when it was only evaluated."""
    slices = [_slice(slice_, request) for slice_ in request.slices]
    is_termination = request.is_termination
    return pb.TaskRequestResponse(
        task_id=request.task_id,
        expiration_secs=sum(slice_.expiration_s for slice_ in request.slices),
        name=request.name,
        parent_task_id=request.parent_task_id,
        priority=request.priority,
        properties=slices[0].properties,
        tags=sorted(set(request.tags)),
        created_ts=timestamp(request.created_ms),
        user=request.user,
        authenticated=request.authenticated,
        task_slices=slices,
        service_account=request.service_account or "none",
        realm=request.realm,
        resultdb=pb.ResultDBCfg(enable=request.has_resultdb),
        pubsub_topic=request.pubsub_topic,
        pubsub_userdata=request.pubsub_userdata,
        bot_ping_tolerance_secs=0 if is_termination else request.bot_ping_tolerance_s,
    )


def _slice(slice_: Slice, request: TaskRequest) -> pb.TaskSlice:
    """A termination task says of its slice only which bot it is for (prpc-api 6.4)."""
    only_bot = request.is_termination
    return pb.TaskSlice(
        properties=pb.TaskProperties(dimensions=_dimensions(slice_))
        if only_bot
        else _properties(slice_),
        expiration_secs=slice_.expiration_s,
        wait_for_capacity=slice_.wait_for_capacity,
    )


def _properties(slice_: Slice) -> pb.TaskProperties:
    return pb.TaskProperties(
        caches=[pb.CacheEntry(name=cache.name, path=cache.path) for cache in slice_.caches],
        cipd_input=_cipd_input(slice_.cipd_input),
        command=slice_.command,
        relative_cwd=slice_.relative_cwd,
        dimensions=_dimensions(slice_),
        env=[pb.StringPair(key=key, value=value) for key, value in sorted(slice_.env.items())],
        env_prefixes=[
            pb.StringListPair(key=key, value=paths)
            for key, paths in sorted(slice_.env_prefixes.items())
        ],
        execution_timeout_secs=slice_.hard_timeout_s,
        grace_period_secs=slice_.grace_period_s,
        idempotent=slice_.idempotent,
        cas_input_root=_cas(slice_.cas_input_root),
        io_timeout_secs=slice_.io_timeout_s,
        outputs=slice_.outputs,
        secret_bytes=REDACTED if slice_.has_secret_bytes else b"",
        containment=_containment(slice_.containment_type),
    )


def _dimensions(slice_: Slice) -> list[pb.StringPair]:
    return [
        pb.StringPair(key=key, value=value)
        for key, values in sorted(slice_.dimensions.items())
        for value in sorted(values)
    ]


def _containment(number: int) -> pb.Containment | None:
    if not number:
        return None
    return pb.Containment(containment_type=pb.Containment.ContainmentType.ValueType(number))


def _cas(reference: artifacts.CasReference | None) -> pb.CASReference | None:
    if reference is None:
        return None
    digest = None if reference.digest is None else _digest(reference.digest)
    return pb.CASReference(cas_instance=reference.cas_instance or "", digest=digest)


def _missing(reference: artifacts.CasReference) -> pb.CASReference:
    """With a digest even where none was said (prpc-api 4, missingCas)."""
    digest = _digest(reference.digest or artifacts.CasDigest())
    return pb.CASReference(cas_instance=reference.cas_instance or "", digest=digest)


def _digest(digest: artifacts.CasDigest) -> pb.Digest:
    return pb.Digest(hash=digest.hash or "", size_bytes=_int64(digest.size_bytes))


def _package(package: artifacts.CipdPackage) -> pb.CipdPackage:
    return pb.CipdPackage(
        package_name=package.package_name or "",
        version=package.version or "",
        path=package.path or "",
    )


def _cipd_input(said: artifacts.CipdInput | None) -> pb.CipdInput | None:
    if said is None:
        return None
    return pb.CipdInput(
        server=said.server,
        client_package=_package(said.client_package) if said.client_package else None,
        packages=[_package(package) for package in said.packages],
    )


def _pins(pins: artifacts.CipdPins | None) -> pb.CipdPins | None:
    if pins is None:
        return None
    return pb.CipdPins(
        client_package=_package(pins.client_package) if pins.client_package else None,
        packages=[_package(package) for package in pins.packages or ()],
    )


def _performance(stats: artifacts.PerformanceStats) -> pb.PerformanceStats:
    isolated = stats.isolated or artifacts.IsolatedStats()
    caches = stats.named_caches or artifacts.CacheStats()
    return pb.PerformanceStats(
        bot_overhead=stats.bot_overhead,
        isolated_download=_transfer(isolated.download),
        isolated_upload=_transfer(isolated.upload),
        package_installation=_took(stats.cipd),
        cache_trim=_took(stats.cache_trim),
        named_caches_install=_took(caches.install),
        named_caches_uninstall=_took(caches.uninstall),
        cleanup=_took(stats.cleanup),
    )


def _took(took: artifacts.Took | None) -> pb.OperationStats | None:
    """Absent where there is no data (prpc-api 4)."""
    if took is None or took.duration is None:
        return None
    return pb.OperationStats(duration=took.duration)


def _transfer(stats: artifacts.TransferStats | None) -> pb.CASOperationStats | None:
    if stats is None or stats == artifacts.TransferStats():
        return None
    cold, hot = _packed(stats.items_cold), _packed(stats.items_hot)
    cold_items, hot_items = read_items(cold), read_items(hot)
    return pb.CASOperationStats(
        duration=stats.duration or 0.0,
        initial_number_items=_int32(stats.initial_number_items),
        initial_size=_int64(stats.initial_size),
        items_cold=cold,
        items_hot=hot,
        num_items_cold=cold_items.count,
        total_bytes_items_cold=_int64(cold_items.total_bytes),
        num_items_hot=hot_items.count,
        total_bytes_items_hot=_int64(hot_items.total_bytes),
    )


def _packed(text: str | None) -> bytes:
    """The bytes of a set of items; none when a bot sent something else than base64."""
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _int32(number: int | None) -> int:
    """As near as 32 bits come to what a bot said."""
    return max(-MAX_INT32 - 1, min(number or 0, MAX_INT32))


def _int64(number: int | None) -> int:
    return max(-MAX_INT64 - 1, min(number or 0, MAX_INT64))
