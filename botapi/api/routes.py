"""`/api/v1` over Flask: a table of calls, and the one way into them.

Every call passes `_answer`: it finds out who asks, and whether they may, before anything
else happens. A path of the table takes every method, so that a wrong one is told which are right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Request, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from botapi.api import (
    access,
    api_keys,
    archives,
    blobs,
    bootstrap,
    bots,
    ending,
    error_codes,
    keys,
    late_output,
    outputs,
    people,
    problems,
    queries,
    retries,
    secrets,
    tasks,
    users,
    why_pending,
)
from botapi.api.answers import Answer, respond
from botapi.api.bodies import Body
from botapi.api.parts import Json, Query
from botapi.api.people import Person
from botapi.api.server import ApiServer
from botapi.blobs.transfer import Source
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Needs, On, Permission
from botapi.domain.rate_limit import network_of
from botapi.door import READS, VERBS, BodyTooLarge, Door, read_body
from botapi.store import codec
from botapi.store.protocol import StoreError
from botapi.transactions.steer_bot import Steer

ROOT = "/api/v1"
OPENAPI = Path(__file__).with_name("openapi.json")
"""What documents the calls below; `make openapi` writes it."""
BODY_LIMIT = 1024 * 1024
CONFIG_BODY_LIMIT = 4 * 1024 * 1024
"""Files of a configuration grow when they are written as JSON."""
P = Permission


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose sender is known."""

    server: ApiServer
    person: Person
    query: Query
    body: bytes
    base_url: str
    idempotency_key: str
    source: Source
    """The body of a call that reads it by itself; `length` is what the sender announced."""
    length: int | None
    range: str
    """The `Range` header, empty without one."""
    if_match: str
    """The `If-Match` header, empty without one."""


Handler = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """A call, and what it needs: there is no call without a declaration."""

    handle: Handler
    needs: Needs


def create_task(call: Call) -> Answer:
    """`POST /tasks`."""
    queries.check_names(call.query, ("dry_run", "wait"))
    body = tasks.TASK_BODY.read(call.body)
    if queries.number(call.query, "dry_run", 0, 0, 1):
        return Answer(tasks.dry_run(call.server, call.person.caller, body, call.idempotency_key))
    view, is_new = tasks.create(
        call.server, call.person.caller, body, call.idempotency_key, queries.wait_s(call.query)
    )
    location = {"Location": f"{ROOT}/tasks/{view['task_id']}"}
    return Answer(view, 201 if is_new else 200, location)


def list_tasks(call: Call) -> Answer:
    """`GET /tasks`."""
    return Answer(call.server.tasks(call.person, call.query))


def get_task(call: Call, task_id: str) -> Answer:
    """`GET /tasks/<id>`."""
    queries.check_names(call.query, ("wait",))
    return Answer(call.server.task(task_id, queries.wait_s(call.query)), is_tagged=True)


def collect(call: Call) -> Answer:
    """`POST /tasks/collect`."""
    queries.check_names(call.query, ())
    return Answer(
        tasks.collect(call.server, call.person.caller, tasks.COLLECT_BODY.read(call.body))
    )


def cancel(call: Call, task_id: str) -> Answer:
    """`POST /tasks/<id>/cancel`."""
    queries.check_names(call.query, ())
    body = tasks.CANCEL_BODY.read(call.body)
    return Answer(tasks.cancel(call.server, task_id, call.person.name, body))


def cancel_many(call: Call) -> Answer:
    """`POST /tasks/cancel`."""
    queries.check_names(call.query, ())
    body = ending.CANCEL_MANY_BODY.read(call.body)
    return Answer(ending.cancel_tasks(call.server, call.person.caller, body))


def retry_task(call: Call, task_id: str) -> Answer:
    """`POST /tasks/<id>/retry`."""
    queries.check_names(call.query, ())
    body = retries.RETRY_BODY.read(call.body)
    view, is_new = retries.retry(
        call.server, call.person.caller, task_id, body, call.idempotency_key
    )
    location = {"Location": f"{ROOT}/tasks/{view['task_id']}"}
    return Answer(view, 201 if is_new else 200, location)


