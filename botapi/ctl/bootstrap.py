"""`skep bootstrap new|list|revoke`: the line that makes a machine a bot."""

from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import plain
from botapi.ctl.http import segment
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import read_pages
from botapi.ctl.params import whole_duration

TOKENS = Listing(
    "bootstrap_token",
    (
        key("token_id"),
        key("pool"),
        key("uses_left"),
        key("uses"),
        key("expires_at"),
        key("creator"),
        key("problem"),
    ),
)


@click.group()
def bootstrap() -> None:
    """Make the line that installs a bot; list and revoke what was given out."""


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


@bootstrap.command("list")
@click.option("--all", "all_tokens", is_flag=True, help="Also those that are no good any more.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True)
@client_command
def list_(call: Invocation, all_tokens: bool, limit: int) -> None:  # noqa: FBT001 - an option
    """List the tokens that were made, newest first; never a token itself."""
    found = read_pages(call, "bootstrap tokens", "/bootstrap-tokens", [], limit)
    items = [item for item in found["items"] if all_tokens or not item["problem"]]
    items.sort(key=lambda item: str(item["created_at"]), reverse=True)
    output.show_list(call.form, TOKENS, items, {**found, "items": items})
    if found["next_cursor"]:
        call.note(f"there are more than {limit}: raise --limit")


@bootstrap.command()
@click.argument("token_id", metavar="TOKEN_ID")
@click.option("--reason", default="", help="Why; kept in the audit record.")
@client_command
def revoke(call: Invocation, token_id: str, reason: str) -> None:
    """End a token at once: nobody enrols with it any more; who did stays a bot."""
    path = f"/bootstrap-tokens/{segment(token_id)}/revoke"
    found = call.client.ask(f"bootstrap token {token_id}", path, {"reason": reason})
    output.show_list(call.form, TOKENS, [found], found)
