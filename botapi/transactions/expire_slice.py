"""A slice that nobody may claim any more: the next slice, or the end of the task."""

from dataclasses import replace

from botapi.domain.task import Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn
from botapi.transactions.create_task import stage_enqueue
from botapi.transactions.end_pending import stage_end_pending, stage_forget_slice


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
    following = [
        index
        for index in range(old.slice_index + 1, len(request.slices))
        if request.deadline_ms(index) > now_ms
    ]
    if not following:
        late_ms = now_ms - request.deadline_ms(len(request.slices) - 1)
        delay_ms = max(0, late_ms) if otherwise is TaskState.EXPIRED else 0
        facts = {"bot_id": culprit, "expiration_delay_ms": delay_ms}
        return stage_end_pending(txn, task, request, otherwise, now_ms, error, **facts)
    stage_forget_slice(txn, old, request)
    new = replace(
        old,
        slice_index=following[0],
        pend_key=stage_enqueue(txn, request, following[0], now_ms).key,
        modified_ms=now_ms,
    )
    txn.put(codec.TASK, codec.task_doc(new, was))
    txn.notify(f"task!{old.task_id}")
    return new


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
