"""The end of a run: the only place where a RUNNING task becomes final."""

from dataclasses import dataclass, replace

from botapi import __version__
from botapi.domain.completion import Ending, finish
from botapi.domain.task import OutputPosition, Task, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Txn
from botapi.transactions.counted import count_end
from botapi.transactions.follow_up import stage_after_end


@dataclass(frozen=True, slots=True)
class Finished:
    """`task` as it is now; `changed` is False when it had ended before."""

    task: Task
    changed: bool


def stage_finish(txn: Txn, task_id: str, ending: Ending, now_ms: int) -> Finished | None:
    """Finish the run inside somebody's transaction; None when there is no such task."""
    (doc,) = txn.get(codec.TASK, codec.task_key(task_id))
    if doc is None:
        return None
    return stage_end(txn, (codec.read_task(doc), doc), ending, now_ms)


def stage_end(
    txn: Txn,
    known: tuple[Task, Doc],
    ending: Ending,
    now_ms: int,
    position: tuple[OutputPosition, Doc | None] | None = None,
) -> Finished:
    """Finish the run of a task that this transaction has read.

    `position` is the output position that the same transaction is about to store; without
    it the stored one is read. Finishing a finished task changes nothing and is no error.
    """
    task, was = known
    if task.state is not TaskState.RUNNING:
        return Finished(task, changed=False)
    if position is None:
        (doc,) = txn.get(codec.OUTPOS, codec.output_position_key(task.task_id))
        position = (codec.read_output_position(doc), doc)
    reached, position_was = position
    task = finish(task, ending, reached, __version__, now_ms)
    sealed = replace(reached, sealed=True)
    txn.put(codec.TASK, codec.task_doc(task, was))
    txn.put(codec.RUN_TIME, codec.run_time_doc(task, codec.RunTime.COMPLETED))
    txn.put(codec.OUTPOS, codec.output_position_doc(task.task_id, sealed, position_was))
    txn.notify(f"task!{task.task_id}")
    stage_after_end(txn, task, now_ms, ending.may_run_on_s)
    count_end(task)
    return Finished(task, changed=True)
