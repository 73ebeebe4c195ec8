"""What a run wrote after its end: kept for diagnosis, never part of the result."""

from botapi.api.parts import ApiParts
from botapi.api.tasks import canonical, stored
from botapi.api.views import Output
from botapi.store import codec
from botapi.transactions.late_output import MAX_LATE_PIECES


def read_late(parts: ApiParts, task_id: str, offset: int, limit: int) -> Output:
    """The late pieces one after the other, from `offset` on; gaps between them are not shown.

    Raises Refusal NOT_FOUND for a task that does not exist.
    """
    task = stored(parts, canonical(task_id))
    found = bytearray()
    if task.late_bytes:
        docs = parts.store.scan(codec.OUT, *codec.late_range(task.task_id), limit=MAX_LATE_PIECES)
        end = 0
        for begins, data in map(codec.read_output, docs):
            found += data[max(0, end - begins) :]
            end = max(end, begins + len(data))
    data = bytes(found[offset : offset + limit])
    is_all = task.is_final and offset + len(data) >= len(found)
    return Output(offset, data, str(task.state), is_all)
