"""The end of a run: the only place where a RUNNING task becomes final."""

from dataclasses import dataclass, replace

from botapi import __version__
from botapi.domain.completion import Ending, finish
from botapi.domain.task import OutputPosition, Task, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Txn


@dataclass(frozen=True, slots=True)
class Finished:
    """`task` as it is now; `changed` is False when it had ended before."""

    task: Task
    changed: bool


def stage_finish(
    txn: Txn,
    task_id: str,
    ending: Ending,
    now_ms: int,
    position: tuple[OutputPosition, Doc | None] | None = None,
) -> Finished | None:
    """Finish the run inside somebody's transaction; None when there is no such task.

    `position` is the output position that the same transaction is about to store; without
    it the stored one is read. Finishing a finished task changes nothing and is no error.
    """
    (was,) = txn.get(codec.TASK, codec.task_key(task_id))
    if was is None:
        return None
    task = codec.read_task(was)
    if task.state is not TaskState.RUNNING:
        return Finished(task, changed=False)
    if position is None:
        (doc,) = txn.get(codec.OUTPOS, codec.output_position_key(task_id))
        position = (codec.read_output_position(doc), doc)
    reached, position_was = position
    task = replace(
        finish(task, ending, now_ms),
        output_bytes=reached.committed,
        missing_bytes=reached.missing_bytes,
        server_versions=tuple(sorted({*task.server_versions, __version__})),
    )
    txn.put(codec.TASK, codec.task_doc(task, was))
    txn.put(
        codec.OUTPOS,
        codec.output_position_doc(task_id, replace(reached, sealed=True), position_was),
    )
    txn.notify(f"task!{task.task_id}")
    return Finished(task, changed=True)
