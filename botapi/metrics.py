"""What a server process counts and times, for Prometheus (docs/observability.md).

The names and their labels stand here, once; every other room asks for the one it feeds.
Labels have few values: pools, states, causes, routes, codes; never an id of a bot or a task.
Whoever counts often takes a child of a `Bound`, which is looked up once.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

R = TypeVar("R")
M = TypeVar("M", Counter, Gauge, Histogram)

MAX_POOLS = 200
"""Pools with a label of their own; what is counted of others has the pool `other`."""
MAX_CHILDREN = 2_000
"""Combinations of labels of one metric; what is counted beyond has `other` everywhere."""
OTHER = "other"

SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Buckets of what a server does by itself."""
REQUEST_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0)
LONG_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0)
"""Buckets of what tasks take."""

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
"""Everything of this process; `/metrics` shows it."""


class Merge(StrEnum):
    """How the gauges of the workers of one server become one."""

    SUM = "sum"
    MAX = "max"
    OWN = "own"
    """Every worker could say it: that of the worker which is asked counts."""


MERGE: dict[str, Merge] = {}
"""Of every gauge, by name. Counters and histograms are added up."""


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=REGISTRY)


def _gauge(name: str, text: str, merge: Merge, *labels: str) -> Gauge:
    MERGE[name] = merge
    return Gauge(name, text, labels, registry=REGISTRY)


