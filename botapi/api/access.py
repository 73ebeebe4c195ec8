"""May this caller do that? Every call of people asks here, before anything else is done.

The objects are those of prpc-api 8.1: the server, a pool, a bot, a task. A refusal names
caller, permission and what was asked for, never the pool of a bot or task.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from botapi.api.parts import ApiParts
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.permissions import Caller, Needs, On, Permission
from botapi.domain.task import TaskRequest
from botapi.store import codec
from botapi.store.protocol import AnyOf

MAX_POOLS_AT_ONCE = 20
"""Most pools of a list that names none; the caller must name one when they may see more."""
_POOL = "pool:"


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
    raise _no_task(task_id)


def _no_task(task_id: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f'there is no task "{task_id[:40]}"')


def check_server(caller: Caller, permission: Permission) -> None:
    """For the whole server. Raises Refusal PERMISSION_DENIED."""
    if not caller.may(permission):
        raise denied(caller, permission, "the server")


def check_pools(caller: Caller, permission: Permission, pools: Collection[str]) -> None:
    """In every one of these pools; without pools for the server. Raises PERMISSION_DENIED."""
    if not caller.may_in_all(permission, pools):
        where = ", ".join(sorted(pools)[:5])
        raise denied(caller, permission, f"pool {where}" if pools else "the server")


def check_somewhere(caller: Caller, permission: Permission) -> None:
    """In any pool, or for the server: for what belongs to no pool. Raises PERMISSION_DENIED."""
    if not caller.may(permission) and not caller.named_pools(permission):
        raise denied(caller, permission, "any pool")


def may_on_bot(parts: ApiParts, caller: Caller, permission: Permission, bot_id: str) -> bool:
    """Granted in any pool that the configuration gives this bot, or for the server."""
    return _in_any(caller, permission, pools_of_bot(parts, bot_id))


def check_bot(parts: ApiParts, caller: Caller, permission: Permission, bot_id: str) -> None:
    """As `may_on_bot`. Raises PERMISSION_DENIED, whether the bot exists or not."""
    if not may_on_bot(parts, caller, permission, bot_id):
        raise denied(caller, permission, f"bot {bot_id[:80]}")


def may_on_task(
    parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest
) -> bool:
    """`TASKS_GET` or `TASKS_CANCEL` on a task: its submitter always may (prpc-api 8.1).

    Tasks from before people had identities name their submitter without `user:`.
    """
    identity = caller.identity
    if request.authenticated in {identity, identity.removeprefix("user:")}:
        return caller.scope is None or _in_scope(parts, caller, permission, request)
    return _granted(parts, caller, permission, request)


def _in_scope(
    parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest
) -> bool:
    """Own tasks are there for a key with a scope as far as it reaches: where it may see or
    end any task, or make one.
    """
    by_key = Caller(caller.identity, caller.scope or frozenset())
    may_make = any(by_key.may(Permission.CREATE_TASK, pool) for pool in _pools(parts, request))
    return may_make or _granted(parts, by_key, permission, request)


def _granted(parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest) -> bool:
    by_pool = {
        Permission.TASKS_GET: Permission.LIST_TASKS,
        Permission.TASKS_CANCEL: Permission.CANCEL_TASK,
    }[permission]
    pools = _pools(parts, request)
    return (
        _in_any(caller, permission, pools)
        or _in_any(caller, by_pool, pools)
        or may_in_realm(parts, caller, permission, request.realm)
    )


def _pools(parts: ApiParts, request: TaskRequest) -> list[str]:
    """The pool of a task; without one, those of the bots that it names."""
    slice_ = request.slices[0]
    if slice_.pool:
        return [slice_.pool]
    bots = slice_.dimensions.get("id", ())
    return [pool for bot_id in bots for pool in pools_of_bot(parts, bot_id)]


def may_in_realm(parts: ApiParts, caller: Caller, permission: Permission, realm: str) -> bool:
    """Granted in every pool that pools.cfg gives this realm, as its own or for its tasks.

    In every one: pools may share a realm, and who sees one of them must not see the others.
    """
    named = pools_of_realm(parts, realm)
    return bool(realm and named) and all(caller.may(permission, name) for name in named)


def pools_of_realm(parts: ApiParts, realm: str) -> list[str]:
    """The pools that name this realm as theirs or as that of their tasks."""
    pools = parts.config.cached().pools.pools.values()
    return [pool.name for pool in pools if realm in {pool.realm, pool.default_task_realm}]


def check_tasks(
    parts: ApiParts, caller: Caller, permission: Permission, task_ids: Sequence[str]
) -> None:
    """As `check_task` for each. Raises Refusal NOT_FOUND or PERMISSION_DENIED for the first."""
    if caller.may(permission):
        return
    keys = [codec.task_key(task_id) for task_id in task_ids]
    for task_id, doc in zip(task_ids, parts.store.get(codec.REQ, *keys), strict=True):
        if doc is None:
            raise _no_task(task_id)
        check_task(parts, caller, permission, codec.read_request(doc))


def confined(
    caller: Caller, permission: Permission, constraints: Sequence[AnyOf]
) -> tuple[AnyOf, ...]:
    """What a list is asked for, confined to pools in which the caller has the permission.

    `constraints` are sets of `key:value`. One that names pools only must name pools of the
    caller's. Raises Refusal PERMISSION_DENIED; INVALID_ARGUMENT when the caller has so many
    pools that one must be named.
    """
    if caller.may(permission):
        return tuple(constraints)
    asked = [c for c in constraints if c and all(flat.startswith(_POOL) for flat in c)]
    if asked:
        check_pools(caller, permission, {f.removeprefix(_POOL) for c in asked for f in c})
        return tuple(constraints)
    pools = caller.named_pools(permission)
    if not pools:
        raise denied(caller, permission, "the server or any pool")
    if len(pools) > MAX_POOLS_AT_ONCE:
        raise Refusal(
            Code.INVALID_ARGUMENT, f"you may see {len(pools)} pools; ask for one: pool:<name>"
        )
    return (*constraints, frozenset(_POOL + pool for pool in pools))


def check_task(
    parts: ApiParts, caller: Caller, permission: Permission, request: TaskRequest
) -> None:
    """As `may_on_task`. Raises PERMISSION_DENIED."""
    if not may_on_task(parts, caller, permission, request):
        raise denied(caller, permission, f"task {request.task_id}")


def pools_of_bot(parts: ApiParts, bot_id: str) -> tuple[str, ...]:
    """The pools that bots.cfg gives this bot; what the bot reports does not count."""
    return tuple(parts.config.cached().bots.group_of(bot_id).dimensions.get("pool", ()))


def _in_any(caller: Caller, permission: Permission, pools: Iterable[str]) -> bool:
    return caller.may(permission) or any(caller.may(permission, pool) for pool in pools)


def denied(caller: Caller, permission: Permission, where: str) -> Refusal:
    """The one wording: who, what and where, and nothing of what is there (prpc-api 1.7)."""
    return Refusal(
        Code.PERMISSION_DENIED,
        f"{caller.identity} has no permission swarming.{permission} for {where}",
    )
