"""What a task is: its request, its slices, its one run, and the legal changes of its state."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from botapi.domain.artifacts import (
    CasReference,
    CipdInput,
    CipdPackage,
    CipdPins,
    NamedCache,
    PerformanceStats,
)
from botapi.domain.names import parse_task_id

Dimensions = Mapping[str, tuple[str, ...]]
"""A task's constraints: key to one or more of `value` or `a|b`; every one must be met."""


class TaskState(StrEnum):
    """The states of bot-api 5.8, by their names there."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    TIMED_OUT = "TIMED_OUT"
    BOT_DIED = "BOT_DIED"
    CANCELED = "CANCELED"
    KILLED = "KILLED"
    EXPIRED = "EXPIRED"
    NO_RESOURCE = "NO_RESOURCE"
    CLIENT_ERROR = "CLIENT_ERROR"


S = TaskState

TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    S.PENDING: frozenset({S.RUNNING, S.CANCELED, S.EXPIRED, S.NO_RESOURCE, S.BOT_DIED}),
    S.RUNNING: frozenset(
        {S.COMPLETED, S.TIMED_OUT, S.BOT_DIED, S.CANCELED, S.KILLED, S.CLIENT_ERROR}
    ),
}
"""Every legal change (bot-api 5.8). A state that is not a key here is final: nothing leaves it."""


def is_final(state: TaskState) -> bool:
    """Is this a state that never changes?"""
    return state not in TRANSITIONS


class IllegalTransitionError(Exception):
    """A bug: somebody tried to leave a final state, or to skip one."""


def check_transition(old: TaskState, new: TaskState) -> None:
    """Raise IllegalTransitionError unless the table allows old to become new."""
    if new not in TRANSITIONS.get(old, frozenset()):
        raise IllegalTransitionError(f"{old} never becomes {new}")


@dataclass(frozen=True, slots=True)
class Slice:
    """One alternative of a task (bot-api 10.4). Times are whole seconds, 0 is "no limit"."""

    command: tuple[str, ...]
    dimensions: Dimensions
    env: Mapping[str, str] = field(default_factory=dict)
    env_prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    relative_cwd: str = ""
    expiration_s: int = 3600
    hard_timeout_s: int = 3600
    io_timeout_s: int = 0
    grace_period_s: int = 30
    wait_for_capacity: bool = False
    caches: tuple[NamedCache, ...] = ()
    cas_input_root: CasReference | None = None
    cipd_input: CipdInput | None = None
    outputs: tuple[str, ...] = ()
    containment_type: int = 0
    """0 not said, 1 none, 2 automatic, 3 job object (prpc-api 3)."""
    lower_priority: bool = False
    limit_processes: int = 0
    limit_total_committed_memory: int = 0
    """Bytes; 0 for no limit, as with the processes."""
    idempotent: bool = False
    """May an earlier result of the same properties stand for this one (bot-api 10.5)?"""
    has_secret_bytes: bool = False
    """Does it get the task's secret bytes? They themselves are never in here."""
    properties_hash: str = ""
    """SHA-256 in hex over all properties; empty unless idempotent."""

    @property
    def pool(self) -> str:
        """The pool, empty for a termination task."""
        values = self.dimensions.get("pool", ())
        return values[0] if values else ""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What was asked; never changes. `expires_ms[i]` is the absolute deadline of slice i."""

    task_id: str
    name: str
    priority: int
    user: str
    authenticated: str
    tags: tuple[str, ...]
    slices: tuple[Slice, ...]
    created_ms: int
    bot_ping_tolerance_s: int = 1200
    service_account: str = "none"
    """An e-mail, `none` or `bot`: whom the task acts as."""
    realm: str = ""
    """`project:name`; empty where nobody said one and no pools.cfg does."""
    is_newest_first: bool = False
    """Does it go before older ones of its priority? As its pool said when it was made."""
    parent_task_id: str = ""
    """The run id of the task that made this one (bot-api 10.7)."""
    root_task_id: str = ""
    """The run id at the top of the chain of parents; empty without a parent."""
    request_uuid: str = ""
    pubsub_topic: str = ""
    pubsub_auth_token: str = field(default="", repr=False)
    pubsub_userdata: str = ""
    has_resultdb: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment variable to the name of a stored secret (docs/secrets.md)."""
    secret_bytes_ref: str = ""
    """Where the sealed secret bytes are, for this task and its retries; empty for none."""
    max_retries: int = 0
    """How often infrastructure may fail it before nobody tries again (0: never again)."""
    retry_of: str = ""
    """The task id of which this is an automatic or asked-for retry."""
    retry_number: int = 0
    template: str = ""
    """Which task template of its pool was applied: `prod`, `canary`, `skip` or `none`."""

    def deadline_ms(self, index: int) -> int:
        """When slice `index` expires: created + the expirations of slices 0..index."""
        return self.created_ms + 1000 * sum(s.expiration_s for s in self.slices[: index + 1])

    @property
    def is_termination(self) -> bool:
        """Asks the bot to exit: no command, and `id` as the only dimension (bot-api 10.6)."""
        (only,) = self.slices[:1]
        return not only.command and set(only.dimensions) == {"id"}


