"""`swarming.v2.Swarming`: the server itself, and what the caller may do (prpc-api 7)."""

from collections.abc import Mapping

from google.protobuf.empty_pb2 import Empty
from swarmingpb.swarming_pb2 import (
    BootstrapToken,
    ClientPermissions,
    PermissionsRequest,
    ServerDetails,
)

from botapi import __version__
from botapi.api import access, bootstrap
from botapi.api.parts import ApiParts
from botapi.api.prpc.bot_dimensions import configured_pools
from botapi.api.prpc.call import Call, Handler
from botapi.api.prpc.paging import bad
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import parse_task_id
from botapi.domain.permissions import Permission
from botapi.domain.task import TaskRequest
from botapi.store import codec

TOKEN_USES = 100
"""Machines that may join with one token of `GetToken`, within `TOKEN_LIFE_S`."""
TOKEN_LIFE_S = 3600


def get_details(call: Call, _asked: Empty) -> ServerDetails:
    """Versions of the server and of the stable bot archive."""
    access.check_server(call.caller, Permission.PEEK)
    try:
        bot_version = call.parts.archives.archive(call.base_url).version
    except Refusal:
        bot_version = ""  # there is no archive yet
    return ServerDetails(server_version=__version__, bot_version=bot_version)


def get_token(call: Call, _asked: Empty) -> BootstrapToken:
    """A token that machines join the fleet with."""
    access.check_server(call.caller, Permission.CREATE_BOT)
    body = bootstrap.TokenBody(uses=TOKEN_USES, ttl_s=TOKEN_LIFE_S)
    made = bootstrap.create(call.parts, call.caller.name, body, call.base_url)
    return BootstrapToken(bootstrap_token=made["token"])


def get_permissions(call: Call, asked: PermissionsRequest) -> ClientPermissions:
    """What the caller may do with the bot, task and pools on screen."""
    parts, caller = call.parts, call.caller
    pools = {tag.removeprefix("pool:") for tag in asked.tags if tag.startswith("pool:")}
    request = _request_of(parts, asked.task_id) if asked.task_id else None

    def on_bot(permission: Permission) -> bool:
        if not asked.bot_id:
            return caller.may(permission)
        return access.may_on_bot(parts, caller, permission, asked.bot_id)

    cancel_tasks = caller.may_in_all(Permission.CANCEL_TASK, pools)
    cancel_task = cancel_tasks
    if request is not None:
        cancel_task = access.may_on_task(parts, caller, Permission.TASKS_CANCEL, request)
    configured = configured_pools(parts)
    return ClientPermissions(
        delete_bot=on_bot(Permission.DELETE_BOT),
        delete_bots=caller.may_in_all(Permission.DELETE_BOT, pools),
        terminate_bot=on_bot(Permission.TERMINATE_BOT),
        cancel_task=cancel_task,
        get_bootstrap_token=caller.may(Permission.CREATE_BOT),
        cancel_tasks=cancel_tasks,
        list_bots=[pool for pool in configured if caller.may(Permission.LIST_BOTS, pool)],
        list_tasks=[pool for pool in configured if caller.may(Permission.LIST_TASKS, pool)],
    )


def _request_of(parts: ApiParts, task_id: str) -> TaskRequest:
    try:
        key = codec.task_key(parse_task_id(task_id))
    except ValueError:
        raise bad(f'task_id: "{task_id[:40]}" is no task id') from None
    (doc,) = parts.store.get(codec.REQ, key)
    if doc is None:
        raise Refusal(Code.NOT_FOUND, f"no such task: {task_id}")
    return codec.read_request(doc)


METHODS: Mapping[str, Handler] = {
    "GetDetails": get_details,
    "GetToken": get_token,
    "GetPermissions": get_permissions,
}