def get_output(call: Call, task_id: str) -> Answer:
    """`GET /tasks/<id>/output`."""
    queries.check_names(call.query, ("late", "limit", "offset", "wait"))
    offset = queries.number(call.query, "offset", 0, 0, codec.LAST_OFFSET)
    limit = queries.number(call.query, "limit", outputs.MAX_BYTES, 1, outputs.MAX_BYTES)
    if queries.number(call.query, "late", 0, 0, 1):
        late = late_output.read_late(call.server, task_id, offset, limit)
        return Answer(late.data, headers=late.headers())
    found = call.server.output(task_id, offset, limit, queries.wait_s(call.query))
    return Answer(found.data, headers=found.headers())


def missing_blobs(call: Call) -> Answer:
    """`POST /blobs/missing`."""
    queries.check_names(call.query, ())
    body = blobs.MISSING_BODY.read(call.body)
    return Answer(blobs.missing(call.server, call.person.caller, body))


def get_blob(call: Call, digest: str, size: str) -> Answer:
    """`GET /blobs/<hash>/<size>`."""
    queries.check_names(call.query, ())
    caller = call.person.caller
    return _download(blobs.fetch(call.server, caller, f"{digest}/{size}", call.range))


def put_blob(call: Call, digest: str, size: str) -> Answer:
    """`PUT /blobs/<hash>/<size>`."""
    queries.check_names(call.query, ())
    caller = call.person.caller
    view, is_new = blobs.keep(call.server, caller, f"{digest}/{size}", call.source, call.length)
    return Answer(view, 201 if is_new else 200)


def get_tree(call: Call, digest: str, size: str) -> Answer:
    """`GET /trees/<hash>/<size>`."""
    page = _page_of_tree(call)
    return Answer(blobs.tree(call.server, call.person.caller, f"{digest}/{size}", *page))


def list_outputs(call: Call, task_id: str) -> Answer:
    """`GET /tasks/<id>/outputs`."""
    return Answer(blobs.outputs(call.server, task_id, *_page_of_tree(call)))


def get_output_file(call: Call, task_id: str, path: str) -> Answer:
    """`GET /tasks/<id>/outputs/<path>`."""
    queries.check_names(call.query, ())
    return _download(blobs.output(call.server, task_id, path, call.range))


def get_packed_outputs(call: Call, task_id: str, kind: str) -> Answer:
    """`GET /tasks/<id>/outputs.tar` and `outputs.zip`."""
    queries.check_names(call.query, ())
    return _download(blobs.packed(call.server, task_id, kind))


def _page_of_tree(call: Call) -> tuple[str, int]:
    queries.check_names(call.query, ("cursor", "limit"))
    limit = queries.number(call.query, "limit", blobs.MAX_LISTED, 1, blobs.MAX_LISTED)
    return queries.last(call.query, "cursor"), limit


def _download(found: blobs.Download) -> Answer:
    return Answer(found.pieces, found.status, found.headers)


def get_why(call: Call, task_id: str) -> Answer:
    """`GET /tasks/<id>/why`."""
    return Answer(why_pending.why(call.server, call.person.caller, task_id, call.query))


def list_bots(call: Call) -> Answer:
    """`GET /bots`."""
    return Answer(call.server.bots(call.person, call.query, call.base_url))


def get_bot(call: Call, bot_id: str) -> Answer:
    """`GET /bots/<id>`."""
    queries.check_names(call.query, ())
    return Answer(call.server.bot(bot_id, call.base_url), is_tagged=True)


def list_bot_tasks(call: Call, bot_id: str) -> Answer:
    """`GET /bots/<id>/tasks`."""
    return Answer(call.server.tasks_of_bot(bot_id, call.query))


def list_events(call: Call, bot_id: str) -> Answer:
    """`GET /bots/<id>/events`."""
    return Answer(call.server.events(bot_id, call.query))


def get_timeline(call: Call, bot_id: str) -> Answer:
    """`GET /bots/<id>/timeline`."""
    return Answer(call.server.timeline(bot_id, call.query))