@dataclass(frozen=True, slots=True)
class Task:
    """The one authoritative record of how a task stands. Times in ms, 0 means "not yet"."""

    task_id: str
    state: TaskState
    name: str
    user: str
    pool: str
    priority: int
    tags: tuple[str, ...]
    created_ms: int
    modified_ms: int
    slice_index: int = 0
    pend_key: str = ""
    bot_id: str = ""
    bot_version: str = ""
    bot_dimensions: tuple[str, ...] = ()
    session_id: str = ""
    claim_id: str = ""
    bot_owners: tuple[str, ...] = ()
    bot_idle_since_ms: int = 0
    bot_logs_cloud_project: str = ""
    server_versions: tuple[str, ...] = ()
    """Of every server that had a hand in its run, sorted."""
    started_ms: int = 0
    completed_ms: int = 0
    abandoned_ms: int = 0
    expiration_delay_ms: int = 0
    """How long after its deadline the last slice was found to be expired."""
    killing: bool = False
    exit_code: int | None = None
    duration_s: float | None = None
    failure: bool = False
    internal_failure: bool = False
    cost_usd: float = 0.0
    output_bytes: int = 0
    missing_bytes: int = 0
    error: str = ""
    cas_output_root: CasReference | None = None
    cipd_pins: CipdPins | None = None
    missing_cas: tuple[CasReference, ...] = ()
    missing_cipd: tuple[CipdPackage, ...] = ()
    performance: PerformanceStats | None = None
    deduped_from: str = ""
    """The run id whose result this is; the task itself never ran (bot-api 10.5)."""
    cost_saved_usd: float = 0.0
    properties_hash: str = ""
    """Of the slice that runs, if idempotent; once final, only if its result may stand for
    another task (bot-api 5.5)."""
    retry_of: str = ""
    retried_as: str = ""
    """The task id of the retry that was made when this one ended."""
    late_bytes: int = 0
    """Output that came after its end and is kept for diagnosis only."""
    late_pieces: int = 0
    """In so many pieces."""
    has_children: bool = False
    """Has a task been made with this one as its parent? Then its end ends them too."""
    stopped_by_policy: bool = False
    """Was it canceled or killed by a rule of ours, and not by a person?"""

    @property
    def is_final(self) -> bool:
        """Has it ended?"""
        return is_final(self.state)

    @property
    def output_task_id(self) -> str:
        """The task whose output it shows: its own, or that of the original (bot-api 10.5)."""
        return parse_task_id(self.deduped_from) if self.deduped_from else self.task_id


def become(task: Task, state: TaskState, now_ms: int, **changes: Any) -> Task:
    """The task in its new state: the only way in which a stored state ever changes.

    A final state sets `completed_ms`. Raises IllegalTransitionError.
    """
    check_transition(task.state, state)
    if is_final(state):
        changes = {"completed_ms": now_ms, **changes}
    return replace(task, state=state, modified_ms=now_ms, **changes)


@dataclass(frozen=True, slots=True)
class OutputPosition:
    """How much of a run's output is stored. `missing_bytes` were stated, never stored."""

    committed: int = 0
    missing_bytes: int = 0
    limit_hit: bool = False
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class PendingSlice:
    """A slice waiting for a bot; an index only, the truth is the task."""

    key: str
    queue_key: str
    task_id: str
    slice_index: int
    priority: int
    created_ms: int
    shard: int
    retry_count: int = 0
    waits_for_capacity: bool = False

    @property
    def order(self) -> str:
        """Smaller runs first: as in its queue, so also among the heads of several queues."""
        return self.key.removeprefix(self.queue_key)


@dataclass(frozen=True, slots=True)
class Offer:
    """The scheduler's time-limited offer of a pending slice to one bot (a lease)."""

    lease_id: str
    bot_id: str
    offered_ms: int
    pending: PendingSlice


def lease_id(pending: PendingSlice) -> str:
    """`local-<task id>-<slice>-<retry>`, the reservation id of bot-api 1.11."""
    return f"local-{pending.task_id}-{pending.slice_index}-{pending.retry_count}"


MAX_OFFER_RETRIES = 3
"""A slice dropped by bots more often than this ends (bot-api 10.4)."""
