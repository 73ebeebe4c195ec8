"""A queue that nobody has put anything into for long, and that holds nothing, goes."""

from botapi.store import codec
from botapi.store.protocol import Key, Store, Txn


def delete_queue(store: Store, key: Key, unused_since_ms: int) -> bool:
    """Remove it unless it was filled after that time; the caller has seen that it is empty.

    Whoever fills it marks it in the same transaction (`stage_queue`), so that one of the
    two sees the other.
    """

    def work(txn: Txn) -> bool:
        (doc,) = txn.get(codec.QUEUE, key)
        if doc is None or codec.queue_used_ms(doc) > unused_since_ms:
            return False
        txn.delete(codec.QUEUE, key)
        return True

    return store.transact(work, label="delete_queue")
