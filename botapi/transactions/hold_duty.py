"""A duty that one process has at a time, with a number that grows at each change of hands."""

from botapi.store import codec
from botapi.store.protocol import SCHEMA_NUMBER, Doc, Store, Txn, join_key


def hold_duty(store: Store, name: str, holder: str, *, now_ms: int, for_ms: int) -> int | None:
    """Take or keep the duty until now + `for_ms`; its fencing number, None when another has it."""

    def work(txn: Txn) -> int | None:
        (was,) = txn.get(codec.DUTY, join_key(name))
        fence = 1
        if was is not None:
            fence = int(was.body["fence"])
            if was.body["holder"] != holder:
                if was.body["until_ms"] > now_ms:
                    return None
                fence += 1
        body = {
            "holder": holder,
            "until_ms": now_ms + for_ms,
            "fence": fence,
            "v": SCHEMA_NUMBER,
        }
        txn.put(codec.DUTY, Doc(join_key(name), body))
        return fence

    return store.transact(work, label="hold_duty")


def leave_duty(store: Store, name: str, holder: str) -> None:
    """Give the duty up, so that another process need not wait for its end."""

    def work(txn: Txn) -> None:
        (was,) = txn.get(codec.DUTY, join_key(name))
        if was is not None and was.body["holder"] == holder:
            txn.put(codec.DUTY, Doc(was.key, {**was.body, "until_ms": 0}))

    store.transact(work, label="leave_duty")
