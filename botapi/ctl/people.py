"""`skep user` and `skep apikey`: who may do what, and the keys that prove who somebody is."""

from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.asking import confirm
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid, NotFound, plain
from botapi.ctl.http import segment
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import read_pages
from botapi.ctl.params import whole_duration

Json = dict[str, Any]
MOST = 10_000
"""Users or keys that a command looks at."""
ROLES = ("admin", "operator", "author", "viewer", "bootstrap")
USERS = Listing("user", (key("identity"), key("grants"), key("config_grants"), key("disabled_at")))
KEYS = Listing(
    "api_key",
    (key("key_id"), key("owner"), key("name"), key("scope"), key("expires_at"), key("used_at")),
)

_identity = click.argument("identity")
_reason = click.option("--reason", default="", help="Why; kept in the audit record.")
_role = click.argument("role", type=click.Choice(ROLES))
_pools = click.option("--pool", "pools", multiple=True, help="A pool; none is the whole server.")


@click.group()
def user() -> None:
    """Add people and scripts; grant them roles; disable them."""


@user.command("list")
@client_command
def list_users(call: Invocation) -> None:
    """List users with their own grants and those of the configuration."""
    items = _all(call, "users", "/users")
    output.show_list(call.form, USERS, items, {"items": items})


@user.command()
@_identity
@client_command
def add(call: Invocation, identity: str) -> None:
    """Add a user, as user:<e-mail or name>; nothing is granted yet."""
    made = call.client.once(f"user {identity}", "/users", {"identity": _full(identity)})
    output.show_item(call.form, "user", made["identity"], made)


@user.command()
@_identity
@_role
@_pools
@_reason
@client_command
def grant(call: Invocation, identity: str, role: str, pools: tuple[str, ...], reason: str) -> None:
    """Grant ROLE, in some pools or for the whole server."""
    wanted = _grants(role, pools)
    held = _held(call, identity)
    _set(call, identity, {"grants": held + [one for one in wanted if one not in held]}, reason)


@user.command()
@_identity
@_role
@_pools
@_reason
@client_command
def revoke(call: Invocation, identity: str, role: str, pools: tuple[str, ...], reason: str) -> None:
    """Take a grant away; those of the configuration stay."""
    taken, held = _grants(role, pools), _held(call, identity)
    if not all(one in held for one in taken):
        raise Invalid("ROLE", "not all of this is granted", "skep user list shows what is")
    _set(call, identity, {"grants": [one for one in held if one not in taken]}, reason)


@user.command()
@_identity
@_reason
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def disable(call: Invocation, identity: str, reason: str, yes: bool) -> None:  # noqa: FBT001 - an option
    """End the keys and sessions of a user at once."""
    confirm(call, f"{identity}: keys and sessions end", "disable the user?", yes=yes)
    _set(call, identity, {"disabled": True}, reason)


@user.command()
@_identity
@_reason
@client_command
def enable(call: Invocation, identity: str, reason: str) -> None:
    """Let a user in again, with the keys they had."""
    _set(call, identity, {"disabled": False}, reason)


@click.group()
def apikey() -> None:
    """Make, list and revoke API keys."""


@apikey.command()
@click.option("--name", required=True, help="What it is for.")
@click.option("--owner", default="", help="Whose key; yours when left out.")
@click.option("--role", type=click.Choice(ROLES), help="At most what this role may.")
@_pools
@click.option("--expires", "expires_s", type=whole_duration, default="0", help="Life, such as 90d.")
@client_command
def new(
    call: Invocation,
    name: str,
    owner: str,
    role: str | None,
    pools: tuple[str, ...],
    expires_s: int,
) -> None:
    """Print a new key, this once. It may what its owner may, and no more than you say here."""
    body: Json = {"name": name, "expires_s": expires_s}
    if owner:
        body["owner"] = _full(owner)
    if role or pools:
        body["scope"] = _grants(role or "admin", pools)
    made = call.client.once("API key", "/api-keys", body)
    if call.form == "table":
        click.echo(plain(made["key"]))
        until = made["expires_at"] or "it is revoked"
        call.note(f"key {made['key_id']} of {made['owner']}, until {until}; it is shown this once")
    else:
        output.show_item(call.form, "api_key", made["key_id"], made)


@apikey.command("list")
@click.option("--owner", help="Of this user only.")
@client_command
def list_keys(call: Invocation, owner: str | None) -> None:
    """List keys that are not revoked, without their secrets."""
    query = [("owner", _full(owner))] if owner else []
    items = [one for one in _all(call, "API keys", "/api-keys", query) if not one["revoked_at"]]
    output.show_list(call.form, KEYS, items, {"items": items})


@apikey.command("revoke")
@click.argument("key_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def revoke_key(call: Invocation, key_id: str, yes: bool) -> None:  # noqa: FBT001 - an option
    """End a key at once."""
    confirm(call, f"key {key_id} ends", "revoke the key?", yes=yes)
    made = call.client.delete(f"API key {key_id}", f"/api-keys/{segment(key_id)}")
    output.show_item(call.form, "api_key", made["key_id"], made)


def _full(identity: str) -> str:
    """`alice` is short for `user:alice`."""
    return identity if ":" in identity else f"user:{identity}"


def _grants(role: str, pools: tuple[str, ...]) -> list[Json]:
    return [{"role": role, "pool": pool} for pool in pools or ("",)]


def _held(call: Invocation, identity: str) -> list[Json]:
    """The grants of a user's own."""
    wanted = _full(identity)
    for found in _all(call, "users", "/users"):
        if found["identity"] == wanted:
            return [one | {"pool": one["pool"] or ""} for one in found["grants"]]
    raise NotFound(f"user {identity}", "there is none", "skep user add makes one")


def _set(call: Invocation, identity: str, body: Json, reason: str) -> None:
    path = f"/users/{segment(_full(identity))}"
    made = call.client.patch(f"user {identity}", path, body | {"reason": reason})
    output.show_item(call.form, "user", made["identity"], made)


def _all(
    call: Invocation, what: str, path: str, query: list[tuple[str, str]] | None = None
) -> list[Json]:
    items: list[Json] = read_pages(call, what, path, query or [], MOST)["items"]
    return items
