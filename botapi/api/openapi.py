"""The OpenAPI 3.1 document of `/api/v1`, made from the table of calls and from what stands here.

`python -m tools.openapi` writes it to `botapi/api/openapi.json`, which the server gives out;
tests compare the file, the parameters and every answer that they see with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from botapi import __version__
from botapi.api import (
    api_keys,
    archives,
    blobs,
    bootstrap,
    bots,
    config_push,
    ending,
    keys,
    retries,
    secrets,
    tasks,
    users,
)
from botapi.api.error_codes import CODES
from botapi.api.task_request import TaskBody
from botapi.domain.permissions import Needs, On

Json = dict[str, Any]
BINARY = "application/octet-stream"
PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Described:
    """One call. `answer` names a schema, or is empty for bytes; `query` are its parameters."""

    summary: str
    answer: str = ""
    query: str = ""
    body: type[Any] | str | None = None
    """A type of JSON body, or the media type of bytes."""
    statuses: tuple[int, ...] = (200,)
    media: str = BINARY
    is_idempotent: bool = False
    """Does it know `Idempotency-Key`?"""
    is_tagged: bool = False
    """Does it know `If-None-Match`?"""
    has_basis: bool = False
    """Does it know `If-Match`?"""


PAGE = "limit cursor"
LISTS = f"q count {PAGE}"

CALLS: Mapping[str, Described] = {
    "GET /tasks": Described(
        "List tasks, newest first.", "TaskPage", f"state tag bot user from to {LISTS}"
    ),
    "POST /tasks": Described(
        "Make a task, or with dry_run say what would be made.",
        "Task|DryRun",
        "wait dry_run",
        TaskBody,
        (200, 201),
        is_idempotent=True,
    ),
    "POST /tasks/collect": Described("Wait for tasks.", "Tasks", body=tasks.CollectBody),
    "POST /tasks/cancel": Described(
        "Cancel all tasks with these tags, soon.", "Matched", body=ending.CancelManyBody
    ),
    "GET /tasks/<task_id>": Described(
        "Read a task; wait holds it until final.", "Task", "wait", is_tagged=True
    ),
    "GET /tasks/<task_id>/why": Described("Say why a task is pending.", "Why", "limit offset"),
    "POST /tasks/<task_id>/cancel": Described(
        "Cancel a pending task, or kill a running one.", "Canceled", body=tasks.CancelBody
    ),
    "POST /tasks/<task_id>/retry": Described(
        "Make a task that ended once more, as a new one.",
        "Task",
        body=retries.RetryBody,
        statuses=(200, 201),
        is_idempotent=True,
    ),
    "GET /tasks/<task_id>/output": Described(
        "Read bytes of a task's output.", query="offset limit wait late"
    ),
    "GET /tasks/<task_id>/outputs": Described("List what a task left.", "Tree", PAGE),
    "GET /tasks/<task_id>/outputs.<kind>": Described(
        "Read all that a task left, as tar or zip.", media="*/*"
    ),
    "GET /tasks/<task_id>/outputs/<path:path>": Described(
        "Read a file that a task left.", statuses=(200, 206)
    ),
    "POST /blobs/missing": Described(
        "Ask which blobs have to be uploaded.", "Missing", body=blobs.MissingBody
    ),
    "GET /blobs/<digest>/<size>": Described("Read a blob, or a range of it.", statuses=(200, 206)),
    "PUT /blobs/<digest>/<size>": Described(
        "Keep a blob.", "Blob", body=BINARY, statuses=(200, 201)
    ),
    "GET /trees/<digest>/<size>": Described("List the files of a tree.", "Tree", PAGE),
    "GET /bots": Described("List bots by id.", "BotPage", f"dimension status at {LISTS}"),
    "GET /bots/<path:bot_id>": Described("Read a bot.", "Bot", is_tagged=True),
    "DELETE /bots/<path:bot_id>": Described("Forget a bot.", "Deleted", "reason"),
    "POST /bots/<path:bot_id>/terminate": Described(
        "Ask a bot to exit when it is free.", "TaskId", body=ending.WhyBody, statuses=(200, 201)
    ),
    "GET /bots/<path:bot_id>/tasks": Described(
        "List the tasks a bot ran.", "TaskPage", f"state tag user from to {LISTS}"
    ),
    "GET /bots/<path:bot_id>/events": Described("List a bot's events.", "EventPage", PAGE),
    "GET /bots/<path:bot_id>/timeline": Described(
        "Say what a bot was at, and how long.", "Timeline", "from to"
    ),
    "POST /bots/<path:bot_id>/quarantine": Described(
        "Keep a bot from work.", "Bot", body=bots.SteerBody
    ),
    "POST /bots/<path:bot_id>/pause": Described(
        "Give a bot no new work for a while.", "Bot", body=bots.SteerBody
    ),
    "POST /bots/<path:bot_id>/resume": Described(
        "End the pause of a bot.", "Bot", body=bots.ReasonBody
    ),
    "POST /bots/<path:bot_id>/restart": Described(
        "Have a bot start over when it is free.", "Bot", body=bots.ReasonBody
    ),
    "POST /bots/<path:bot_id>/release": Described(
        "Let a bot work again.", "Bot", body=bots.ReasonBody
    ),
    "GET /bootstrap-tokens": Described("List bootstrap tokens.", "BootstrapPage", PAGE),
    "POST /bootstrap-tokens": Described(
        "Make a bootstrap token; shown this once.",
        "NewBootstrapToken",
        body=bootstrap.TokenBody,
        statuses=(201,),
    ),
    "POST /bootstrap-tokens/<token_id>/revoke": Described(
        "End a bootstrap token.", "BootstrapToken", body=bootstrap.RevokeBody
    ),
    "GET /whoami": Described("Say who asks.", "Whoami"),
    "GET /users": Described("List users.", "UserPage", PAGE),
    "POST /users": Described("Make a user.", "User", body=users.UserBody, statuses=(201,)),
    "PATCH /users/<identity>": Described("Change a user.", "User", body=users.ChangeBody),
    "GET /api-keys": Described("List API keys.", "ApiKeyPage", f"owner {PAGE}"),
    "POST /api-keys": Described(
        "Make an API key; shown this once.", "NewApiKey", body=api_keys.KeyBody, statuses=(201,)
    ),
    "DELETE /api-keys/<key_id>": Described("End an API key.", "ApiKey"),
    "GET /config": Described("Read the configuration in force.", "Configuration"),
    "GET /config/bots.cfg": Described("Read bots.cfg in force.", "BotsCfg"),
    "GET /config/revisions": Described("List revisions.", "RevisionPage", PAGE),
    "GET /config/revisions/<rev>": Described("Read a revision.", "RevisionWithFiles"),
    "POST /config/validate": Described("Check files.", "Validated", body=config_push.FilesBody),
    "POST /config/preview": Described(
        "Say what a change would do.", "Preview", body=config_push.PreviewBody
    ),
    "POST /config/apply": Described(
        "Apply files.", "Applied", body=config_push.ApplyBody, has_basis=True
    ),
    "POST /config/rollback": Described(
        "Apply an old revision again.", "Applied", body=config_push.RollbackBody, has_basis=True
    ),
    "GET /archives": Described("List bot archives.", "Releases"),
    "POST /archives": Described(
        "Upload a bot archive.",
        "Release",
        "file_name allow_unsigned",
        "application/zip",
        (201,),
    ),
    "GET /archives/<release>": Described("Read a release.", "ReleaseWithMembers"),
    "GET /rollout": Described("Say which archives bots get.", "Rollout"),
    "POST /rollout": Described("Begin a rollout.", "Rollout", body=archives.StartBody),
    "POST /rollout/halt": Described("Halt it.", "Rollout", body=archives.ReasonBody),
    "POST /rollout/resume": Described("Go on.", "Rollout", body=archives.ReasonBody),
    "POST /rollout/rollback": Described("Take it back.", "Rollout", body=archives.ReasonBody),
    "POST /rollout/canary": Described("Set the canary.", "Rollout", body=archives.CanaryBody),
    "GET /keys": Described("List the keys that sign.", "Keys"),
    "POST /keys/<purpose>/rotate": Described("Make a new key.", "KeySet", statuses=(201,)),
    "POST /keys/<purpose>/revoke": Described("End a key.", "RevokedKey", body=keys.RevokeBody),
    "GET /secrets": Described("List secrets, without values.", "Secrets"),
    "PUT /secrets/<name>": Described("Set a secret.", "Secret", body=secrets.SecretBody),
    "DELETE /secrets/<name>": Described("Remove a secret.", "Deleted", "reason"),
    "POST /secrets/rotate": Described("Wrap all anew.", "Rewrapped", body=secrets.RotateBody),
    "GET /audit": Described("List what people changed.", "AuditPage", PAGE),
    "GET /errors": Described("List what a problem's code means.", "Errors"),
    "GET /openapi.json": Described("Read this document.", "any"),
}

_PAGED = {"next_cursor": "str?"}
_COUNT = {"count": "int!", "count_kind": "str!"}
_REQUEST = {
    "name": "str",
    "user": "str",
    "authenticated": "str",
    "priority": "int",
    "tags": "[str]",
    "bot_ping_tolerance_s": "int",
    "service_account": "str",
    "realm": "str?",
    "parent_task_id": "str?",
    "root_task_id": "str?",
    "pubsub_topic": "str?",
    "pubsub_userdata": "str?",
    "pool_task_template": "str?",
    "secrets": "{str}",
    "max_retries": "int",
    "retry_of": "str?",
    "retry_number": "int",
    "slices": "[Slice]",
}
_SECRET = {
    "name": "str",
    "version": "int",
    "pools": "[str]",
    "created_at": "time",
    "changed_at": "time",
    "changed_by": "str",
    "key_id": "str",
}
_API_KEY = {
    "key_id": "str",
    "name": "str",
    "owner": "str",
    "role": "str?",
    "scope": "[Grant]?",
    "created_at": "time?",
    "expires_at": "time?",
    "revoked_at": "time?",
    "used_at": "time?",
}
_REVISION = {
    "rev": "int",
    "digest": "str?",
    "author": "str?",
    "reason": "str?",
    "applied_at": "time?",
    "in_force": "bool",
}
_RELEASE = {
    "release_id": "str",
    "label": "str",
    "number": "int?",
    "origin": "str",
    "used_as": "[str]",
    "is_rejected": "bool",
    "key_id": "str?",
    "min_server": "str?",
    "file_name": "str?",
    "files": "int",
    "size": "int",
    "created_at": "time?",
    "actor": "str?",
}
_KEY_SET = {"purpose": "str", "signs": "str", "keys": "[Key]"}

SCHEMAS: Mapping[str, Mapping[str, str]] = {
    "Task": _REQUEST
    | {
        "task_id": "str",
        "run_id": "str?",
        "state": "str",
        "cause": "str?",
        "error": "str?",
        "slice_index": "int",
        "created_at": "time",
        "started_at": "time?",
        "completed_at": "time?",
        "abandoned_at": "time?",
        "bot_id": "str?",
        "exit_code": "int?",
        "duration_s": "num?",
        "failure": "bool",
        "internal_failure": "bool",
        "killing": "bool",
        "cost_usd": "num",
        "cost_saved_usd": "num",
        "deduped_from": "str?",
        "retried_as": "str?",
        "cas_output_root": "CasReference?",
        "cipd_pins": "any",
        "missing_cas": "[CasReference]",
        "missing_cipd": "[any]",
        "performance": "any",
        "output_bytes": "int",
        "missing_bytes": "int",
        "late_bytes": "int",
        "output_limit_hit": "bool",
        "why": "str?",
    },
    "Request": _REQUEST,
    "DryRun": {"request": "Request", "matching_bots": "[int?]"},
    "Slice": {
        "command": "[str]",
        "dimensions": "{[str]}",
        "env": "{str}",
        "env_prefixes": "{[str]}",
        "relative_cwd": "str",
        "expiration_s": "int",
        "hard_timeout_s": "int",
        "io_timeout_s": "int",
        "grace_period_s": "int",
        "wait_for_capacity": "bool",
        "idempotent": "bool",
        "caches": "[Cache]",
        "cas_input_root": "CasReference?",
        "cipd_input": "any",
        "outputs": "[str]",
        "containment": "Containment",
        "has_secret_bytes": "bool",
        "properties_hash": "str?",
    },
    "Cache": {"name": "str", "path": "str"},
    "Containment": {
        "containment_type": "str",
        "lower_priority": "bool",
        "limit_processes": "int",
        "limit_total_committed_memory": "int",
    },
    "TaskPage": {"items": "[Task]", **_PAGED, **_COUNT},
    "Tasks": {"items": "[Task]"},
    "TaskId": {"task_id": "str"},
    "Matched": {"matched": "int", **_PAGED},
    "Canceled": {"canceled": "bool", "was_running": "bool", "task": "Task"},
    "Tree": {"items": "[any]", "next_cursor": "str?", "root": "any!"},
    "Missing": {"missing": "[str]", "limit": "int"},
    "Blob": {"digest": "str"},
    "Bot": {
        "bot_id": "str",
        "status": "str",
        "dimensions": "{[str]}",
        "state": "any",
        "version": "str?",
        "expected_version": "str?",
        "task_id": "str?",
        "quarantine_reason": "str?",
        "maintenance": "str?",
        "quarantined_until": "time?",
        "paused_until": "time?",
        "restart_asked": "str?",
        "first_seen_at": "time?",
        "last_seen_at": "time?",
        "external_ip": "str?",
        "authenticated_as": "str?",
        "session_id": "str?",
        "note": "str?",
    },
    "BotPage": {"items": "[Bot]", **_PAGED, "counts": "{int}?", **_COUNT},
    "Event": {
        "event_id": "str",
        "at": "time",
        "event": "str",
        "message": "str?",
        "task_id": "str?",
        "version": "str?",
        "session_id": "str?",
        "external_ip": "str?",
        "quarantined": "str?",
        "maintenance": "str?",
    },
    "EventPage": {"items": "[Event]", **_PAGED},
    "Timeline": {
        "bot_id": "str",
        "from": "time",
        "to": "time",
        "cut": "bool",
        "intervals": "[Interval]",
        "shares": "[Share]",
    },
    "Interval": {
        "begin": "time",
        "end": "time",
        "seconds": "num",
        "state": "str",
        "task_id": "str?",
        "reason": "str?",
    },
    "Share": {"state": "str", "seconds": "num", "share": "num"},
    "Deleted": {"deleted": "bool"},
    "BootstrapToken": {
        "token_id": "str",
        "pool": "str?",
        "creator": "str",
        "uses": "int",
        "uses_left": "int",
        "created_at": "time?",
        "expires_at": "time?",
        "revoked_at": "time?",
        "problem": "str?",
    },
    "BootstrapPage": {"items": "[BootstrapToken]", **_PAGED},
    "NewBootstrapToken": {
        "token": "str",
        "token_id": "str",
        "expires_at": "time",
        "uses": "int",
        "command": "str",
    },
    "Grant": {"role": "str", "pool": "str?"},
    "Whoami": {
        "actor": "str",
        "role": "str",
        "identity": "str",
        "grants": "[Grant]",
        "scope": "[Grant]?",
        "api_key": "str?",
        "expires_at": "time?",
    },
    "User": {
        "identity": "str",
        "grants": "[Grant]",
        "config_grants": "[Grant]",
        "disabled_at": "time?",
        "created_at": "time?",
    },
    "UserPage": {"items": "[User]", **_PAGED},
    "ApiKey": _API_KEY,
    "NewApiKey": {**_API_KEY, "key": "str"},
    "ApiKeyPage": {"items": "[ApiKey]", **_PAGED},
    "BotsCfg": {"digest": "str?", "text": "str", "applied_at": "time?", "error": "str?"},
    "OnDisk": {"state": "str", "digest": "str?", "mistakes": "[str]", "kept_out_at": "time?"},
    "Revision": _REVISION,
    "RevisionWithFiles": {**_REVISION, "files": "{str}"},
    "RevisionPage": {"items": "[Revision]", **_PAGED},
    "Configuration": {**_REVISION, "files": "{str}", "on_disk": "OnDisk"},
    "Validated": {"digest": "str", "mistakes": "[str]", "warnings": "[str]"},
    "Applied": {
        **_REVISION,
        "is_new": "bool",
        "live_bots": "int",
        "dropped_bots": "int",
        "restarting_bots": "int",
        "warnings": "[str]",
    },
    "Preview": {
        "parent": "str?",
        "parent_rev": "int",
        "digest": "str",
        "is_new": "bool",
        "files": "[str]",
        "warnings": "[str]",
        "live_bots": "int",
        "changed_bots": "int",
        "restarting_bots": "int",
        "dropped_bots": "int",
        "max_dropped_percent": "int",
        "needs_drop": "bool",
        "bots": "[any]",
        "bots_cut": "bool",
        "tasks": "[any]",
        "tasks_cut": "bool",
    },
    "Release": _RELEASE,
    "ReleaseWithMembers": {**_RELEASE, "version": "str", "members": "[any]"},
    "Releases": {"items": "[Release]"},
    "Rollout": {
        "stable": "str?",
        "former": "str?",
        "source": "str?",
        "follows_source": "bool",
        "canary": "any",
        "fixed_by_settings_cfg": "bool",
        "pins": "[any]",
        "problem": "str?",
        "rollout": "any",
    },
    "Key": {
        "purpose": "str",
        "key_id": "str",
        "state": "str",
        "created_at": "time?",
        "since": "time?",
        "then": "str?",
        "then_at": "time?",
        "revoke_stops": "str",
    },
    "Keys": {"items": "[Key]", **_PAGED},
    "KeySet": _KEY_SET,
    "RevokedKey": {**_KEY_SET, "revoked": "str", "stops": "str"},
    "Secret": _SECRET,
    "Secrets": {"items": "[Secret]", **_PAGED},
    "Rewrapped": {"key_id": "str", "rewrapped": "int", "left": "int"},
    "AuditEntry": {
        "at": "time",
        "actor": "str",
        "verb": "str",
        "target": "str",
        "reason": "str",
        "before": "str",
        "after": "str",
    },
    "AuditPage": {"items": "[AuditEntry]", **_PAGED},
    "Error": {"code": "str", "status": "int", "meaning": "str"},
    "Errors": {"items": "[Error]", **_PAGED},
    "CasDigest": {"hash": "str!", "size_bytes": "int!"},
    "CasReference": {"cas_instance": "str!", "digest": "CasDigest!"},
    "WhyBot": {"bot_id": "str", "reason": "str", "detail": "str", "misses": "[str]"},
    "Why": {
        "task_id": "str",
        "state": "str",
        "summary": "str",
        "slice_index": "int!",
        "slice_count": "int!",
        "slice_expires_at": "time!",
        "wait_for_capacity": "bool!",
        "pool": "str?!",
        "offered_to": "str?!",
        "queue_position": "int!",
        "pool_position": "int!",
        "bots_looked_at": "int!",
        "bots_cut": "bool!",
        "obstacles": "{int}!",
        "would_help": "[str]",
        "bots": "[WhyBot]",
        "next_offset": "int?",
    },
}
"""Answers: field to type. `?` may be null, `!` may be absent, `[x]` a list, `{x}` a map."""

_PLAIN: Mapping[str, Json] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "any": {},
}


def schema_of(word: str) -> Json:
    """The schema of a type as it is written in `SCHEMAS`."""
    word = word.rstrip("!")
    if word.endswith("?"):
        return {"anyOf": [schema_of(word[:-1]), {"type": "null"}]}
    if word.startswith("["):
        return {"type": "array", "items": schema_of(word[1:-1])}
    if word.startswith("{"):
        return {"type": "object", "additionalProperties": schema_of(word[1:-1])}
    if word in _PLAIN:
        return dict(_PLAIN[word])
    if "|" in word:
        return {"anyOf": [schema_of(part) for part in word.split("|")]}
    return {"$ref": f"#/components/schemas/{word}"}


def document(table: Mapping[str, Mapping[str, Needs]]) -> Json:
    """The whole document, for calls with these needs. Raises KeyError for one not described."""
    bodies = list(dict.fromkeys(c.body for c in CALLS.values() if isinstance(c.body, type)))
    found, own = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    body_schemas = dict(zip(bodies, found, strict=True))
    paths: dict[str, Json] = {}
    for path, methods in table.items():
        for method, needs in methods.items():
            entry = paths.setdefault(_path(path), {})
            call = CALLS[f"{method} {path}"]
            entry[method.lower()] = _operation(method, path, needs, call)
            if call.body is not None:
                entry[method.lower()]["requestBody"] = _request(call.body, body_schemas)
    answers = {
        name: {
            "type": "object",
            "properties": {field: schema_of(word) for field, word in fields.items()},
            "required": [field for field, word in fields.items() if not word.endswith("!")],
            "additionalProperties": False,
        }
        for name, fields in SCHEMAS.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Skep",
            "version": __version__,
            "description": "Tasks and bots, for people and scripts; docs/api.md says more.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            "schemas": {**own, **answers, "Problem": _PROBLEM_SCHEMA},
            "responses": {
                "Problem": {
                    "description": "What was wrong, where, and what to do.",
                    "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


_PROBLEM_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"enum": sorted(CODES)},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
            },
        },
        "retry_after_s": {"type": "integer"},
    },
    "required": ["type", "title", "status", "detail", "code", "instance"],
}


def _path(path: str) -> str:
    return path.replace("<path:", "<").replace("<", "{").replace(">", "}")


def _operation(method: str, path: str, needs: Needs, call: Described) -> Json:
    names = [part.rpartition(":")[2].partition(">")[0] for part in path.split("<")[1:]]
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in call.query.split()
    ]
    parameters += _headers(call)
    unchanged = {"304": {"description": "What If-None-Match names is still so."}}
    return {
        "operationId": _operation_id(method, path),
        "summary": call.summary,
        "description": _needed(needs),
        "parameters": parameters,
        "responses": {str(status): _answer(call) for status in call.statuses}
        | (unchanged if call.is_tagged else {})
        | {"default": {"$ref": "#/components/responses/Problem"}},
    }


def _headers(call: Described) -> list[Json]:
    known: dict[str, Json] = {}
    if call.is_idempotent:
        known["Idempotency-Key"] = {"type": "string", "pattern": "^[A-Za-z0-9_/-]{1,50}$"}
    if call.is_tagged:
        known["If-None-Match"] = {"type": "string"}
    if call.has_basis:
        known["If-Match"] = {"type": "string"}
    return [{"name": name, "in": "header", "schema": schema} for name, schema in known.items()]


def _operation_id(method: str, path: str) -> str:
    words = path.replace("<path:", "").replace("<", "").replace(">", "")
    return "_".join([method.lower(), *words.replace(".", "_").replace("-", "_").split("/")[1:]])


def _needed(needs: Needs) -> str:
    if needs.permission is None:
        return "Needs no permission."
    where = "for the server" if needs.on is On.SERVER else f"on {needs.on}"
    return f"Needs swarming.{needs.permission} {where}."


def _request(body: type[Any] | str, schemas: Mapping[type[Any], Json]) -> Json:
    if isinstance(body, str):
        content = {body: {"schema": {"type": "string", "format": "binary"}}}
    else:
        content = {"application/json": {"schema": schemas[body]}}
    return {"required": True, "content": content}


def _answer(call: Described) -> Json:
    if not call.answer:
        schema: Json = {"type": "string", "format": "binary"}
        return {"description": "The bytes.", "content": {call.media: {"schema": schema}}}
    return {
        "description": call.summary,
        "content": {"application/json": {"schema": schema_of(call.answer)}},
    }