def steer_bot(call: Call, bot_id: str, verb: Steer) -> Answer:
    """`POST /bots/<id>/quarantine`, `/release`, `/pause`, `/resume` and `/restart`."""
    queries.check_names(call.query, ())
    if verb in {Steer.QUARANTINE, Steer.PAUSE}:
        body = bots.STEER_BODY.read(call.body)
    else:
        body = bots.SteerBody(bots.REASON_BODY.read(call.body).reason)
    return Answer(bots.steer(call.server, bot_id, verb, call.person.name, body, call.base_url))


def terminate_bot(call: Call, bot_id: str) -> Answer:
    """`POST /bots/<id>/terminate`."""
    queries.check_names(call.query, ())
    body = ending.WHY_BODY.read(call.body)
    made = ending.terminate(call.server, call.person.caller, bot_id, body.reason)
    return Answer({"task_id": made.task.task_id}, 201 if made.is_new else 200)


def delete_bot(call: Call, bot_id: str) -> Answer:
    """`DELETE /bots/<id>`."""
    queries.check_names(call.query, ("reason",))
    ending.delete(call.server, call.person.caller, bot_id, queries.last(call.query, "reason"))
    return Answer({"deleted": True})


def _check_shown_once(call: Call) -> None:
    """What is shown once is not kept, so a repeat cannot be answered with it."""
    if call.idempotency_key:
        problem = "what this call makes is shown once; leave it out, and list before a repeat"
        raise queries.refuse("Idempotency-Key", problem)


def create_bootstrap_token(call: Call) -> Answer:
    """`POST /bootstrap-tokens`."""
    queries.check_names(call.query, ())
    _check_shown_once(call)
    body = bootstrap.TOKEN_BODY.read(call.body)
    access.check_pools(call.person.caller, P.CREATE_BOT, [body.pool] if body.pool else [])
    return Answer(call.server.bootstrap_token(call.person.name, body, call.base_url), 201)


def list_bootstrap_tokens(call: Call) -> Answer:
    """`GET /bootstrap-tokens`."""
    return Answer(bootstrap.listed(call.server, call.person.caller, call.query))


def revoke_bootstrap_token(call: Call, token_id: str) -> Answer:
    """`POST /bootstrap-tokens/<id>/revoke`."""
    queries.check_names(call.query, ())
    body = bootstrap.REVOKE_BODY.read(call.body)
    person = call.person
    return Answer(bootstrap.revoke(call.server, person.caller, person.name, token_id, body))


def whoami(call: Call) -> Answer:
    """`GET /whoami`."""
    queries.check_names(call.query, ())
    return Answer(users.whoami(call.person))


def list_users(call: Call) -> Answer:
    """`GET /users`."""
    return Answer(users.listed(call.server, call.person.caller, call.query))


def create_user(call: Call) -> Answer:
    """`POST /users`."""
    queries.check_names(call.query, ())
    body = users.USER_BODY.read(call.body)
    return Answer(users.create(call.server, call.person, body), 201)


def change_user(call: Call, identity: str) -> Answer:
    """`PATCH /users/<identity>`."""
    queries.check_names(call.query, ())
    body = users.CHANGE_BODY.read(call.body)
    return Answer(users.change(call.server, call.person, identity, body))


def list_api_keys(call: Call) -> Answer:
    """`GET /api-keys`."""
    return Answer(api_keys.listed(call.server, call.person.caller, call.query))


def create_api_key(call: Call) -> Answer:
    """`POST /api-keys`."""
    queries.check_names(call.query, ())
    _check_shown_once(call)
    body = api_keys.KEY_BODY.read(call.body)
    return Answer(api_keys.create(call.server, call.person, body), 201)


def revoke_api_key(call: Call, key_id: str) -> Answer:
    """`DELETE /api-keys/<id>`."""
    queries.check_names(call.query, ())
    return Answer(api_keys.revoke(call.server, call.person, key_id))


def get_bots_cfg(call: Call) -> Answer:
    """`GET /config/bots.cfg`."""
    queries.check_names(call.query, ())
    found = call.server.bots_cfg()
    return Answer(found, revision=found["digest"] or "")


