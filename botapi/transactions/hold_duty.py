"""A duty that one process has at a time, with a number that grows at each change of hands."""

from dataclasses import dataclass

from botapi.store import codec, schema
from botapi.store.protocol import Doc, Store, Txn, join_key


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of a duty, for transactions that rest on what was seen before them."""

    name: str
    holder: str
    number: int


def is_held(txn: Txn, fence: Fence, now_ms: int) -> bool:
    """Is the duty still in the same hands, without a break? Read inside the transaction."""
    (doc,) = txn.get(codec.DUTY, join_key(fence.name))
    return (
        doc is not None
        and doc.body["holder"] == fence.holder
        and doc.body["fence"] == fence.number
        and doc.body["until_ms"] > now_ms
    )


def hold_duty(store: Store, name: str, holder: str, *, now_ms: int, for_ms: int) -> int | None:
    """Take or keep the duty until now + `for_ms`; its fencing number, None when another has it."""

    def work(txn: Txn) -> int | None:
        (was,) = txn.get(codec.DUTY, join_key(name))
        fence = 1
        if was is not None:
            fence = int(was.body["fence"])
            is_over = was.body["until_ms"] <= now_ms
            if was.body["holder"] != holder and not is_over:
                return None
            fence += is_over
        body = {"holder": holder, "until_ms": now_ms + for_ms, "fence": fence}
        txn.put(codec.DUTY, Doc(join_key(name), schema.body(body, was)))
        return fence

    return store.transact(work, label="hold_duty")


def leave_duty(store: Store, name: str, holder: str) -> None:
    """Give the duty up, so that another process need not wait for its end."""

    def work(txn: Txn) -> None:
        (was,) = txn.get(codec.DUTY, join_key(name))
        if was is not None and was.body["holder"] == holder:
            txn.put(codec.DUTY, Doc(was.key, {**was.body, "until_ms": 0}))

    store.transact(work, label="leave_duty")
