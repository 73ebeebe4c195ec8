"""`skep bootstrap new`: the line that makes a machine a bot."""

from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import plain
from botapi.ctl.params import whole_duration


@click.group()
def bootstrap() -> None:
    """Make the line that installs a bot."""


@bootstrap.command()
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="Machines.")
@click.option(
    "--ttl",
    "ttl_s",
    type=whole_duration,
    default="1h",
    show_default=True,
    help="How long it works.",
)
@click.option("--pool", help="Pool of the bots that are installed with it.")
@client_command
def new(call: Invocation, uses: int, ttl_s: int, pool: str | None) -> None:
    """Print the line to paste on a machine; whoever has the line may add a bot."""
    body: dict[str, Any] = {"uses": uses, "ttl_s": ttl_s}
    if pool:
        body["pool"] = pool
    made = call.client.once("bootstrap token", "/bootstrap-tokens", body)
    if call.form == "table":
        click.echo(plain(made["command"]))
        call.note(f"for {made['uses']} use(s), until {made['expires_at']}")
    else:
        output.show_item(call.form, "bootstrap_token", made["token"], made)