def get_config(call: Call) -> Answer:
    """`GET /config`."""
    queries.check_names(call.query, ())
    found = call.server.config_in_force()
    return Answer(found, revision=found["digest"] or "")


def list_revisions(call: Call) -> Answer:
    """`GET /config/revisions`."""
    return Answer(call.server.config_revisions(call.query))


def get_revision(call: Call, rev: str) -> Answer:
    """`GET /config/revisions/<rev>`."""
    queries.check_names(call.query, ())
    found = call.server.config_revision(rev)
    return Answer(found, revision=found["digest"] or "")


def validate_config(call: Call) -> Answer:
    """`POST /config/validate`."""
    queries.check_names(call.query, ())
    return Answer(call.server.validate_config(call.body))


def preview_config(call: Call) -> Answer:
    """`POST /config/preview`."""
    queries.check_names(call.query, ())
    found = call.server.preview_config(call.body)
    return Answer(found, headers={"Content-Type": "application/json"})


def apply_config(call: Call) -> Answer:
    """`POST /config/apply`."""
    queries.check_names(call.query, ())
    return Answer(call.server.apply_config(call.person.name, call.body, call.if_match))


def roll_config_back(call: Call) -> Answer:
    """`POST /config/rollback`."""
    queries.check_names(call.query, ())
    return Answer(call.server.roll_config_back(call.person.name, call.body, call.if_match))


def list_archives(call: Call) -> Answer:
    """`GET /archives`."""
    queries.check_names(call.query, ())
    return Answer(archives.listed(call.server))


def get_archive(call: Call, release: str) -> Answer:
    """`GET /archives/<release>`."""
    queries.check_names(call.query, ())
    return Answer(archives.read(call.server, release, call.base_url))


def upload_archive(call: Call) -> Answer:
    """`POST /archives`."""
    queries.check_names(call.query, ("file_name", "allow_unsigned"))
    file_name = queries.last(call.query, "file_name")
    allowed = queries.number(call.query, "allow_unsigned", 0, 0, 1) == 1
    actor = call.person.name
    view = archives.upload(call.server, actor, call.body, file_name, allow_unsigned=allowed)
    return Answer(view, 201)


def get_rollout(call: Call) -> Answer:
    """`GET /rollout`."""
    queries.check_names(call.query, ())
    return Answer(archives.status(call.server))


def _rollout_call(body: Body, act: Callable[[ApiServer, str, Any], Json]) -> Handler:
    """A change of the rollout: its answer is how things stand afterwards."""

    def handle(call: Call) -> Answer:
        queries.check_names(call.query, ())
        return Answer(act(call.server, call.person.name, body.read(call.body)))

    return handle


def list_keys(call: Call) -> Answer:
    """`GET /keys`."""
    queries.check_names(call.query, ())
    return Answer(keys.listed(call.server))


def rotate_keys(call: Call, purpose: str) -> Answer:
    """`POST /keys/<purpose>/rotate`."""
    queries.check_names(call.query, ())
    return Answer(keys.rotate(call.server, purpose, call.person.name), 201)


def revoke_key(call: Call, purpose: str) -> Answer:
    """`POST /keys/<purpose>/revoke`."""
    queries.check_names(call.query, ())
    body = keys.REVOKE_BODY.read(call.body)
    return Answer(keys.revoke(call.server, purpose, call.person.name, body))


def list_secrets(call: Call) -> Answer:
    """`GET /secrets`."""
    queries.check_names(call.query, ())
    return Answer(secrets.listed(call.server, call.person.caller))


def put_secret(call: Call, name: str) -> Answer:
    """`PUT /secrets/<name>`."""
    queries.check_names(call.query, ())
    body = secrets.SECRET_BODY.read(call.body)
    return Answer(secrets.put(call.server, call.person.caller, call.person.name, name, body))


def delete_secret(call: Call, name: str) -> Answer:
    """`DELETE /secrets/<name>`."""
    queries.check_names(call.query, ("reason",))
    why = queries.last(call.query, "reason")
    return Answer(secrets.delete(call.server, call.person.caller, call.person.name, name, why))


