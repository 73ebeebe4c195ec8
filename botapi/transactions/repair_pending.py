"""What should never be needed: a PENDING task that stands in no queue is put back."""

from botapi.domain.task import TaskState
from botapi.store import codec
from botapi.store.protocol import Store, Txn
from botapi.transactions.create_task import stage_enqueue


def repair_pending(store: Store, task_id: str, now_ms: int) -> bool:
    """Queue the task's current slice again if it has neither queue entry nor offer."""
    key = codec.task_key(task_id)

    def work(txn: Txn) -> bool:
        was, req, offer = (
            *txn.get(codec.TASK, key),
            *txn.get(codec.REQ, key),
            *txn.get(codec.OFFER, key),
        )
        if was is None or req is None or offer is not None:
            return False
        task = codec.read_task(was)
        if task.state is not TaskState.PENDING or txn.get(codec.PEND, task.pend_key)[0]:
            return False
        stage_enqueue(txn, codec.read_request(req), task.slice_index, now_ms)
        return True

    return store.transact(work, label="repair_pending")
