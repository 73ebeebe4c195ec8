"""A task's output, from any offset, without a gap."""

from botapi.api.parts import ApiParts
from botapi.api.tasks import canonical, stored
from botapi.api.views import Output
from botapi.store import codec
from botapi.store.walk import key_after

MAX_BYTES = 1_048_576
PIECES_AT_ONCE = 64


def read_output(
    parts: ApiParts, task_id: str, offset: int, limit: int = MAX_BYTES, wait_s: float = 0.0
) -> Output:
    """Bytes from `offset` on, at most `limit`; held while there is nothing new.

    The state is read before the bytes, so that `final` is never said too early.
    """
    task_id = canonical(task_id)
    if wait_s:
        parts.waits.until([task_id], wait_s, lambda _changed: _has_news(parts, task_id, offset))
    task = stored(parts, task_id)
    data = stored_output(parts, task.output_task_id, offset, limit) if limit else b""
    is_all = offset + len(data) >= task.output_bytes or (
        bool(task.deduped_from) and len(data) < limit  # retention may take the original first
    )
    is_all = task.is_final and is_all
    return Output(offset, data, str(task.state), is_all)


def _has_news(parts: ApiParts, task_id: str, offset: int) -> bool:
    if stored(parts, task_id).is_final:
        return True
    return stored_bytes(parts, task_id) > offset


def stored_bytes(parts: ApiParts, task_id: str) -> int:
    """How many bytes of the output are stored."""
    (doc,) = parts.store.get(codec.OUTPOS, codec.output_position_key(task_id))
    return codec.read_output_position(doc).committed


def stored_output(parts: ApiParts, task_id: str, offset: int, limit: int) -> bytes:
    """What is stored without a gap from `offset` on: all of it, up to `limit` bytes."""
    lo, hi = codec.output_range(task_id)
    at = codec.output_key(task_id, min(offset, codec.LAST_OFFSET))
    start = parts.store.scan_keys(codec.OUT, lo, key_after(at), limit=1, reverse=True)
    if not start:
        return b""
    found = bytearray()
    key = start[0]
    while len(found) < limit:
        docs = parts.store.scan(codec.OUT, key, hi, limit=PIECES_AT_ONCE)
        for doc in docs:
            begins, data = codec.read_output(doc)
            skipped = offset + len(found) - begins
            if skipped < 0:
                return bytes(found[:limit])
            found += data[skipped:]
        if len(docs) < PIECES_AT_ONCE:
            break
        key = key_after(docs[-1].key)
    return bytes(found[:limit])