def rotate_secrets(call: Call) -> Answer:
    """`POST /secrets/rotate`."""
    queries.check_names(call.query, ())
    return Answer(secrets.rotate(call.server, secrets.ROTATE_BODY.read(call.body)))


def get_openapi(call: Call) -> Answer:
    """`GET /openapi.json`."""
    queries.check_names(call.query, ())
    return Answer(OPENAPI.read_bytes(), headers={"Content-Type": "application/json"})


def list_errors(call: Call) -> Answer:
    """`GET /errors`."""
    queries.check_names(call.query, ())
    return Answer(error_codes.listed())


def list_audit(call: Call) -> Answer:
    """`GET /audit`."""
    return Answer(call.server.audit(call.query))


TABLE: Mapping[str, Mapping[str, Route]] = {
    "/tasks": {
        "GET": Route(list_tasks, Needs(P.LIST_TASKS, On.ITEMS)),
        "POST": Route(create_task, Needs(P.CREATE_TASK, On.ITEMS)),
    },
    "/tasks/collect": {"POST": Route(collect, Needs(P.TASKS_GET, On.ITEMS))},
    "/tasks/cancel": {"POST": Route(cancel_many, Needs(P.CANCEL_TASK, On.ITEMS))},
    "/tasks/<task_id>": {"GET": Route(get_task, Needs(P.TASKS_GET, On.TASK))},
    "/tasks/<task_id>/why": {"GET": Route(get_why, Needs(P.TASKS_GET, On.TASK))},
    "/tasks/<task_id>/cancel": {"POST": Route(cancel, Needs(P.TASKS_CANCEL, On.TASK))},
    "/tasks/<task_id>/retry": {"POST": Route(retry_task, Needs(P.TASKS_GET, On.TASK))},
    "/tasks/<task_id>/output": {"GET": Route(get_output, Needs(P.TASKS_GET, On.TASK))},
    "/tasks/<task_id>/outputs": {"GET": Route(list_outputs, Needs(P.TASKS_GET, On.TASK))},
    "/tasks/<task_id>/outputs.<kind>": {
        "GET": Route(get_packed_outputs, Needs(P.TASKS_GET, On.TASK))
    },
    "/tasks/<task_id>/outputs/<path:path>": {
        "GET": Route(get_output_file, Needs(P.TASKS_GET, On.TASK))
    },
    "/blobs/missing": {"POST": Route(missing_blobs, Needs(P.CREATE_TASK, On.ITEMS))},
    "/blobs/<digest>/<size>": {
        "GET": Route(get_blob, Needs(P.TASKS_GET, On.ITEMS)),
        "PUT": Route(put_blob, Needs(P.CREATE_TASK, On.ITEMS)),
    },
    "/trees/<digest>/<size>": {"GET": Route(get_tree, Needs(P.TASKS_GET, On.ITEMS))},
    "/bots": {"GET": Route(list_bots, Needs(P.LIST_BOTS, On.ITEMS))},
    "/bots/<path:bot_id>": {
        "GET": Route(get_bot, Needs(P.LIST_BOTS, On.BOT)),
        "DELETE": Route(delete_bot, Needs(P.DELETE_BOT, On.BOT)),
    },
    "/bots/<path:bot_id>/terminate": {"POST": Route(terminate_bot, Needs(P.TERMINATE_BOT, On.BOT))},
    "/bots/<path:bot_id>/tasks": {"GET": Route(list_bot_tasks, Needs(P.LIST_TASKS, On.BOT))},
    "/bots/<path:bot_id>/events": {"GET": Route(list_events, Needs(P.LIST_BOTS, On.BOT))},
    "/bots/<path:bot_id>/timeline": {"GET": Route(get_timeline, Needs(P.LIST_BOTS, On.BOT))},
    **{
        f"/bots/<path:bot_id>/{verb}": {
            "POST": Route(partial(steer_bot, verb=verb), Needs(P.QUARANTINE_BOT, On.BOT))
        }
        for verb in Steer
    },
    "/bootstrap-tokens": {
        "GET": Route(list_bootstrap_tokens, Needs(P.CREATE_BOT, On.ITEMS)),
        "POST": Route(create_bootstrap_token, Needs(P.CREATE_BOT, On.ITEMS)),
    },
    "/bootstrap-tokens/<token_id>/revoke": {
        "POST": Route(revoke_bootstrap_token, Needs(P.CREATE_BOT, On.ITEMS))
    },
    "/whoami": {"GET": Route(whoami, Needs(None, On.NOTHING))},
    "/users": {
        "GET": Route(list_users, Needs(P.ADMINISTER, On.ITEMS)),
        "POST": Route(create_user, Needs(P.ADMINISTER)),
    },
    "/users/<identity>": {"PATCH": Route(change_user, Needs(P.ADMINISTER))},
    "/api-keys": {
        "GET": Route(list_api_keys, Needs(P.ADMINISTER, On.ITEMS)),
        "POST": Route(create_api_key, Needs(P.ADMINISTER, On.ITEMS)),
    },
    "/api-keys/<key_id>": {"DELETE": Route(revoke_api_key, Needs(P.ADMINISTER, On.ITEMS))},
    "/config": {"GET": Route(get_config, Needs(P.VIEW_CONFIG))},
    "/config/bots.cfg": {"GET": Route(get_bots_cfg, Needs(P.VIEW_CONFIG))},
    "/config/revisions": {"GET": Route(list_revisions, Needs(P.VIEW_CONFIG))},
    "/config/revisions/<rev>": {"GET": Route(get_revision, Needs(P.VIEW_CONFIG))},
    "/config/validate": {"POST": Route(validate_config, Needs(P.VIEW_CONFIG))},
    "/config/preview": {"POST": Route(preview_config, Needs(P.VIEW_CONFIG))},
    "/config/apply": {"POST": Route(apply_config, Needs(P.CHANGE_CONFIG))},
    "/config/rollback": {"POST": Route(roll_config_back, Needs(P.CHANGE_CONFIG))},
    "/archives": {
        "GET": Route(list_archives, Needs(P.VIEW_CONFIG)),
        "POST": Route(upload_archive, Needs(P.ADMINISTER)),
    },
    "/archives/<release>": {"GET": Route(get_archive, Needs(P.VIEW_CONFIG))},
    "/rollout": {
        "GET": Route(get_rollout, Needs(P.VIEW_CONFIG)),
        "POST": Route(_rollout_call(archives.START_BODY, archives.start), Needs(P.ADMINISTER)),
    },
    "/rollout/halt": {
        "POST": Route(_rollout_call(archives.REASON_BODY, archives.halt), Needs(P.ADMINISTER))
    },
    "/rollout/resume": {
        "POST": Route(_rollout_call(archives.REASON_BODY, archives.resume), Needs(P.ADMINISTER))
    },
    "/rollout/rollback": {
        "POST": Route(_rollout_call(archives.REASON_BODY, archives.roll_back), Needs(P.ADMINISTER))
    },
    "/rollout/canary": {
        "POST": Route(_rollout_call(archives.CANARY_BODY, archives.canary), Needs(P.ADMINISTER))
    },
    "/keys": {"GET": Route(list_keys, Needs(P.ADMINISTER))},
    "/keys/<purpose>/rotate": {"POST": Route(rotate_keys, Needs(P.ADMINISTER))},
    "/keys/<purpose>/revoke": {"POST": Route(revoke_key, Needs(P.ADMINISTER))},
    "/secrets": {"GET": Route(list_secrets, Needs(P.VIEW_SECRETS, On.ITEMS))},
    "/secrets/rotate": {"POST": Route(rotate_secrets, Needs(P.ADMINISTER))},
    "/secrets/<name>": {
        "PUT": Route(put_secret, Needs(P.CHANGE_SECRETS, On.ITEMS)),
        "DELETE": Route(delete_secret, Needs(P.CHANGE_SECRETS, On.ITEMS)),
    },
    "/openapi.json": {"GET": Route(get_openapi, Needs(None, On.NOTHING))},
    "/errors": {"GET": Route(list_errors, Needs(None, On.NOTHING))},
    "/audit": {"GET": Route(list_audit, Needs(P.VIEW_AUDIT))},
    "/": {},
    "/<path:rest>": {},
}
"""Every path with its methods, each with what it needs; the last two paths do not exist."""

