"""A new task: request, state, first pending slice, timer and request uuid, all or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from botapi import __version__
from botapi.domain.deduplication import finished_as, is_usable
from botapi.domain.matching import Queue, queue_of, shard
from botapi.domain.task import PendingSlice, Task, TaskRequest, TaskState
from botapi.store import codec
from botapi.store.documents import pack
from botapi.store.protocol import Doc, Key, ReadTxn, Store, Txn, join_key
from botapi.transactions.counted import count_made
from botapi.transactions.follow_up import CHILDREN, stage_now

DEDUP_KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a request uuid is remembered (bot-api 10.5)."""
Also = Callable[[Txn, Task], None]
"""More writes of the same transaction, the audit entry for one; may run twice."""
EXPIRE = "expire"
"""The timer of a slice's expiration."""
QUEUE_MARK_MS = 24 * 3600 * 1000
"""How exactly it is known when a queue was last used."""


class ParentEnded(Exception):
    """The parent has ended, or is not there: nothing is started for it any more."""


class TaskIdTaken(Exception):
    """Another task has this id: draw a new one and try again."""


@dataclass(frozen=True, slots=True)
class Created:
    """`is_new` is False when the request uuid had made this task before."""

    task: Task
    is_new: bool


@dataclass(frozen=True, slots=True)
class Original:
    """A finished task that was found to have the properties asked for (bot-api 10.5).

    It counts if it still has them when the new task is stored, and was created at
    `oldest_ms` or later.
    """

    task_id: str
    properties_hash: str
    oldest_ms: int


def pending_slice(request: TaskRequest, index: int, retry_count: int = 0) -> PendingSlice:
    """The queue entry of slice `index`."""
    dimensions = request.slices[index].dimensions
    queue_key = codec.queue_key(queue_of(dimensions))
    return PendingSlice(
        key=codec.pend_key(queue_key, request),
        queue_key=queue_key,
        task_id=request.task_id,
        slice_index=index,
        priority=request.priority,
        created_ms=request.created_ms,
        shard=shard(dimensions),
        retry_count=retry_count,
        waits_for_capacity=request.slices[index].wait_for_capacity,
    )


def stage_enqueue(txn: Txn, request: TaskRequest, index: int, now_ms: int) -> PendingSlice:
    """Make slice `index` claimable, with its timer, and wake whoever waits for such work."""
    pending = pending_slice(request, index)
    stage_queue(txn, queue_of(request.slices[index].dimensions), now_ms)
    txn.put(codec.PEND, codec.pend_doc(pending))
    due = codec.due_key(request.deadline_ms(index), EXPIRE, request.task_id)
    txn.put(codec.DUE, Doc(due, {"slice_index": index}))
    txn.notify(f"pend!{pending.queue_key}")
    return pending


def stage_queue(txn: Txn, queue: Queue, now_ms: int) -> None:
    """Have the queue there, marked as used today, inside a transaction that fills it.

    Whoever removes a queue reads the mark: it cannot be removed and filled at once.
    """
    key = codec.queue_key(queue)
    (known,) = txn.get(codec.QUEUE, key)
    if known is None or now_ms - codec.queue_used_ms(known) > QUEUE_MARK_MS:
        txn.put(codec.QUEUE, codec.queue_doc(queue, now_ms, known))


def stage_child(txn: Txn, parent_run_id: str, now_ms: int) -> None:
    """Tell the parent, inside the transaction that makes its child, that it has one.

    Parent and child meet in the parent's record: either the child is there when the
    parent's end looks for children, or it is refused here. The look of a kill may be over
    while the parent still runs: then it is had once more. Raises ParentEnded.
    """
    key = codec.task_key(parent_run_id)
    (was,) = txn.get(codec.TASK, key)
    parent = None if was is None else codec.read_task(was)
    if parent is None or parent.is_final:
        raise ParentEnded(parent_run_id)
    if not parent.has_children:
        txn.put(codec.TASK, codec.task_doc(replace(parent, has_children=True), was))
    if parent.killing:
        stage_now(txn, CHILDREN, parent.task_id, now_ms, {})


