"""Making a task: the one way of both APIs from what is asked to what is stored."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from botapi.api import access
from botapi.api.parts import ApiParts
from botapi.api.task_secrets import SealedBytes, check_secrets, seal_bytes
from botapi.domain.deduplication import properties_hash
from botapi.domain.errors import Code, Refusal
from botapi.domain.matching import queue_of
from botapi.domain.names import MAX_DRAWS, new_request_id, parse_task_id, run_id
from botapi.domain.names import task_id as name_of
from botapi.domain.new_task import PUBLISHED, Form, NewTask, check_new_task, check_pool
from botapi.domain.permissions import Caller, Permission, plain_name
from botapi.domain.pool_rules import (
    check_pool_rules,
    settled_packages,
    settled_priority,
    settled_realm,
)
from botapi.domain.pools import SchedulingAlgorithm
from botapi.domain.service_accounts import NONE, check_act_as, is_literal
from botapi.domain.task import Slice, Task, TaskRequest
from botapi.domain.task_tags import all_tags
from botapi.domain.task_templates import CHANCES, apply_template, chosen
from botapi.store import codec
from botapi.store.protocol import Txn
from botapi.transactions.create_task import (
    Also,
    Created,
    Original,
    ParentEnded,
    TaskIdTaken,
    create_task,
    created_before,
    find_original,
)

PING_TOLERANCE_S = 1200
"""What 0 means (bot-api 10.7)."""

Check = Callable[[TaskRequest], None]


@dataclass(frozen=True, slots=True)
class Made:
    """`task` is None when it was only evaluated; `is_new` False when a request uuid had made it."""

    request: TaskRequest
    task: Task | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class Again:
    """The final task that somebody wants made anew, where its secret bytes are, and why."""

    of: str
    secret_bytes_ref: str
    reason: str


def make_task(
    parts: ApiParts,
    caller: Caller,
    new: NewTask,
    *,
    evaluate_only: bool = False,
    form: Form = PUBLISHED,
    check_capacity: Check | None = None,
    again: Again | None = None,
) -> Made:
    """Check, settle with what pool and server say, and store (prpc-api 6.1, in its order).

    The request that a request uuid made before is given back as it was stored, after all
    checks of this one. `check_capacity` is asked last, and only for a task that must run.
    `again`: the new task is a retry that a person asked for.
    Raises Refusal: INVALID_ARGUMENT with the place, PERMISSION_DENIED, NOT_FOUND or
    FAILED_PRECONDITION for a parent, RESOURCE_EXHAUSTED.
    """
    draft = _settled(parts, caller, new, form)
    if evaluate_only:
        return Made(draft, None, is_new=True)
    before = created_before(parts.store, draft.authenticated, draft.request_uuid, draft.created_ms)
    if before is not None:
        return _made_before(parts, before)
    original = _original(parts, draft)
    if check_capacity is not None and original is None:
        check_capacity(draft)
    sealed = seal_bytes(parts, new)
    if sealed is not None:
        draft = replace(draft, secret_bytes_ref=sealed.ref)
    if again is not None:
        draft = replace(draft, retry_of=again.of, secret_bytes_ref=again.secret_bytes_ref)
    created, request = _stored(parts, draft, original, sealed, again.reason if again else "")
    return (
        Made(request, created.task, is_new=True)
        if created.is_new
        else _made_before(parts, created.task)
    )


def _made_before(parts: ApiParts, task: Task) -> Made:
    (doc,) = parts.store.get(codec.REQ, codec.task_key(task.task_id))
    if doc is None:
        raise Refusal(Code.NOT_FOUND, f"task {task.task_id} of this request uuid was removed")
    return Made(codec.read_request(doc), task, is_new=False)


def _settled(parts: ApiParts, caller: Caller, new: NewTask, form: Form) -> TaskRequest:
    """The request as it will be stored, but for its id."""
    pool_name = check_pool(new, form)
    access.check_pools(caller, Permission.CREATE_TASK, [pool_name])
    config = parts.config.cached()
    pool = config.pools.pool(pool_name)
    check_new_task(new, form)
    check_pool_rules(new, pool, form)
    new = settled_packages(new, config.pools.default_cipd, form)
    check_secrets(parts, new, pool_name)
    if new.has_resultdb:
        raise Refusal(Code.FAILED_PRECONDITION, "/resultdb: this server has no ResultDB")
    realm = settled_realm(new.realm, pool_name, config.pools)
    _check_realm(parts, caller, realm, pool_name, Permission.TASKS_CREATE_IN_REALM)
    account = new.service_account or NONE
    if not is_literal(account):
        check_act_as(account, pool_name, config.pools)
        _check_realm(parts, caller, realm, pool_name, Permission.TASKS_ACT_AS)
    parent = _parent(parts, new.parent_task_id)
    deployment = pool.task_templates if pool is not None else None
    template_name, template = chosen(deployment, new.template, parts.rng.uniform(0, CHANCES))
    if template is not None:
        new = apply_template(new, template, form)
    may_be_high = caller.may(Permission.CREATE_HIGH_PRIORITY_TASK, pool_name)
    request = TaskRequest(
        task_id="",
        name=new.name,
        priority=settled_priority(new.priority, may_be_high=may_be_high),
        user=parent.user if parent else new.user,
        authenticated=caller.identity,
        tags=new.tags,
        slices=tuple(_with_hash(slice_, new) for slice_ in new.slices),
        created_ms=parts.clock.now_ms(),
        bot_ping_tolerance_s=new.bot_ping_tolerance_s or PING_TOLERANCE_S,
        service_account=account,
        realm=realm,
        is_newest_first=pool is not None and pool.scheduling_algorithm is SchedulingAlgorithm.LIFO,
        parent_task_id=run_id(parent.task_id) if parent else "",
        root_task_id=(parent.root_task_id or run_id(parent.task_id)) if parent else "",
        request_uuid=new.request_uuid,
        pubsub_topic=new.pubsub_topic,
        pubsub_auth_token=new.pubsub_auth_token,
        pubsub_userdata=new.pubsub_userdata,
        secrets=new.secrets,
        max_retries=new.max_retries,
        template=template_name,
    )
    return replace(request, tags=all_tags(request, f"r{config.rev}"))


def _with_hash(slice_: Slice, new: NewTask) -> Slice:
    if not slice_.idempotent:
        return slice_
    return replace(slice_, properties_hash=properties_hash(slice_, new.secret_bytes, new.secrets))


def _check_realm(
    parts: ApiParts, caller: Caller, realm: str, pool_name: str, permission: Permission
) -> None:
    """Raise Refusal PERMISSION_DENIED unless a pool of this realm, or the server, grants it.

    Any pool of it will do, for the task's own pool is checked as well; to read what is in a
    realm takes all of them (`access.may_in_realm`). Without a realm the task's pool counts.
    """
    own = access.pools_of_realm(parts, realm) if realm else [pool_name]
    if not caller.may(permission) and not any(caller.may(permission, name) for name in own):
        raise access.denied(caller, permission, f"realm {realm}")


def _parent(parts: ApiParts, task_id: str) -> TaskRequest | None:
    """The task that asks for this one. Raises Refusal when it may not (bot-api 10.7)."""
    if not task_id:
        return None
    key = codec.task_key(parse_task_id(task_id))
    (was,), (req,) = parts.store.get(codec.TASK, key), parts.store.get(codec.REQ, key)
    if was is None or req is None:
        raise Refusal(Code.NOT_FOUND, f'/parent_task_id: there is no task "{task_id}"')
    if codec.read_task(was).is_final:
        raise _ended(task_id)
    request = codec.read_request(req)
    if request.is_termination:
        said = f'/parent_task_id: "{task_id}" is a termination task, which has no children'
        raise Refusal(Code.INVALID_ARGUMENT, said)
    return request


def _ended(task_id: str) -> Refusal:
    said = f'/parent_task_id: task "{task_id}" has ended; only a task that goes on has children'
    return Refusal(Code.FAILED_PRECONDITION, said)


def _original(parts: ApiParts, draft: TaskRequest) -> Original | None:
    """A finished task whose result may stand for this one's (bot-api 10.5)."""
    if not any(slice_.properties_hash for slice_ in draft.slices):
        return None
    reusable_ms = 1000 * parts.config.cached().fleet.reusable_task_age_s
    return find_original(parts.store, draft, draft.created_ms - reusable_ms)


