"""The body of `POST /tasks` as a `NewTask`: names, types and defaults (docs/api.md).

What the values may be is checked where both APIs do it, in `domain/new_task.py`.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from botapi.domain.artifacts import (
    CasDigest,
    CasReference,
    CipdInput,
    CipdPackage,
    NamedCache,
)
from botapi.domain.errors import refuse
from botapi.domain.new_task import MAX_NAME, Form, NewTask, TemplateChoice, common_secret
from botapi.domain.slice_rules import CONTAINMENT_TYPES
from botapi.domain.task import Slice

DEFAULT_POOL = "default"
CAS_INSTANCE = "projects/local/instances/default"
"""The name of this server's own store of files."""
Unset = UnsetType


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A JSON object in which every key means something."""


class CacheBody(_Strict):
    """A named cache."""

    name: str
    path: str


class DigestBody(_Strict):
    """The digest of a tree of files."""

    hash: str
    size_bytes: int = 0


class CasBody(_Strict):
    """A tree of files; without an instance, in this server's own store."""

    digest: DigestBody
    cas_instance: str = CAS_INSTANCE


class PackageBody(_Strict):
    """A package; `path` is empty for the client."""

    package_name: str
    version: str
    path: str = ""


class CipdBody(_Strict):
    """Packages; server and client are those of pools.cfg when they are not said."""

    packages: list[PackageBody]
    server: str = ""
    client_package: PackageBody | None = None


class ContainmentBody(_Strict):
    """How far the run is kept apart."""

    containment_type: Literal["NOT_SPECIFIED", "NONE", "AUTO", "JOB_OBJECT"] = "NOT_SPECIFIED"
    lower_priority: bool = False
    limit_processes: int = 0
    limit_total_committed_memory: int = 0


class SliceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One slice as it is written; UNSET is "not given"."""

    command: list[str] | Unset = UNSET
    dimensions: dict[str, list[str]] | Unset = UNSET
    env: dict[str, str] | Unset = UNSET
    env_prefixes: dict[str, list[str]] | Unset = UNSET
    relative_cwd: str | Unset = UNSET
    expiration_s: int | Unset = UNSET
    hard_timeout_s: int | Unset = UNSET
    io_timeout_s: int | Unset = UNSET
    grace_period_s: int | Unset = UNSET
    wait_for_capacity: bool | Unset = UNSET
    idempotent: bool | Unset = UNSET
    caches: list[CacheBody] | Unset = UNSET
    cas_input_root: CasBody | Unset | None = UNSET
    cipd_input: CipdBody | Unset | None = UNSET
    outputs: list[str] | Unset = UNSET
    containment: ContainmentBody | Unset = UNSET
    secret_bytes_b64: str | Unset = UNSET


class TaskBody(SliceBody, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A task as it is written: the keys of one slice, or `slices`."""

    name: str = ""
    priority: int = 100
    user: str = ""
    tags: list[str] = []
    bot_ping_tolerance_s: int = 1200
    service_account: str = ""
    realm: str = ""
    parent_task_id: str = ""
    pubsub_topic: str = ""
    pubsub_auth_token: str = ""
    pubsub_userdata: str = ""
    pool_task_template: TemplateChoice = TemplateChoice.AUTO
    secrets: dict[str, str] = {}
    max_retries: int = 0
    slices: list[SliceBody] | Unset = UNSET


SLICE_KEYS = SliceBody.__struct_fields__


def form_of(body: TaskBody) -> Form:
    """As it is written, and with timeouts from 1 s on or none (docs/api.md)."""
    return Form(is_flat=body.slices is UNSET, min_timeout_s=1, may_be_unlimited=True)


