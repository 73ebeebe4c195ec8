"""A slice that nobody may claim any more: the next slice, or the end of the task."""

from dataclasses import replace

from botapi.domain.task import Task, TaskRequest, TaskState, check_transition
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn
from botapi.transactions.create_task import EXPIRE, stage_enqueue


def stage_next_slice(
    txn: Txn,
    task: tuple[Task, Doc],
    request: TaskRequest,
    otherwise: TaskState,
    now_ms: int,
    error: str = "",
    culprit: str = "",
) -> Task:
    """Give up the current slice of a PENDING task; `otherwise` is the end after the last one.

    Slices whose deadline has passed too are skipped (bot-api 10.4). `culprit` is the bot
    that is to blame.
    """
    old, was = task
    late_ms = now_ms - request.deadline_ms(len(request.slices) - 1)
    _stage_forget(txn, old, request)
    following = [
        index
        for index in range(old.slice_index + 1, len(request.slices))
        if request.deadline_ms(index) > now_ms
    ]
    if following:
        new = replace(
            old,
            slice_index=following[0],
            pend_key=stage_enqueue(txn, request, following[0]).key,
            modified_ms=now_ms,
        )
    else:
        check_transition(old.state, otherwise)
        new = replace(
            old,
            state=otherwise,
            modified_ms=now_ms,
            completed_ms=now_ms,
            abandoned_ms=now_ms,
            expiration_delay_ms=max(0, late_ms) if otherwise is TaskState.EXPIRED else 0,
            internal_failure=otherwise is TaskState.BOT_DIED,
            bot_id=culprit,
            error=error,
        )
    txn.put(codec.TASK, codec.task_doc(new, was))
    txn.notify(f"task!{old.task_id}")
    return new


def _stage_forget(txn: Txn, task: Task, request: TaskRequest) -> None:
    """Take the current slice out of its queue, with its offer and its timer."""
    txn.delete(codec.PEND, task.pend_key)
    txn.delete(codec.OFFER, codec.task_key(task.task_id))
    due = codec.due_key(request.deadline_ms(task.slice_index), EXPIRE, task.task_id)
    txn.delete(codec.DUE, due)


def expire_slice(store: Store, task_id: str, slice_index: int, now_ms: int) -> Task | None:
    """The slice's time is over: EXPIRED after the last one. None when it was not waiting."""
    key = codec.task_key(task_id)

    def work(txn: Txn) -> Task | None:
        was, req = (*txn.get(codec.TASK, key), *txn.get(codec.REQ, key))
        if was is None or req is None:
            return None
        task, request = codec.read_task(was), codec.read_request(req)
        if task.state is not TaskState.PENDING or task.slice_index != slice_index:
            return None
        if request.deadline_ms(slice_index) > now_ms:
            return None
        return stage_next_slice(
            txn, (task, was), request, TaskState.EXPIRED, now_ms, "no bot took it in time"
        )

    return store.transact(work, label="expire_slice")
