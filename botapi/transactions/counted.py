"""What transactions do to tasks, for the metrics: counted once, when they have committed."""

from collections.abc import Iterator
from functools import partial

from botapi import metrics
from botapi.domain.artifacts import IsolatedStats, PerformanceStats
from botapi.domain.task import Task, TaskState

S = TaskState

_CAUSES = {
    S.TIMED_OUT: "timeout",
    S.BOT_DIED: "bot",
    S.EXPIRED: "expiration",
    S.NO_RESOURCE: "no_bot",
    S.CLIENT_ERROR: "input",
}


def cause_of(task: Task) -> str:
    """Why a final task is what it is, in one word of few."""
    if task.deduped_from:
        return "deduplication"
    if task.state is S.COMPLETED:
        return "failure" if task.failure else "success"
    if task.state in {S.CANCELED, S.KILLED}:
        return "policy" if task.stopped_by_policy else "wish"
    return _CAUSES.get(task.state, metrics.OTHER)


def count_made(task: Task) -> None:
    """A task was made; one with an earlier result has ended as well."""
    metrics.after_commit(metrics.TASKS_CREATED[metrics.pool_label(task.pool),].inc)
    if task.is_final:
        count_end(task)


def count_claim(task: Task) -> None:
    """A run began."""
    waited_s = max(0.0, (task.started_ms - task.created_ms) / 1000)
    pool = metrics.pool_label(task.pool)
    metrics.after_commit(partial(metrics.TASK_PENDING[pool,].observe, waited_s))


def count_end(task: Task) -> None:
    """A task ended."""
    metrics.after_commit(partial(_ended, task))


def _ended(task: Task) -> None:
    pool = metrics.pool_label(task.pool)
    metrics.TASKS_COMPLETED[pool, task.state, cause_of(task)].inc()
    if task.started_ms and not task.deduped_from:
        ran_s = max(0.0, (task.completed_ms - task.started_ms) / 1000)
        metrics.TASK_DURATION[pool,].observe(ran_s)
    if task.performance is not None:
        for phase, seconds in _phases(task.performance):
            metrics.TASK_OVERHEAD[phase,].observe(seconds)


def _phases(said: PerformanceStats) -> Iterator[tuple[str, float]]:
    """What a bot did beside the command, in seconds; `all` is the whole of it."""
    yield "all", max(0.0, said.bot_overhead)
    moved = said.isolated or IsolatedStats()
    parts = {"cache_trim": said.cache_trim, "cleanup": said.cleanup}
    took = {phase: part.duration for phase, part in parts.items() if part is not None}
    files = {"download": moved.download, "upload": moved.upload}
    took |= {phase: part.duration for phase, part in files.items() if part is not None}
    for phase, seconds in took.items():
        if seconds is not None:
            yield phase, max(0.0, seconds)
