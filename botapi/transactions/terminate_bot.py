"""Ask a bot to exit when it has finished what it does: a task of a special shape (bot-api 10.6)."""

from dataclasses import replace

from botapi.domain.task import Slice, TaskRequest
from botapi.domain.task_tags import termination_tags
from botapi.store import codec
from botapi.store.protocol import Doc, Key, Store, Txn, join_key
from botapi.transactions.cancel_task import Actor
from botapi.transactions.create_task import Created, TaskIdTaken, stage_new

EXPIRATION_S = 5 * 24 * 3600
"""How long it waits for its bot."""


def termination_request(
    bot_id: str, task_id: str, *, caller: str, reason: str, instance: str, now_ms: int
) -> TaskRequest:
    """The task that makes this bot exit. `reason` is one line; `instance` names its scheduler."""
    only = Slice(
        command=(),
        dimensions={"id": (bot_id,)},
        expiration_s=EXPIRATION_S,
        hard_timeout_s=0,
        grace_period_s=0,
    )
    request = TaskRequest(
        task_id=task_id,
        name=f"Terminate {bot_id}: {reason}" if reason else f"Terminate {bot_id}",
        priority=0,
        user="",
        authenticated=caller,
        tags=(),
        slices=(only,),
        created_ms=now_ms,
    )
    tags = {*termination_tags(request), f"rbe:{instance or 'none'}"}
    return replace(request, tags=tuple(sorted(tags)))


def terminate_bot(store: Store, request: TaskRequest, actor: Actor) -> Created:
    """Store it, unless this bot has one that has not ended: then that one.

    Whether there is such a bot is not asked. Raises TaskIdTaken.
    """
    (bot_id,) = request.slices[0].dimensions["id"]
    wanted = codec.request_doc(request)
    last = _last_key(bot_id)

    def work(txn: Txn) -> Created:
        known, there = (*txn.get(codec.DEDUP, last), *txn.get(codec.REQ, wanted.key))
        if known is not None:
            (was,) = txn.get(codec.TASK, codec.task_key(known.body["task_id"]))
            task = None if was is None else codec.read_task(was)
            if task is not None and (not task.is_final or task.task_id == request.task_id):
                is_new = task.task_id == request.task_id
                return Created(task, is_new=is_new)
        if there is not None:
            raise TaskIdTaken(request.task_id)
        made = stage_new(txn, request, wanted)
        expire_at = request.deadline_ms(0) + codec.AUDIT_KEEP_MS
        txn.put(codec.DEDUP, Doc(last, {"task_id": request.task_id}, expire_at=expire_at))
        txn.put(
            codec.AUDIT,
            codec.audit_doc(
                at_ms=request.created_ms,
                entry_id=actor.entry_id,
                actor=actor.name,
                verb="bot.terminate",
                target=f"bot {bot_id}",
                reason=actor.reason,
                before="",
                after=request.task_id,
            ),
        )
        return Created(made, is_new=True)

    return store.transact(work, label="terminate_bot")


def _last_key(bot_id: str) -> Key:
    """Where the latest termination task of a bot is named."""
    return join_key("terminate", bot_id)
