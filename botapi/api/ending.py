"""What people end: many tasks at once, a bot's work, a bot; and tasks that are made anew."""

from dataclasses import dataclass, replace

import msgspec

from botapi.api import access, cursors, queries
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.queries import refuse
from botapi.api.task_queries import TaskFilter, find_tasks
from botapi.clock import DAY_MS
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import MAX_DRAWS, bot_id_problem, new_request_id, task_id
from botapi.domain.permissions import Caller, Permission
from botapi.domain.task import TaskState
from botapi.store import codec
from botapi.store.protocol import Key
from botapi.transactions.cancel_task import Actor, CancelBatch, queue_cancels
from botapi.transactions.create_task import Created, TaskIdTaken
from botapi.transactions.delete_bot import delete_bot
from botapi.transactions.terminate_bot import terminate_bot, termination_request
from botapi.transactions.update_bot import Stamp

BOT_ID_CHARS = 80


class CancelManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /tasks/cancel`."""

    tags: list[str]
    kill_running: bool = False
    start: str = ""
    end: str = ""
    limit: int = queries.DEFAULT_LIMIT
    cursor: str = ""
    reason: str = ""


class WhyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /bots/<id>/terminate`."""

    reason: str = ""


CANCEL_MANY_BODY = Body(CancelManyBody)
WHY_BODY = Body(WhyBody)


@dataclass(frozen=True, slots=True)
class Queued:
    """`matched` tasks will be canceled, `last` is the key of the last of them.

    `after` is where the next call goes on, None at the end.
    """

    matched: int
    last: Key
    after: Key | None


def cancel_many(
    parts: ApiParts,
    caller: Caller,
    asked: TaskFilter,
    *,
    limit: int,
    after: Key | None,
    kill_running: bool,
    reason: str,
) -> Queued:
    """Have up to `limit` tasks of the filter canceled soon; returns at once (prpc-api 6.6).

    PENDING ones, with `kill_running` also RUNNING ones; newest first, behind the key `after`.
    What was queued is done even if this process ends now. The caller of this function has
    checked permission, limit, cursor and reason.
    """
    states = {TaskState.PENDING, TaskState.RUNNING} if kill_running else {TaskState.PENDING}
    wanted = replace(asked, states=frozenset(states))
    found, onward = find_tasks(parts, wanted, after=after, limit=limit)
    if found:
        batch = CancelBatch(
            task_ids=tuple(task.task_id for task in found),
            kill_running=kill_running,
            actor=caller.name,
            reason=reason,
            entry_id=parts.new_id(),
            asked_ms=parts.clock.now_ms(),
        )
        queue_cancels(parts.store, batch)
    last = codec.task_key(found[-1].task_id) if found else ""
    return Queued(len(found), last, onward)


def cancel_tasks(parts: ApiParts, caller: Caller, body: CancelManyBody) -> Json:
    """`POST /tasks/cancel`. Raises Refusal INVALID_ARGUMENT, PERMISSION_DENIED."""
    if not 1 <= body.limit <= queries.MAX_LIMIT:
        raise refuse("/limit", f"is {body.limit}, not from 1 to {queries.MAX_LIMIT}")
    if not body.tags:
        raise refuse("/tags", "is empty; name at least one key:value")
    if len(body.tags) > queries.MAX_ALTERNATIVES:
        raise refuse("/tags", f"has {len(body.tags)} entries, at most {queries.MAX_ALTERNATIVES}")
    for index, tag in enumerate(body.tags):
        if ":" not in tag:
            raise refuse(f"/tags/{index}", f'"{tag[:80]}" has no colon; write key:value')
    reason = queries.reason(body.reason)
    pools = [tag.removeprefix("pool:") for tag in body.tags if tag.startswith("pool:")]
    access.check_pools(caller, Permission.CANCEL_TASK, pools)
    query: Query = {
        "tag": body.tags,
        "start": [body.start],
        "end": [body.end],
        "kill": [str(body.kill_running)],
        "cursor": [body.cursor],
    }
    done = cancel_many(
        parts,
        caller,
        TaskFilter(
            tags=tuple(frozenset({tag}) for tag in body.tags),
            start_ms=queries.time_ms(query, "start"),
            end_ms=queries.time_ms(query, "end"),
        ),
        limit=body.limit,
        after=cursors.read_cursor(parts, "cancel", query),
        kill_running=body.kill_running,
        reason=reason,
    )
    onward = cursors.next_cursor(parts, "cancel", query, done.after)
    return {"matched": done.matched, "next_cursor": onward}


def terminate(parts: ApiParts, caller: Caller, bot_id: str, reason: str) -> Created:
    """Ask this bot to exit, once: the task that does, or the one on its way (bot-api 10.6).

    Whether there is such a bot is not asked; the caller of this function has checked
    permission. Raises Refusal INVALID_ARGUMENT.
    """
    problem = bot_id_problem(bot_id)
    if problem:
        raise refuse("/bot_id", problem)
    reason = one_line(reason)
    instances = {
        pool.rbe_instance
        for name in access.pools_of_bot(parts, bot_id)
        if (pool := parts.config.cached().pools.pool(name)) is not None
    } - {""}
    for _ in range(MAX_DRAWS):
        now_ms = parts.clock.now_ms()
        request = termination_request(
            bot_id,
            task_id(new_request_id(now_ms, parts.rng.randbits(16))),
            caller=caller.identity,
            reason=reason,
            instance=min(instances, default=""),
            now_ms=now_ms,
        )
        try:
            return terminate_bot(parts.store, request, Actor(caller.name, reason, parts.new_id()))
        except TaskIdTaken:
            continue
    raise Refusal(Code.RESOURCE_EXHAUSTED, "no free task id in this moment; try again")


def delete(parts: ApiParts, caller: Caller, bot_id: str, reason: str) -> None:
    """Forget this bot (bot-api 10.6). Raises Refusal NOT_FOUND, INVALID_ARGUMENT.

    The caller of this function has checked permission.
    """
    now_ms = parts.clock.now_ms()
    keep_ms = parts.settings.event_retention_days * DAY_MS
    stamp = Stamp(now_ms, parts.new_id(), keep_ms, parts.settings.contact_s)
    asking = Actor(caller.name, one_line(reason), parts.new_id())
    if bot_id_problem(bot_id) or not delete_bot(parts.store, bot_id, asking, stamp):
        raise Refusal(Code.NOT_FOUND, f'there is no bot "{bot_id[:BOT_ID_CHARS]}"')
    parts.last_seen.forget(bot_id)


def one_line(reason: str) -> str:
    """The reason with every line break as a blank (prpc-api 5.4). Raises Refusal when too long."""
    if len(reason) > queries.MAX_REASON:
        raise refuse("/reason", f"has {len(reason)} characters, at most {queries.MAX_REASON}")
    return " ".join(reason.splitlines()).strip()
