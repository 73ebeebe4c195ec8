"""The store of secrets: set, listed, taken away, wrapped anew; a value never comes back."""

import base64
import binascii
from collections.abc import Sequence

import msgspec

from botapi.api import access, queries
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import refuse
from botapi.api.views import rfc3339
from botapi.domain.dimensions import value_problem
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Permission
from botapi.secrets.envelope import BadSeal
from botapi.secrets.key_file import KeyFileError, add_key, keep_active
from botapi.secrets.vault import (
    ANY_POOL,
    MAX_POOLS,
    MAX_VALUE_BYTES,
    MIN_VALUE_BYTES,
    Secret,
    all_secrets,
    name_problem,
    secret_of,
)
from botapi.transactions.cancel_task import Actor
from botapi.transactions.change_secret import (
    Contended,
    delete_secret,
    rewrap_secret,
    rewrap_task_secrets,
    set_secret,
)


class SecretBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /secrets/<name>`; the value as text or in base64."""

    pools: list[str]
    value: str | None = None
    value_b64: str | None = None
    reason: str = ""

    def __repr__(self) -> str:
        """Without the value: a log line must never have it."""
        return f"SecretBody(pools={self.pools!r})"


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /secrets/rotate`."""

    new_key: bool = True
    reason: str = ""


SECRET_BODY = Body(SecretBody)
ROTATE_BODY = Body(RotateBody)


def listed(parts: ApiParts, caller: Caller) -> Json:
    """Every secret that the caller may know of, by name, without a value."""
    secrets = parts.concurrency.native(lambda: list(all_secrets(parts.store)))
    items = [
        _view(secret) for secret in secrets if _may(caller, Permission.VIEW_SECRETS, secret.pools)
    ]
    return {"items": items, "next_cursor": None}


def put(parts: ApiParts, caller: Caller, actor: str, name: str, body: SecretBody) -> Json:
    """A new version of the secret. Raises Refusal."""
    problem = name_problem(name)
    if problem:
        raise refuse("/name", f'"{name[:80]}" {problem}')
    pools = _pools(body.pools)
    _check(caller, pools)
    before = secret_of(parts.store, name)
    if before is not None:
        _check(caller, before.pools)
    value = _value(body)
    asking = Actor(actor, queries.reason(body.reason), parts.new_id())
    try:
        made = set_secret(
            parts.store,
            name,
            pools,
            lambda place: parts.vault.seal(place, value),
            asking,
            parts.clock.now_ms(),
        )
    except KeyFileError as error:
        raise Refusal(Code.FAILED_PRECONDITION, str(error)) from None
    except Contended:
        raise Refusal(Code.ABORTED, f"others change secret {name} too; try again") from None
    return _view(made)


def delete(parts: ApiParts, caller: Caller, actor: str, name: str, reason: str) -> Json:
    """Take it away. Raises Refusal NOT_FOUND."""
    secret = secret_of(parts.store, name)
    if secret is None or not _may(caller, Permission.VIEW_SECRETS, secret.pools):
        raise Refusal(Code.NOT_FOUND, f'there is no secret "{name[:80]}"')
    _check(caller, secret.pools)
    asking = Actor(actor, queries.reason(reason), parts.new_id())
    deleted = delete_secret(parts.store, name, asking, parts.clock.now_ms())
    return {"deleted": deleted}


def rotate(parts: ApiParts, body: RotateBody) -> Json:
    """Wrap every secret with the first key of the file, a new one with `new_key`.

    Keys that wrap nothing any more are dropped from the file. Raises Refusal.
    """
    try:
        if body.new_key:
            add_key(parts.vault.path, parts.rng)
        counted = parts.concurrency.native(lambda: _rewrap_all(parts))
        if body.new_key and not counted["left"]:
            keep_active(parts.vault.path)
        return {"key_id": parts.vault.keys().active_id, **counted}
    except (KeyFileError, BadSeal) as error:
        raise Refusal(Code.FAILED_PRECONDITION, str(error)) from None


def _rewrap_all(parts: ApiParts) -> dict[str, int]:
    rewrapped = left = 0
    active = parts.vault.keys().active_id
    for secret in all_secrets(parts.store):
        if secret.sealed.key_id != active:
            done = rewrap_secret(parts.store, secret, parts.vault.rewrap)
            rewrapped, left = rewrapped + done, left + (not done)
    for done in rewrap_task_secrets(parts.store, active, parts.vault.rewrap):
        rewrapped, left = rewrapped + done, left + (not done)
    return {"rewrapped": rewrapped, "left": left}


def _may(caller: Caller, permission: Permission, pools: Sequence[str]) -> bool:
    return caller.may(permission) or (
        ANY_POOL not in pools and caller.may_in_all(permission, pools)
    )


def _check(caller: Caller, pools: Sequence[str]) -> None:
    is_for_all = ANY_POOL in pools
    access.check_pools(caller, Permission.CHANGE_SECRETS, () if is_for_all else pools)


def _pools(pools: list[str]) -> tuple[str, ...]:
    if not 1 <= len(pools) <= MAX_POOLS:
        raise refuse("/pools", f"has {len(pools)} entries, not from 1 to {MAX_POOLS}")
    for index, pool in enumerate(pools):
        problem = "" if pool == ANY_POOL else value_problem("pool", pool)
        if problem:
            raise refuse(f"/pools/{index}", problem)
    return tuple(sorted(set(pools)))


def _value(body: SecretBody) -> bytes:
    if (body.value is None) == (body.value_b64 is None):
        raise refuse("/value", "give either value or value_b64")
    try:
        value = (
            body.value.encode()
            if body.value is not None
            else base64.b64decode(body.value_b64 or "", validate=True)
        )
    except (binascii.Error, UnicodeEncodeError):
        raise refuse("/value_b64", "is not base64") from None
    if not MIN_VALUE_BYTES <= len(value) <= MAX_VALUE_BYTES:
        most = f"not from {MIN_VALUE_BYTES} to {MAX_VALUE_BYTES}"
        raise refuse("/value", f"has {len(value)} bytes, {most}")
    return value


def _view(secret: Secret) -> Json:
    return {
        "name": secret.name,
        "version": secret.version,
        "pools": list(secret.pools),
        "created_at": rfc3339(secret.created_ms),
        "changed_at": rfc3339(secret.changed_ms),
        "changed_by": secret.changed_by,
        "key_id": secret.sealed.key_id,
    }
