"""The end of retention: a finished task goes with everything that belongs to it."""

from collections.abc import Sequence

from botapi.store import codec
from botapi.store.protocol import Key, Store, Txn


def delete_output(store: Store, keys: Sequence[Key]) -> None:
    """Remove pieces of output, a bounded number at a time."""

    def work(txn: Txn) -> None:
        for key in keys:
            txn.delete(codec.OUT, key)

    store.transact(work, label="delete_output")


def delete_task(store: Store, key: Key) -> bool:
    """Remove request, state and output position of a final task; False while it goes on."""

    def work(txn: Txn) -> bool:
        (doc,) = txn.get(codec.TASK, key)
        if doc is None:
            return True
        task = codec.read_task(doc)
        if not task.is_final:
            return False
        txn.delete(codec.TASK, key)
        txn.delete(codec.REQ, key)
        txn.delete(codec.OUTPOS, codec.output_position_key(task.task_id))
        for column in codec.RunTime if task.started_ms else ():
            txn.delete(codec.RUN_TIME, codec.run_time_key(task, column))
        return True

    return store.transact(work, label="delete_task")


def forget_due(store: Store, key: Key) -> None:
    """Remove a timer that has nothing to do any more."""

    def work(txn: Txn) -> None:
        txn.delete(codec.DUE, key)

    store.transact(work, label="forget_due")