def create_task(
    store: Store,
    request: TaskRequest,
    *,
    request_uuid: str,
    nonce: str = "",
    original: Original | None = None,
    also: Also | None = None,
) -> Created:
    """Store the task as PENDING on its first slice, or finished as the `original` is.

    The same caller and request uuid within seven days gives the first task, whatever the
    new request says. `nonce` tells a repeat of this very call from another call that drew
    the same id for an equal request. Raises TaskIdTaken, ParentEnded.
    """
    wanted = codec.request_doc(request)
    if nonce:
        wanted = replace(wanted, body={**wanted.body, "nonce": nonce})

    def work(txn: Txn) -> Created:
        known = _seen(txn, request.authenticated, request_uuid, request.created_ms)
        (there,) = txn.get(codec.REQ, wanted.key)
        task_was, *first = txn.get(codec.TASK, wanted.key, *_keys(original))
        is_same = there is not None and pack(there).body == pack(wanted).body
        if known is not None and not (nonce and is_same):
            return Created(known, is_new=False)
        if there is not None and task_was is not None:
            if not is_same:
                raise TaskIdTaken(request.task_id)
            return Created(codec.read_task(task_was), is_new=True)
        task = _finished_at_once(request, original, first) if original else None
        task = stage_new(txn, request, wanted, task)
        if request_uuid:
            _remember(txn, request, request_uuid)
        if also is not None:
            also(txn, task)
        return Created(task, is_new=True)

    return store.transact(work, label="create_task")


def created_before(store: Store, authenticated: str, request_uuid: str, now_ms: int) -> Task | None:
    """The task that this caller made with this request uuid within seven days."""
    return _seen(store, authenticated, request_uuid, now_ms)


def _seen(reads: ReadTxn, authenticated: str, request_uuid: str, now_ms: int) -> Task | None:
    if not request_uuid:
        return None
    (seen,) = reads.get(codec.DEDUP, _dedup_key(authenticated, request_uuid))
    if seen is None or seen.body["until_ms"] <= now_ms:
        return None
    (doc,) = reads.get(codec.TASK, codec.task_key(seen.body["task_id"]))
    return None if doc is None else codec.read_task(doc)


def _dedup_key(authenticated: str, request_uuid: str) -> Key:
    return join_key("rid", authenticated, request_uuid)


def find_original(store: Store, request: TaskRequest, oldest_ms: int) -> Original | None:
    """For each idempotent slice, in order: the newest task of its properties, if it counts."""
    for wanted_hash in dict.fromkeys(slice_.properties_hash for slice_ in request.slices):
        if wanted_hash:
            tag = codec.properties_tag(wanted_hash)
            for doc in store.find(codec.TASK, [frozenset({tag})], after=None, limit=1).docs:
                if is_usable(codec.read_task(doc), wanted_hash, oldest_ms):
                    task_id = codec.read_task(doc).task_id
                    return Original(task_id, wanted_hash, oldest_ms)
    return None


def _keys(original: Original | None) -> list[Key]:
    return [] if original is None else [codec.task_key(original.task_id)]


def _finished_at_once(
    request: TaskRequest, original: Original, docs: Sequence[Doc | None]
) -> Task | None:
    """The task with the original's result; None when that is gone or does not count any more."""
    found = [codec.read_task(doc) for doc in docs if doc is not None]
    if found and is_usable(found[0], original.properties_hash, original.oldest_ms):
        return finished_as(_new_task(request), found[0])
    return None


def stage_new(txn: Txn, request: TaskRequest, wanted: Doc, finished: Task | None = None) -> Task:
    """A task that waits in the queue of its first slice, or `finished`. Raises ParentEnded."""
    if request.parent_task_id:
        stage_child(txn, request.parent_task_id, request.created_ms)
    task = finished
    if task is None:
        pending = stage_enqueue(txn, request, 0, request.created_ms)
        task = replace(_new_task(request), pend_key=pending.key)
    txn.put(codec.REQ, wanted)
    txn.put(codec.TASK, codec.task_doc(task))
    count_made(task)
    return task


def _new_task(request: TaskRequest) -> Task:
    return Task(
        task_id=request.task_id,
        state=TaskState.PENDING,
        name=request.name,
        user=request.user,
        pool=request.slices[0].pool,
        priority=request.priority,
        tags=request.tags,
        created_ms=request.created_ms,
        modified_ms=request.created_ms,
        server_versions=(__version__,),
        retry_of=request.retry_of,
    )


def _remember(txn: Txn, request: TaskRequest, request_uuid: str) -> None:
    until = request.created_ms + DEDUP_KEEP_MS
    body = {"task_id": request.task_id, "until_ms": until}
    dedup_key = _dedup_key(request.authenticated, request_uuid)
    txn.put(codec.DEDUP, Doc(dedup_key, body, expire_at=until))
