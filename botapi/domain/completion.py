"""How a run ends: which state, and what else is set (bot-api 5.5)."""

from dataclasses import dataclass
from enum import StrEnum

from botapi.domain.artifacts import CasReference, CipdPackage, CipdPins, PerformanceStats
from botapi.domain.bot_event import EventKind
from botapi.domain.task import OutputPosition, Task, TaskRequest, TaskState, become


class EndedBy(StrEnum):
    """Who says that the run is over."""

    BOT = "bot"
    """The bot's completing task_update."""
    TASK_ERROR = "task_error"
    """The bot reports that it, not the task, failed."""
    ABANDONED = "abandoned"
    """The bot died, or went on to something else."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is said about the end. `duration_s` and `exit_code` come together or not at all.

    `may_run_on_s`: for so long, and its grace, the bot's process may go on with the run,
    since it has not said itself that it is over; 0 when it has, or was silent for long.
    """

    by: EndedBy
    exit_code: int | None = None
    duration_s: float | None = None
    hard_timeout: bool = False
    io_timeout: bool = False
    canceled: bool = False
    cost_usd: float = 0.0
    error: str = ""
    cas_output_root: CasReference | None = None
    cipd_pins: CipdPins | None = None
    missing_cas: tuple[CasReference, ...] = ()
    missing_cipd: tuple[CipdPackage, ...] = ()
    performance: PerformanceStats | None = None
    may_run_on_s: float = 0.0

    @property
    def is_client_error(self) -> bool:
        """Are inputs missing? Then the task's author is to blame, not the bot."""
        return bool(self.missing_cas or self.missing_cipd)


def final_state(task: Task, ending: Ending) -> TaskState:
    """The first matching row of bot-api 5.5."""
    if ending.canceled:
        return TaskState.CANCELED
    if ending.hard_timeout or ending.io_timeout:
        return TaskState.TIMED_OUT
    if task.killing:
        return TaskState.KILLED
    if ending.is_client_error:
        return TaskState.CLIENT_ERROR
    if ending.by is EndedBy.BOT:
        return TaskState.COMPLETED
    return TaskState.BOT_DIED


def finish(task: Task, ending: Ending, output: OutputPosition, server: str, now_ms: int) -> Task:
    """The task as it is for ever, by the hand of a server of this version.

    The caller has made sure that it is RUNNING.
    """
    state = final_state(task, ending)
    is_internal = ending.by is not EndedBy.BOT
    exit_code, duration_s = ending.exit_code, ending.duration_s
    if state is TaskState.CANCELED:
        exit_code = duration_s = None
    elif is_internal or state is TaskState.TIMED_OUT:
        exit_code = -1 if exit_code is None else exit_code
        duration_s = (now_ms - task.started_ms) / 1000 if duration_s is None else duration_s
    is_abandoned = state in {TaskState.BOT_DIED, TaskState.CLIENT_ERROR}
    failure = state is TaskState.TIMED_OUT or (exit_code is not None and exit_code != 0)
    is_reusable = state is TaskState.COMPLETED and not failure and not is_internal
    return become(
        task,
        state,
        now_ms,
        killing=False,
        abandoned_ms=now_ms if is_abandoned else task.abandoned_ms,
        exit_code=exit_code,
        duration_s=duration_s,
        failure=failure,
        internal_failure=is_internal,
        cost_usd=max(task.cost_usd, ending.cost_usd),
        error=ending.error or (task.error if task.stopped_by_policy else ""),
        output_bytes=output.committed,
        missing_bytes=output.missing_bytes,
        server_versions=tuple(sorted({*task.server_versions, server})),
        cas_output_root=ending.cas_output_root,
        cipd_pins=ending.cipd_pins,
        missing_cas=ending.missing_cas,
        missing_cipd=ending.missing_cipd,
        performance=ending.performance,
        properties_hash=task.properties_hash if is_reusable else "",
    )


def end_pending(task: Task, state: TaskState, now_ms: int, error: str = "") -> Task:
    """A task that never ran, as it is for ever (bot-api 5.9, 10.4)."""
    return become(
        task,
        state,
        now_ms,
        abandoned_ms=now_ms,
        internal_failure=state is TaskState.BOT_DIED,
        error=error,
    )


def event_of(task: Task) -> EventKind:
    """The bot's event for a run that the bot itself reported as ended."""
    return EventKind.TASK_KILLED if task.state is TaskState.KILLED else EventKind.TASK_COMPLETED


class Cause(StrEnum):
    """Who is to blame for an end."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    POLICY = "policy"
    OPERATOR = "operator"


_CAUSES = {
    TaskState.TIMED_OUT: Cause.POLICY,
    TaskState.BOT_DIED: Cause.INFRASTRUCTURE,
    TaskState.CANCELED: Cause.OPERATOR,
    TaskState.KILLED: Cause.OPERATOR,
    TaskState.EXPIRED: Cause.INFRASTRUCTURE,
    TaskState.NO_RESOURCE: Cause.INFRASTRUCTURE,
    TaskState.CLIENT_ERROR: Cause.USER,
}


def cause_of(task: Task) -> Cause | None:
    """None while it goes on, and for a success."""
    if task.state is TaskState.COMPLETED:
        return Cause.USER if task.failure else None
    if task.stopped_by_policy and task.state in {TaskState.CANCELED, TaskState.KILLED}:
        return Cause.POLICY
    return _CAUSES.get(task.state)


def deserves_retry(task: Task, request: TaskRequest) -> bool:
    """Did the infrastructure fail it, and may that be tried again by itself?

    Not what somebody stopped, what the task itself did wrong, or what no bot could take.
    """
    return task.state is TaskState.BOT_DIED and request.retry_number < request.max_retries