class Bound(dict[tuple[str, ...], M], Generic[M]):
    """The children of a metric by their label values: `POLLS[pool, cmd].inc()`."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self.metric: M = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        if len(self) >= MAX_CHILDREN:
            values = (OTHER,) * len(values)
            if values in self:
                return self[values]
        child: M = self.metric.labels(*values)
        self[values] = child
        return child


# Bots

BOTS = _gauge("skep_bots", "Bots by pool and status.", Merge.OWN, "pool", "status")
BOTS_VERSION = _gauge(
    "skep_bots_version", "Bots by the version they run.", Merge.OWN, "version", "expected"
)
IDENTITY_CONFLICTS = _gauge(
    "skep_bot_identity_conflicts", "Bot ids that two processes use.", Merge.OWN
)
HELD_CALLS = _gauge("skep_held_calls", "Calls of bots that wait for work.", Merge.SUM)
POLLS = Bound(_counter("skep_bot_polls_total", "Polls by their answer.", "pool", "cmd"))

# Tasks

TASKS = _gauge("skep_tasks", "Tasks that are not final.", Merge.OWN, "pool", "state")
OLDEST_PENDING = _gauge(
    "skep_task_oldest_pending_seconds", "Age of the oldest waiting slice.", Merge.OWN, "pool"
)
TASKS_UNRUNNABLE = _gauge(
    "skep_tasks_unrunnable", "Waiting slices that no known bot could run.", Merge.MAX, "pool"
)
TASKS_CREATED = Bound(_counter("skep_tasks_created_total", "Tasks that were made.", "pool"))
TASKS_COMPLETED = Bound(
    _counter("skep_tasks_completed_total", "Tasks that ended.", "pool", "state", "cause")
)
TASK_PENDING = Bound(
    _histogram(
        "skep_task_pending_seconds", "From the making of a task to its claim.", LONG_S, "pool"
    )
)
TASK_DURATION = Bound(
    _histogram("skep_task_duration_seconds", "From the claim of a run to its end.", LONG_S, "pool")
)
TASK_OVERHEAD = Bound(
    _histogram("skep_task_overhead_seconds", "What a bot did for a run beside it.", LONG_S, "phase")
)
LEASES_EXPIRED = _counter("skep_leases_expired_total", "Offers that no bot claimed in time.")
LATE_UPDATES = _counter(
    "skep_late_updates_total", "Updates of runs that had ended without their bot."
)
OUTPUT_BYTES = _counter("skep_log_bytes_total", "Bytes of output of tasks that were stored.")

# Rollouts and configuration

ROLLOUT_BOTS = _gauge(
    "skep_rollout_bots",
    "Bots of the ring of the open rollout.",
    Merge.MAX,
    "rollout",
    "ring",
    "state",
)
ROLLOUT_STAGE = _gauge(
    "skep_rollout_stage", "1 for the stage of the latest rollout.", Merge.OWN, "rollout", "stage"
)
CONFIG_REVISION = _gauge("skep_config_revision", "Revision that is in force.", Merge.OWN)
CONFIG_ERRORS = _counter("skep_config_errors_total", "Files of a configuration that were kept out.")

# Requests

TURNED_AWAY = _counter(
    "skep_calls_turned_away_total", "Calls answered 429 because too many bots came at once."
)
HTTP_REQUESTS = Bound(
    _counter("skep_http_requests_total", "Requests by their answer.", "route", "method", "code")
)
HTTP_SECONDS = Bound(
    _histogram("skep_http_request_seconds", "Until an answer was ready.", REQUEST_S, "route")
)
AUTH_FAILURES = Bound(
    _counter("skep_auth_failures_total", "Calls refused for who made them.", "method", "reason")
)

# The store

STORE_SECONDS = _histogram(
    "skep_store_seconds", "Time of one operation of the store.", SHORT_S, "op"
)
STORE_CONFLICTS = _counter(
    "skep_store_conflicts_total", "Tries of a transaction that lost a race.", "op"
)
STORE_ATTEMPTS = _counter(
    "skep_store_attempts_total", "Tries of transactions by how they ended.", "op", "outcome"
)

STORE_DOCUMENTS = Bound(
    _counter(
        "skep_store_documents_total",
        "Documents that an engine which bills them was asked for: read, written, deleted, keys.",
        "did",
    )
)

# The server itself

SWEEP_SECONDS = Bound(
    _histogram("skep_sweep_seconds", "Time of one round of the upkeep.", SHORT_S, "job")
)
SWEEP_SUCCESS = Bound(
    _gauge(
        "skep_sweep_last_success_timestamp_seconds",
        "When a job of the upkeep last went well.",
        Merge.MAX,
        "job",
    )
)
READY = _gauge("skep_ready", "1 for a check of /readyz that holds, else 0.", Merge.OWN, "check")
CLOCK_BEHIND = _gauge(
    "skep_clock_behind_store_seconds",
    "How far the newest stamp of the store lies in the future; 0 if it does not.",
    Merge.OWN,
)
DISK_FREE = _gauge(
    "skep_disk_free_bytes", "Space that is left where the server keeps its data.", Merge.OWN
)
FLEET_COUNTED = _gauge(
    "skep_fleet_counted_timestamp_seconds", "When bots and tasks were counted.", Merge.OWN
)
WORKERS = _gauge("skep_workers", "Processes of this server that are counted here.", Merge.SUM)
BUILD_INFO = _gauge("skep_build_info", "1; the version of this server.", Merge.OWN, "version")

_pools: set[str] = set()


def pool_label(pool: str) -> str:
    """The pool as a label: itself, `none`, or `other` beyond `MAX_POOLS`."""
    if pool in _pools:
        return pool
    if not pool:
        return "none"
    if len(_pools) >= MAX_POOLS:
        return OTHER
    _pools.add(pool)
    return pool


class Operation:
    """What is noted of one operation of the store; `op` is a constant of the code."""

    __slots__ = ("_op", "committed", "seconds")

    def __init__(self, op: str) -> None:
        self._op = op
        self.seconds = STORE_SECONDS.labels(op)
        self.committed = STORE_ATTEMPTS.labels(op, "committed")

    def lost(self, outcome: str) -> None:
        """A try did not commit: `conflict`, `ambiguous`, `outage` or `failed`."""
        STORE_ATTEMPTS.labels(self._op, outcome).inc()
        if outcome == "conflict":
            STORE_CONFLICTS.labels(self._op).inc()


_operations: dict[str, Operation] = {}


def operation(op: str) -> Operation:
    """Of the transaction with that label."""
    known = _operations.get(op)
    if known is None:
        name = op if len(_operations) < MAX_CHILDREN else OTHER
        known = _operations[op] = Operation(name)
    return known


Act = Callable[[], object]
_staged: ContextVar[list[Act] | None] = ContextVar("staged", default=None)


class Staged(Generic[R]):
    """A transaction function with what it wants counted when its last run is committed."""

    __slots__ = ("_acts", "_fn")

    def __init__(self, fn: Callable[[Any], R]) -> None:
        self._fn = fn
        self._acts: list[Act] = []

    def __call__(self, txn: Any) -> R:  # noqa: ANN401 - of any engine
        """Run it anew; what the runs before had staged is forgotten."""
        self._acts.clear()
        token = _staged.set(self._acts)
        try:
            return self._fn(txn)
        finally:
            _staged.reset(token)

    def committed(self) -> None:
        """Count."""
        for act in self._acts:
            act()


def after_commit(act: Act) -> None:
    """Do it once when the transaction that runs now has committed; at once without one.

    A transaction function may run twice, so nothing may be counted inside it. A commit
    whose outcome was unknown counts what its last run did.
    """
    acts = _staged.get()
    if acts is None:
        act()
    else:
        acts.append(act)
