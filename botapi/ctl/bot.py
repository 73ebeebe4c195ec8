"""`skep bot`: show bots, compare them, keep them from work, have them start over."""

from typing import Any

import click

from botapi.ctl import completion, output, steering
from botapi.ctl.bots import bot_id_argument
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.compare import show_differences, wants_all
from botapi.ctl.errors import Invalid
from botapi.ctl.events import EVENTS, follow_events, follow_log, is_important, show_log
from botapi.ctl.exits import Exit
from botapi.ctl.http import segment
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import read_pages, show_pages
from botapi.ctl.params import duration, moment
from botapi.ctl.task_filters import as_query, task_filters
from botapi.ctl.tasks import TASKS

INTERVALS = Listing(
    "interval",
    (key("begin"), key("end"), key("seconds"), key("state"), key("task_id"), key("reason")),
)
SHARES = Listing("share", (key("state"), key("seconds"), key("share")))

_limit = click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
_follow_time = click.option("--timeout", "timeout_s", type=duration, help="How long to follow.")


@click.group()
def bot() -> None:
    """Show bots, compare them, keep them from work, have them start over."""


@bot.command()
@bot_id_argument
@client_command
def show(call: Invocation, bot_id: str) -> None:
    """Print everything about a bot."""
    found = call.client.get(f"bot {bot_id}", f"/bots/{segment(bot_id)}")
    output.show_item(call.form, "bot", found["bot_id"], found)


@bot.command()
@bot_id_argument
@_limit
@click.option("--important", is_flag=True, help="Without polls, idleness and a task's progress.")
@click.option("--follow", is_flag=True, help="Oldest first, and go on with what happens.")
@_follow_time
@client_command
def events(
    call: Invocation,
    bot_id: str,
    limit: int,
    important: bool,  # noqa: FBT001 - an option
    follow: bool,  # noqa: FBT001
    timeout_s: float | None,
) -> int:
    """List a bot's events, newest first."""
    path = f"/bots/{segment(bot_id)}/events"
    if follow:
        is_wanted = is_important if important else lambda _event: True
        return follow_events(call, path, limit, timeout_s, is_wanted=is_wanted)
    if not important:
        return show_pages(call, EVENTS, path, [], limit)
    whole = read_pages(call, "events", path, [], limit)
    items = [event for event in whole["items"] if is_important(event)]
    output.show_list(call.form, EVENTS, items, {**whole, "items": items})
    return Exit.DONE


@bot.command()
@bot_id_argument
@_limit
@click.option("--follow", is_flag=True, help="Go on with what it says.")
@_follow_time
@client_command
def log(
    call: Invocation,
    bot_id: str,
    limit: int,
    follow: bool,  # noqa: FBT001 - an option
    timeout_s: float | None,
) -> int:
    """Print what a bot said itself, its notes and errors with their whole text, oldest first."""
    path = f"/bots/{segment(bot_id)}/events"
    return follow_log(call, path, limit, timeout_s) if follow else show_log(call, path, limit)


@bot.command()
@bot_id_argument
@click.option("--from", "since", type=moment, metavar="TIME", help="By default a day before --to.")
@click.option("--to", "until", type=moment, metavar="TIME", help="By default now.")
@click.option("--shares", "wants_shares", is_flag=True, help="Only how long in each state.")
@client_command
def timeline(
    call: Invocation,
    bot_id: str,
    since: str | None,
    until: str | None,
    wants_shares: bool,  # noqa: FBT001 - an option
) -> None:
    """Print what a bot was at, and from when to when, oldest first."""
    span = [(name, value) for name, value in (("from", since), ("to", until)) if value]
    found = call.client.get(f"bot {bot_id}", f"/bots/{segment(bot_id)}/timeline", span)
    if found["cut"]:
        call.note(f"there was more than fits: this begins at {found['from']}")
    if wants_shares:
        output.show_list(call.form, SHARES, found["shares"], found)
    else:
        output.show_list(call.form, INTERVALS, found["intervals"], found)
        call.note(", ".join(f"{one['state']} {one['share']:.1%}" for one in found["shares"]))


@bot.command("tasks")
@bot_id_argument
@task_filters
@click.option("-limit", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def tasks_of(call: Invocation, bot_id: str, limit: int, bot: str | None, **asked: Any) -> int:
    """List the tasks that a bot ran or runs, newest first."""
    if bot:
        raise Invalid("--bot", "the bot is named already", "leave it out")
    path = f"/bots/{segment(bot_id)}/tasks"
    return show_pages(call, TASKS, path, as_query(**asked), limit)


@bot.command()
@bot_id_argument
@click.argument("other_id", metavar="OTHER", shell_complete=completion.bot_ids)
@wants_all
@client_command
def compare(call: Invocation, bot_id: str, other_id: str, everything: bool) -> None:  # noqa: FBT001
    """Print in what two bots differ: dimensions, state, version and all the rest."""
    pair = [call.client.get(f"bot {i}", f"/bots/{segment(i)}") for i in (bot_id, other_id)]
    show_differences(call, (bot_id, other_id), pair, everything=everything)


for verb in steering.VERBS:
    bot.add_command(verb)
