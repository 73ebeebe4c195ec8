"""What `NewTask` is sent, as the task that somebody asks for (prpc-api 6.1)."""

from collections.abc import Iterable
from dataclasses import dataclass

from swarmingpb import swarming_pb2 as pb

from botapi.domain.artifacts import CasDigest, CasReference, CipdInput, CipdPackage, NamedCache
from botapi.domain.errors import Refusal, refuse
from botapi.domain.new_task import NewTask, TemplateChoice, common_secret
from botapi.domain.task import Slice


@dataclass(frozen=True, slots=True)
class Asked:
    """A task, and the first thing about its message that a `NewTask` cannot show.

    That is told only when the caller may make tasks in this pool (prpc-api 6.1).
    """

    new: NewTask
    problem: Refusal | None = None


def asked_task(message: pb.NewTaskRequest) -> Asked:
    """The task in a message, unchecked but for what its form alone shows."""
    properties = [slice_.properties for slice_ in message.task_slices]
    problem: Refusal | None = None
    secret = b""
    try:
        _check_form(message)
        secret = common_secret([each.secret_bytes for each in properties])
    except Refusal as refusal:
        problem = refusal
    new = NewTask(
        name=message.name,
        slices=tuple(_slice(slice_) for slice_ in message.task_slices),
        priority=message.priority,
        tags=tuple(message.tags),
        user=message.user,
        service_account=message.service_account,
        realm=message.realm,
        parent_task_id=message.parent_task_id,
        pubsub_topic=message.pubsub_topic,
        pubsub_auth_token=message.pubsub_auth_token,
        pubsub_userdata=message.pubsub_userdata,
        bot_ping_tolerance_s=message.bot_ping_tolerance_secs,
        request_uuid=message.request_uuid,
        template=TemplateChoice(
            pb.NewTaskRequest.PoolTaskTemplateField.Name(message.pool_task_template)
        ),
        has_resultdb=message.resultdb.enable,
        secret_bytes=secret,
    )
    return Asked(new, problem)


def _check_form(message: pb.NewTaskRequest) -> None:
    if message.expiration_secs:
        raise refuse("/expiration_secs", "is set; write it into each slice")
    if message.HasField("properties"):
        raise refuse("/properties", "is set; write it into each slice")
    for index, slice_ in enumerate(message.task_slices):
        place = f"/task_slices/{index}/properties"
        _check_unique(f"{place}/env", (pair.key for pair in slice_.properties.env))
        prefixes = slice_.properties.env_prefixes
        _check_unique(f"{place}/env_prefixes", (pair.key for pair in prefixes))


def _check_unique(place: str, keys: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise refuse(place, f'"{key[:80]}" is there twice')
        seen.add(key)


def _slice(message: pb.TaskSlice) -> Slice:
    said = message.properties
    dimensions: dict[str, tuple[str, ...]] = {}
    for pair in said.dimensions:
        dimensions[pair.key] = (*dimensions.get(pair.key, ()), pair.value)
    return Slice(
        command=tuple(said.command),
        dimensions=dimensions,
        env={pair.key: pair.value for pair in said.env},
        env_prefixes={pair.key: tuple(pair.value) for pair in said.env_prefixes},
        relative_cwd=said.relative_cwd,
        expiration_s=message.expiration_secs,
        hard_timeout_s=said.execution_timeout_secs,
        io_timeout_s=said.io_timeout_secs,
        grace_period_s=said.grace_period_secs,
        wait_for_capacity=message.wait_for_capacity,
        caches=tuple(NamedCache(cache.name, cache.path) for cache in said.caches),
        cas_input_root=_cas(said.cas_input_root) if said.HasField("cas_input_root") else None,
        cipd_input=_cipd(said.cipd_input) if said.HasField("cipd_input") else None,
        outputs=tuple(said.outputs),
        containment_type=int(said.containment.containment_type),
        lower_priority=said.containment.lower_priority,
        limit_processes=said.containment.limit_processes,
        limit_total_committed_memory=said.containment.limit_total_committed_memory,
        idempotent=said.idempotent,
        has_secret_bytes=bool(said.secret_bytes),
    )


def _cas(said: pb.CASReference) -> CasReference:
    digest = CasDigest(said.digest.hash, said.digest.size_bytes)
    return CasReference(said.cas_instance, digest if said.HasField("digest") else None)


def _cipd(said: pb.CipdInput) -> CipdInput:
    client: CipdPackage | None = _package(said.client_package)
    if client == CipdPackage("", "", ""):
        client = None
    return CipdInput(said.server, client, tuple(_package(package) for package in said.packages))


def _package(said: pb.CipdPackage) -> CipdPackage:
    return CipdPackage(said.package_name, said.version, said.path)
