"""A slice that no known bot could ever run gives way (bot-api 10.4)."""

from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.protocol import Store, Txn
from botapi.transactions.expire_slice import stage_next_slice
from botapi.transactions.hold_duty import Fence, is_held


def skip_slice(
    store: Store, task_id: str, slice_index: int, now_ms: int, fence: Fence
) -> Task | None:
    """The next slice, or NO_RESOURCE after the last one.

    None when the slice is not waiting any more, is offered to a bot, or says itself that it
    waits for capacity; also when the duty has changed hands since the caller looked at the
    bots, because there may be one by now.
    """
    key = codec.task_key(task_id)

    def work(txn: Txn) -> Task | None:
        was, req, offer = (
            *txn.get(codec.TASK, key),
            *txn.get(codec.REQ, key),
            *txn.get(codec.OFFER, key),
        )
        if was is None or req is None or offer is not None or not is_held(txn, fence, now_ms):
            return None
        task, request = codec.read_task(was), codec.read_request(req)
        if task.state is not TaskState.PENDING or task.slice_index != slice_index:
            return None
        if request.slices[slice_index].wait_for_capacity:
            return None
        error = "no known bot has the dimensions that it asks for"
        return stage_next_slice(txn, (task, was), request, TaskState.NO_RESOURCE, now_ms, error)

    return store.transact(work, label="skip_slice")
