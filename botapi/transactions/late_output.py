"""What a bot sends of a run that has ended without it (storage.md 8)."""

from dataclasses import replace

from botapi.domain.task import Task
from botapi.store import codec
from botapi.store.protocol import Doc, Txn

LATE_LIMIT_BYTES = 1024 * 1024
"""Most that is kept of one task; the rest is dropped."""
MAX_LATE_PIECES = 256
"""Most pieces in which it is kept."""
LATE_PIECE_BYTES = 256 * 1024


def stage_late(txn: Txn, known: tuple[Task, Doc], offset: int, data: bytes) -> Task:
    """Keep it beside the result, under its absolute offset; a repeat is kept once.

    The state and the result stay as they are, only `late_bytes` grows.
    """
    task, was = known
    starts = range(0, len(data), LATE_PIECE_BYTES)
    keys = [codec.output_key(task.task_id, offset + at, codec.LATE) for at in starts]
    late, pieces = task.late_bytes, task.late_pieces
    for start, old in zip(starts, txn.get(codec.OUT, *keys) if keys else (), strict=True):
        kept = b"" if old is None else codec.read_output(old)[1]
        piece = data[start : start + LATE_PIECE_BYTES][: len(kept) + LATE_LIMIT_BYTES - late]
        is_full = (old is None and pieces >= MAX_LATE_PIECES) or offset + start > codec.LAST_OFFSET
        if len(piece) <= len(kept) or is_full:
            continue
        late += len(piece) - len(kept)
        pieces += old is None
        txn.put(codec.OUT, codec.output_doc(task.task_id, offset + start, piece, codec.LATE))
    if late == task.late_bytes:
        return task
    after = replace(task, late_bytes=late, late_pieces=pieces)
    txn.put(codec.TASK, codec.task_doc(after, was))
    return after