def new_task(body: TaskBody, request_uuid: str) -> NewTask:
    """What the body asks for. Raises Refusal with the place of what cannot be read."""
    form, bodies = form_of(body), _slice_bodies(body)
    slices = tuple(_slice(form.place(index), slice_) for index, slice_ in enumerate(bodies))
    return NewTask(
        name=body.name or _first_word(slices),
        slices=slices,
        priority=body.priority,
        tags=tuple(dict.fromkeys(body.tags)),
        user=body.user,
        service_account=body.service_account,
        realm=body.realm,
        parent_task_id=body.parent_task_id,
        pubsub_topic=body.pubsub_topic,
        pubsub_auth_token=body.pubsub_auth_token,
        pubsub_userdata=body.pubsub_userdata,
        bot_ping_tolerance_s=body.bot_ping_tolerance_s,
        request_uuid=request_uuid,
        template=body.pool_task_template,
        secret_bytes=common_secret(
            [_secret(form.place(index), slice_) for index, slice_ in enumerate(bodies)], form
        ),
        secrets=body.secrets,
        max_retries=body.max_retries,
    )


def _slice_bodies(body: TaskBody) -> Sequence[SliceBody]:
    if body.slices is UNSET:
        return [body]
    for key in SLICE_KEYS:
        if getattr(body, key) is not UNSET:
            raise refuse(f"/{key}", "stands beside slices; write it into each slice")
    return body.slices


def _first_word(slices: Sequence[Slice]) -> str:
    return slices[0].command[0][:MAX_NAME] if slices and slices[0].command else "task"


def _slice(place: str, body: SliceBody) -> Slice:
    if body.command is UNSET:
        raise refuse(f"{place}/command", "is missing; give the program and its arguments")
    containment = _or(body.containment, ContainmentBody())
    default = Slice((), {})
    return Slice(
        command=tuple(body.command),
        dimensions=_dimensions(_or(body.dimensions, {})),
        env=_or(body.env, {}),
        env_prefixes={name: tuple(paths) for name, paths in _or(body.env_prefixes, {}).items()},
        relative_cwd=_or(body.relative_cwd, ""),
        expiration_s=_or(body.expiration_s, default.expiration_s),
        hard_timeout_s=_or(body.hard_timeout_s, default.hard_timeout_s),
        io_timeout_s=_or(body.io_timeout_s, default.io_timeout_s),
        grace_period_s=_or(body.grace_period_s, default.grace_period_s),
        wait_for_capacity=_or(body.wait_for_capacity, default=False),
        caches=tuple(NamedCache(cache.name, cache.path) for cache in _or(body.caches, [])),
        cas_input_root=_cas(_or(body.cas_input_root, None)),
        cipd_input=_cipd(_or(body.cipd_input, None)),
        outputs=tuple(_or(body.outputs, [])),
        containment_type=CONTAINMENT_TYPES.index(containment.containment_type),
        lower_priority=containment.lower_priority,
        limit_processes=containment.limit_processes,
        limit_total_committed_memory=containment.limit_total_committed_memory,
        idempotent=_or(body.idempotent, default=False),
        has_secret_bytes=bool(_or(body.secret_bytes_b64, "")),
    )


def _or(value: Any, default: Any) -> Any:  # noqa: ANN401 - whatever the field holds
    return default if value is UNSET else value


def _dimensions(asked: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    wanted = {key: tuple(values) for key, values in asked.items()}
    wanted.setdefault("pool", (DEFAULT_POOL,))
    return wanted


def _cas(body: CasBody | None) -> CasReference | None:
    if body is None:
        return None
    return CasReference(body.cas_instance, CasDigest(body.digest.hash, body.digest.size_bytes))


def _cipd(body: CipdBody | None) -> CipdInput | None:
    if body is None:
        return None
    client = None if body.client_package is None else _package(body.client_package)
    return CipdInput(body.server, client, tuple(map(_package, body.packages)))


def _package(body: PackageBody) -> CipdPackage:
    return CipdPackage(body.package_name, body.version, body.path)


def _secret(place: str, body: SliceBody) -> bytes:
    try:
        return base64.b64decode(_or(body.secret_bytes_b64, ""), validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"{place}/secret_bytes_b64", "is not base64") from None
