"""`skep bots` and `skep bot show|events|quarantine|release`."""

from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.exits import Exit
from botapi.ctl.http import segment
from botapi.ctl.output import Column, Listing, as_cell, key
from botapi.ctl.paging import show_pages
from botapi.ctl.params import equals

STATUSES = ("busy", "idle", "maintenance", "quarantined", "dead")


def _dimensions(bot: output.Json) -> str:
    """`k=v|w` for every dimension but the id, which has a column of its own."""
    pairs = (bot.get("dimensions") or {}).items()
    return " ".join(f"{name}={'|'.join(values)}" for name, values in pairs if name != "id")


BOTS = Listing(
    "bot",
    (
        key("bot_id"),
        key("status"),
        key("task_id"),
        key("last_seen_at"),
        Column("dimensions", _dimensions),
    ),
)
EVENTS = Listing(
    "event",
    (key("event_id"), key("at"), key("event"), key("task_id"), key("message")),
)


@click.command()
@click.option(
    "-d",
    "-dimension",
    "--dimension",
    "dimensions",
    type=equals,
    multiple=True,
    help="k=v, v may be a|b; repeat for and.",
)
@click.option("--status", type=click.Choice(STATUSES), help="Only bots of this status.")
@click.option("-bare", "--bare", is_flag=True, help="Ids only.")
@click.option("-count", "--count", is_flag=True, help="Only how many of each status.")
@click.option("-limit", "--limit", type=click.IntRange(min=1), default=1000, show_default=True)
@client_command
def bots(
    call: Invocation,
    dimensions: tuple[tuple[str, str], ...],
    status: str | None,
    bare: bool,  # noqa: FBT001 - an option
    count: bool,  # noqa: FBT001
    limit: int,
) -> int:
    """List bots by id, or count them."""
    filters = [("dimension", f"{name}:{value}") for name, value in dimensions]
    filters += [("status", status)] if status else []
    if count:
        return _count(call, filters)
    return show_pages(call, BOTS, "/bots", filters, limit, "id" if bare else "")


def _count(call: Invocation, filters: list[tuple[str, str]]) -> int:
    counts: dict[str, Any] = call.client.get("bots", "/bots", [*filters, ("limit", 1)])["counts"]
    if call.form in {"json", "jsonl"}:
        output.write_json(counts)
    else:
        output.show_pairs({as_cell(name): as_cell(number) for name, number in counts.items()})
    return Exit.DONE


@click.group()
def bot() -> None:
    """Show one bot or its events; keep it from work."""


@bot.command()
@click.argument("bot_id", metavar="ID")
@client_command
def show(call: Invocation, bot_id: str) -> None:
    """Print everything about a bot."""
    found = call.client.get(f"bot {bot_id}", f"/bots/{segment(bot_id)}")
    output.show_item(call.form, "bot", found["bot_id"], found)


@bot.command()
@click.argument("bot_id", metavar="ID")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def events(call: Invocation, bot_id: str, limit: int) -> int:
    """List a bot's events, newest first."""
    return show_pages(call, EVENTS, f"/bots/{segment(bot_id)}/events", [], limit)


@bot.command()
@click.argument("bot_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it is shown and kept in the audit record.")
@client_command
def quarantine(call: Invocation, bot_id: str, reason: str) -> None:
    """Give a bot no more work; what it runs goes on."""
    _steer(call, bot_id, "quarantine", reason)


@bot.command()
@click.argument("bot_id", metavar="ID")
@click.option("--reason", default="", help="Why; it is kept in the audit record.")
@client_command
def release(call: Invocation, bot_id: str, reason: str) -> None:
    """Let a bot work again that `skep bot quarantine` kept from it."""
    _steer(call, bot_id, "release", reason)


def _steer(call: Invocation, bot_id: str, verb: str, reason: str) -> None:
    found = call.client.ask(
        f"{verb} {bot_id}", f"/bots/{segment(bot_id)}/{verb}", {"reason": reason}
    )
    output.show_item(call.form, "bot", found["bot_id"], found)
