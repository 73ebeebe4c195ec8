"""`skep secret`: set, list, remove and wrap anew; a value is never an argument, nor printed."""

import base64
import sys
from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.asking import confirm, is_terminal
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid
from botapi.ctl.http import segment
from botapi.ctl.output import Listing, key

Json = dict[str, Any]
MAX_BYTES = 64 * 1024

SECRETS = Listing(
    "secret",
    (
        key("name"),
        key("version"),
        key("pools"),
        key("changed_at"),
        key("changed_by"),
        key("key_id"),
    ),
)

_name = click.argument("name")
_reason = click.option("--reason", default="", help="Why; kept in the audit record.")


@click.group()
def secret() -> None:
    """Set, list, remove and re-wrap the secrets that tasks may name."""


@secret.command("set")
@_name
@click.option("--pool", "pools", multiple=True, required=True, help="Whose tasks; * for any.")
@click.option(
    "--from-file", type=click.File("rb"), help="Where the value is; - or nothing is stdin."
)
@_reason
@client_command
def set_(
    call: Invocation,
    name: str,
    pools: tuple[str, ...],
    from_file: Any | None,  # noqa: ANN401 - a file
    reason: str,
) -> None:
    """Set NAME to what stdin or a file holds; on a terminal it is asked for, unseen.

    One line end at the end is taken off.
    """
    body = {"pools": list(pools), "value_b64": _value(name, from_file), "reason": reason}
    made = call.client.put(f"secret {name}", f"/secrets/{segment(name)}", body)
    output.show_list(call.form, SECRETS, [made], made)


def _value(name: str, from_file: Any | None) -> str:  # noqa: ANN401 - a file
    if from_file is None and is_terminal():
        raw: bytes = click.prompt(f"value of {name}", hide_input=True, err=True).encode()
    else:
        raw = (from_file or sys.stdin.buffer).read(MAX_BYTES + 2)
    value = raw.removesuffix(b"\n").removesuffix(b"\r")
    if len(value) > MAX_BYTES:
        raise Invalid(f"secret {name}", f"has more than {MAX_BYTES} bytes")
    return base64.b64encode(value).decode()


@secret.command("list")
@client_command
def list_(call: Invocation) -> None:
    """List names, versions and pools; never a value."""
    found = call.client.get("secrets", "/secrets")
    output.show_list(call.form, SECRETS, found["items"], found)


@secret.command("rm")
@_name
@_reason
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def remove(call: Invocation, name: str, reason: str, yes: bool) -> None:  # noqa: FBT001 - an option
    """Remove NAME. Tasks that name it fail when a bot takes them."""
    confirm(call, f"secret {name}", "remove it?", yes=yes)
    query = (("reason", reason),) if reason else ()
    call.client.delete(f"secret {name}", f"/secrets/{segment(name)}", query)
    call.note(f"secret {name} is removed")


@secret.command()
@click.option(
    "--new-key/--no-new-key",
    default=True,
    help="Make a new key first (default), or use the first one of the key file.",
)
@_reason
@client_command
def rotate(call: Invocation, new_key: bool, reason: str) -> None:  # noqa: FBT001 - an option
    """Wrap every secret with a new key, and drop the old keys from the key file."""
    done = call.client.once("secrets", "/secrets/rotate", {"new_key": new_key, "reason": reason})
    call.note(f"{done['rewrapped']} secrets are wrapped with key {done['key_id']}")
    if done["left"]:
        raise Invalid("secrets", f"{done['left']} were changed meanwhile", "rotate again")
