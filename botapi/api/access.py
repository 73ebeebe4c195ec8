"""May this caller do that? Every call of people asks here, before anything else is done.

The objects are those of prpc-api 8.1: the server, a pool, a bot, a task. A refusal names
caller, permission and what was asked for, never the pool of a bot or task.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from botapi.api.parts import ApiParts
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.permissions import Caller, Needs, On, Permission
from botapi.domain.task import TaskRequest
from botapi.store import codec


def check_call(parts: ApiParts, caller: Caller, needs: Needs, path: Mapping[str, str]) -> None:
    """May this call be made? `path` has `bot_id` or `task_id` where `needs` speaks of one.

    Raises Refusal: PERMISSION_DENIED; NOT_FOUND for a task that there is not, before it.
    A task is read only for callers who have the permission in some pools or in none.
    """
    if needs.permission is None or needs.on is On.ITEMS:
        return
    if needs.on is On.SERVER:
        check_server(caller, needs.permission)
    elif needs.on is On.BOT:
        check_bot(parts, caller, needs.permission, path["bot_id"])
    elif not caller.may(needs.permission):
        check_task(parts, caller, needs.permission, stored_request(parts, path["task_id"]))


def stored_request(parts: ApiParts, task_id: str) -> TaskRequest:
    """What was asked for under a task or run id. Raises Refusal NOT_FOUND."""
    with suppress(ValueError):
        (doc,) = parts.store.get(codec.REQ, codec.task_key(parse_task_id(task_id)))
        if doc is not None:
            return codec.read_request(doc)
    raise Refusal(Code.NOT_FOUND, f'there is no task "{task_id[:40]}"')


def check_server(caller: Caller, permission: Permission) -> None:
    """For the whole server. Raises Refusal PERMISSION_DENIED."""
    if not caller.may(permission):
        raise _denied(caller, permission, "the server")


def check_pools(caller: Caller, permission: Permission, pools: Collection[str]) -> None:
    """In every one of these pools; without pools for the server. Raises PERMISSION_DENIED."""
    if not caller.may_in_all(permission, pools):
        where = ", ".join(sorted(pools)[:5])
        raise _denied(caller, permission, f"pool {where}" if pools else "the server")


def check_somewhere(caller: Caller, permission: Permission) -> None:
    """In any pool, or for the server: for what belongs to no pool. Raises PERMISSION_DENIED."""
    if not caller.may(permission) and not caller.named_pools(permission):
        raise _denied(caller, permission, "any pool")


def may_on_bot(parts: ApiParts, caller: Caller, permission: Permission, bot_id: str) -> bool:
    """Granted in any pool that the configuration gives this bot, or for the server."""
    return _in_any(caller, permission, pools_of_bot(parts, bot_id))


def check_bot(parts: ApiParts, caller: Caller, permission: Permission, bot_id: str) -> None:
    """As `may_on_bot`. Raises PERMISSION_DENIED, whether the bot exists or not."""
    if not may_on_bot(parts, caller, permission, bot_id):
        raise _denied(caller, permission, f"bot {bot_id[:80]}")


def may_on_task(
    parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest
) -> bool:
    """`TASKS_GET` or `TASKS_CANCEL` on a task: its submitter always may (prpc-api 8.1)."""
    if caller.identity == request.authenticated:
        return True
    by_pool = {
        Permission.TASKS_GET: Permission.LIST_TASKS,
        Permission.TASKS_CANCEL: Permission.CANCEL_TASK,
    }[permission]
    slice_ = request.slices[0]
    pools = [slice_.pool] if slice_.pool else []
    for bot_id in () if pools else slice_.dimensions.get("id", ()):
        pools.extend(pools_of_bot(parts, bot_id))
    return _in_any(caller, permission, pools) or _in_any(caller, by_pool, pools)


def check_task(
    parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest
) -> None:
    """As `may_on_task`. Raises PERMISSION_DENIED."""
    if not may_on_task(parts, caller, permission, request):
        raise _denied(caller, permission, f"task {request.task_id}")


def pools_of_bot(parts: ApiParts, bot_id: str) -> tuple[str, ...]:
    """The pools that bots.cfg gives this bot; what the bot reports does not count."""
    return tuple(parts.config.cached().bots.group_of(bot_id).dimensions.get("pool", ()))


def _in_any(caller: Caller, permission: Permission, pools: Iterable[str]) -> bool:
    return caller.may(permission) or any(caller.may(permission, pool) for pool in pools)


def _denied(caller: Caller, permission: Permission, where: str) -> Refusal:
    return Refusal(
        Code.PERMISSION_DENIED,
        f"{caller.identity} has no permission swarming.{permission} for {where}",
    )
