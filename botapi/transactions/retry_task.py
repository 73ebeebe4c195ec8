"""The automatic retry: what the infrastructure failed is made anew, once, as another task."""

from dataclasses import replace

from botapi.domain.completion import deserves_retry
from botapi.domain.task import Task, TaskRequest
from botapi.store import codec
from botapi.store.protocol import Key, Store, Txn
from botapi.transactions.create_task import ParentEnded, TaskIdTaken, stage_new


def retry_task(store: Store, task_id: str, new_id: str, due: Key, now_ms: int) -> Task | None:
    """The new task; None when there is nothing to retry (any more).

    The task names its retry in the same transaction that makes it, so that there is one
    however often this runs; the timer `due` goes with it. Raises TaskIdTaken.
    """
    key, new_key = codec.task_key(task_id), codec.task_key(new_id)

    def work(txn: Txn) -> Task | None:
        was, req = (*txn.get(codec.TASK, key), *txn.get(codec.REQ, key))
        txn.delete(codec.DUE, due)
        if was is None or req is None:
            return None
        task, request = codec.read_task(was), codec.read_request(req)
        if task.retried_as:
            (made,) = txn.get(codec.TASK, codec.task_key(task.retried_as))
            return codec.read_task(made) if made and task.retried_as == new_id else None
        if not deserves_retry(task, request):
            return None
        if txn.get(codec.REQ, new_key) != [None]:
            raise TaskIdTaken(new_id)
        again = again_after(request, new_id, now_ms)
        try:
            made_task = stage_new(txn, again, codec.request_doc(again))
        except ParentEnded:
            return None
        txn.put(codec.TASK, codec.task_doc(replace(task, retried_as=new_id), was))
        return made_task

    return store.transact(work, label="retry_task")


def again_after(request: TaskRequest, new_id: str, now_ms: int) -> TaskRequest:
    """The same request as a task of its own, whose time begins now."""
    return replace(
        request,
        task_id=new_id,
        created_ms=now_ms,
        request_uuid="",
        retry_of=request.task_id,
        retry_number=request.retry_number + 1,
    )
