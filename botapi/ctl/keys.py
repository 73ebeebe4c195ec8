"""`skep keys`: which keys sign, a rotation begun, a key ended at once."""

from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.asking import confirm
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import NotFound
from botapi.ctl.http import segment
from botapi.ctl.output import Listing, key

Json = dict[str, Any]

KEYS = Listing(
    "key",
    (
        key("key_id"),
        key("purpose"),
        key("state"),
        key("since"),
        key("then"),
        key("then_at"),
    ),
)

_purpose = click.argument("purpose")


@click.group()
def keys() -> None:
    """List, rotate and revoke the keys that sign."""


@keys.command("list")
@client_command
def list_(call: Invocation) -> None:
    """List the keys by purpose: session, signing and oidc."""
    found = call.client.get("keys", "/keys")
    output.show_list(call.form, KEYS, found["items"], found)


@keys.command()
@_purpose
@client_command
def rotate(call: Invocation, purpose: str) -> None:
    """Make a new key for PURPOSE. It signs after a while, by itself; nothing is refused."""
    made = call.client.once(f"{purpose} keys", f"/keys/{segment(purpose)}/rotate", {})
    _show(call, made)
    waiting = next(item for item in made["keys"] if item["state"] == "next")
    call.note(f"key {waiting['key_id']} signs from {waiting['then_at']}")


@keys.command()
@_purpose
@click.argument("key_id")
@click.option("--reason", required=True, help="Why; kept in the audit record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def revoke(call: Invocation, purpose: str, key_id: str, reason: str, yes: bool) -> None:  # noqa: FBT001 - an option
    """End a key at once, because somebody else knows it. What it signed is void."""
    _confirm(call, purpose, key_id, yes=yes)
    path = f"/keys/{segment(purpose)}/revoke"
    made = call.client.once(f"key {key_id}", path, {"key_id": key_id, "reason": reason})
    _show(call, made)
    call.note(f"revoked; this stops: {made['stops']}")


def _confirm(call: Invocation, purpose: str, key_id: str, *, yes: bool) -> None:
    """Say what stops working, and ask."""
    items = call.client.get("keys", "/keys")["items"]
    found = [item for item in items if (item["purpose"], item["key_id"]) == (purpose, key_id)]
    if not found:
        raise NotFound(f"key {key_id}", f"no {purpose} key", "skep keys list shows what there is")
    confirm(call, f"revoking it stops: {found[0]['revoke_stops']}", "revoke it?", yes=yes)


def _show(call: Invocation, made: Json) -> None:
    output.show_list(call.form, KEYS, made["keys"], made)