BODY_LIMITS: Mapping[Handler, int] = {
    **dict.fromkeys(
        (validate_config, preview_config, apply_config, missing_blobs), CONFIG_BODY_LIMIT
    ),
    upload_archive: archives.MAX_UPLOAD_BYTES,
}
"""Calls whose bodies may be larger than others."""
UNREAD = frozenset({put_blob})
"""Calls that take their body in themselves, piece by piece."""


class ApiRoutes:
    """The Flask side of the API."""

    def __init__(self, server: ApiServer, door: Door) -> None:
        self._server = server
        self._door = door

    def blueprint(self) -> Blueprint:
        """Every route of the table."""
        routes = Blueprint("api", __name__)
        for path, handlers in TABLE.items():
            routes.add_url_rule(
                ROOT + path,
                path.replace(".", "_"),
                self._view(handlers),
                methods=VERBS,
                provide_automatic_options=False,
            )
        routes.register_error_handler(Refusal, problems.of_refusal)
        routes.register_error_handler(BodyTooLarge, problems.of_body_too_large)
        routes.register_error_handler(StoreError, problems.of_store_error)
        for kind in (
            404,
            405,
            HTTPException,
        ):  # the pages have 404 and 405 for the whole application
            routes.register_error_handler(kind, problems.of_http)
        routes.register_error_handler(Exception, problems.of_bug)
        routes.after_request(self._with_limits)
        return routes

    def _with_limits(self, response: Response) -> Response:
        """How many calls the caller's address may still make (RateLimit header fields)."""
        limits = self._door.limits
        rate = limits.address.rate
        if rate.per_s:
            address = network_of(self._door.address(request))
            left = limits.address.left(address, limits.clock.monotonic())
            response.headers["RateLimit-Policy"] = (
                f'"address";q={rate.burst:.0f};w={rate.burst / rate.per_s:.0f}'
            )
            response.headers["RateLimit"] = f'"address";r={left}'
        return response

    def _view(self, handlers: Mapping[str, Route]) -> Callable[..., Response]:
        def view(**path_values: str) -> Response:
            return self._answer(handlers, path_values)

        return view

    def _answer(self, handlers: Mapping[str, Route], path_values: Mapping[str, str]) -> Response:
        person = self._person(request)
        method = "GET" if request.method == "HEAD" else request.method
        if not handlers:
            raise Refusal(Code.NOT_FOUND, f"there is no {request.path}; see docs/api.md")
        if method not in handlers:
            raise MethodNotAllowed(sorted(handlers), f"use {' or '.join(sorted(handlers))} here")
        route = handlers[method]
        access.check_call(self._server, person.caller, route.needs, path_values)
        limit = BODY_LIMITS.get(route.handle, BODY_LIMIT)
        is_unread = method in READS or route.handle in UNREAD
        call = Call(
            server=self._server,
            person=person,
            query=request.args.to_dict(flat=False),
            body=b"" if is_unread else read_body(request, limit),
            base_url=self._door.base_url(request),
            idempotency_key=request.headers.get("Idempotency-Key", ""),
            source=request.stream,
            length=request.content_length,
            range=request.headers.get("Range", ""),
            if_match=request.headers.get("If-Match", ""),
        )
        answer = route.handle(call, **path_values)
        return respond(answer, request, self._server.concurrency)

    def _person(self, http: Request) -> Person:
        """Who asks? Raises Refusal UNAUTHENTICATED; nobody in particular changes nothing."""
        authorization = http.headers.get("Authorization", "")
        is_read = http.method in READS
        cookie = http.cookies.get(people.SESSION_COOKIE, "") if is_read else ""
        if not authorization and not is_read:
            raise people.no_key()
        return people.person_of_call(self._server, authorization, cookie)