def _stored(
    parts: ApiParts,
    draft: TaskRequest,
    original: Original | None,
    sealed: SealedBytes | None,
    reason: str,
) -> tuple[Created, TaskRequest]:
    for _ in range(MAX_DRAWS):
        now_ms = parts.clock.now_ms()
        task_id = name_of(new_request_id(now_ms, parts.rng.randbits(16)))
        request = replace(draft, task_id=task_id, created_ms=now_ms)
        entry_id = parts.new_id()
        parts.offers.expect(codec.queue_key(queue_of(request.slices[0].dimensions)))
        try:
            created = create_task(
                parts.store,
                request,
                request_uuid=request.request_uuid,
                nonce=entry_id,
                original=original,
                also=_beside(parts, request, entry_id, sealed, reason),
            )
        except TaskIdTaken:
            continue
        except ParentEnded:
            raise _ended(request.parent_task_id) from None
        return created, request
    raise Refusal(Code.RESOURCE_EXHAUSTED, "no free task id in this moment; try again")


def _beside(
    parts: ApiParts, request: TaskRequest, entry_id: str, sealed: SealedBytes | None, reason: str
) -> Also:
    """The audit entry and the sealed secret bytes, in the transaction of the task."""

    def put(txn: Txn, task: Task) -> None:
        entry = codec.audit_doc(
            at_ms=request.created_ms,
            entry_id=entry_id,
            actor=plain_name(request.authenticated),
            verb="task.retry" if request.retry_of else "task.create",
            target=f"task {request.task_id}",
            reason=reason,
            before=request.retry_of,
            after=task.state,
        )
        txn.put(codec.AUDIT, entry)
        if sealed is not None and not task.deduped_from:
            sealed.put(txn, request, parts.settings.task_retention_days)

    return put
