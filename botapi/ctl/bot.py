"""`skep bot`: show bots, compare them, keep them from work, have them start over."""

import math
from collections.abc import Callable
from typing import Any

import click

from botapi.ctl import completion, output, waiting
from botapi.ctl.asking import confirm
from botapi.ctl.bots import BOTS, bot_id_argument, first_of, found, one_of_both, several
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.compare import show_differences, wants_all
from botapi.ctl.errors import Invalid, TimedOut
from botapi.ctl.events import EVENTS, follow_events, follow_log, is_important, show_log
from botapi.ctl.exits import Exit
from botapi.ctl.http import CONNECTIONS, segment
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import NothingMatched, read_pages, show_pages
from botapi.ctl.parallel import in_order
from botapi.ctl.params import duration, moment
from botapi.ctl.task_filters import as_query, task_filters
from botapi.ctl.tasks import TASKS

INTERVALS = Listing(
    "interval",
    (key("begin"), key("end"), key("seconds"), key("state"), key("task_id"), key("reason")),
)
SHARES = Listing("share", (key("state"), key("seconds"), key("share")))


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
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--important", is_flag=True, help="Without polls, idleness and a task's progress.")
@click.option("--follow", is_flag=True, help="Oldest first, and go on with what happens.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to follow.")
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
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with what it says.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to follow.")
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


_reason = click.option(
    "--reason", required=True, help="Why; it is shown and kept in the audit record."
)
_why_not = click.option("--reason", default="", help="Why; it is kept in the audit record.")
_wait = click.option("-wait", "--wait", is_flag=True, help="Until they run nothing.")


def _kept_from_work(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which bots, why, for how long, and how long to wait."""
    for option in (
        click.option("--timeout", "timeout_s", type=duration, help="How long to wait."),
        click.option("--for", "for_s", type=duration, help="It ends by itself after that time."),
        _reason,
        several,
    ):
        command = option(command)
    return command


@bot.command()
@_kept_from_work
@_wait
@client_command
def quarantine(call: Invocation, **asked: Any) -> int:
    """Give bots that are not in order no more work, by id or filter; what they run goes on."""
    return _keep_from_work(call, "quarantine", **asked)


@bot.command()
@several
@_why_not
@client_command
def release(call: Invocation, **asked: Any) -> int:
    """Let bots work again that `skep bot quarantine` kept from it."""
    return _steer_once(call, "release", **asked)


@bot.command()
@_kept_from_work
@_wait
@client_command
def pause(call: Invocation, **asked: Any) -> int:
    """Give bots no new work for a while, by id or by a filter; what they run goes on."""
    return _keep_from_work(call, "pause", **asked)


@bot.command()
@_kept_from_work
@client_command
def drain(call: Invocation, **asked: Any) -> int:
    """Pause bots, and wait until they run nothing."""
    return _keep_from_work(call, "pause", wait=True, **asked)


@bot.command()
@several
@_why_not
@client_command
def resume(call: Invocation, **asked: Any) -> int:
    """Give bots work again that are paused or drained."""
    return _steer_once(call, "resume", **asked)


@bot.command()
@several
@_reason
@client_command
def restart(call: Invocation, **asked: Any) -> int:
    """Have bots start over when they are free; their configuration is read anew."""
    return _steer_once(call, "restart", **asked)


def _steer_once(call: Invocation, verb: str, **asked: Any) -> int:
    return _show_steered(call, _steer(call, verb, **asked), asked["bot_ids"])


def _keep_from_work(
    call: Invocation,
    verb: str,
    *,
    wait: bool,
    timeout_s: float | None,
    for_s: float | None,
    **asked: Any,
) -> int:
    done = _steer(call, verb, for_s=for_s, **asked)
    if wait:
        patience = waiting.Patience(timeout_s)
        done = [_until_free(call, bot["bot_id"], patience) for bot in done]
    return _show_steered(call, done, asked["bot_ids"])


def _steer(
    call: Invocation,
    verb: str,
    *,
    reason: str,
    for_s: float | None = None,
    bot_ids: tuple[str, ...],
    limit: int,
    yes: bool,
    **asked: Any,
) -> list[output.Json]:
    """The bots as they are after it; who chose them by a filter is asked first."""
    filters = one_of_both(f"bot {verb}", bot_ids, **asked)
    ids = list(dict.fromkeys(bot_ids))
    if filters:
        ids = [bot["bot_id"] for bot in found(call, filters, limit)]
        if not ids:
            raise NothingMatched("bot", "nothing matches the filter")
        confirm(call, f"{verb} {len(ids)} bot(s): {first_of(ids)}", f"{verb} them?", yes=yes)
    body = {"reason": reason} | ({"for_s": math.ceil(for_s)} if for_s else {})
    steer = lambda i: call.client.ask(f"{verb} {i}", f"/bots/{segment(i)}/{verb}", body)  # noqa: E731
    return list(in_order(steer, ids, CONNECTIONS))


def _show_steered(call: Invocation, done: list[output.Json], bot_ids: tuple[str, ...]) -> int:
    if len(bot_ids) == 1:
        output.show_item(call.form, "bot", done[0]["bot_id"], done[0])
    else:
        output.show_list(call.form, BOTS, done, {"items": done})
    return Exit.DONE


def _until_free(call: Invocation, bot_id: str, patience: waiting.Patience) -> output.Json:
    """The bot once it runs nothing."""
    while True:
        patience.next_hold_s()
        found: output.Json = call.client.get(f"bot {bot_id}", f"/bots/{segment(bot_id)}")
        if not found["task_id"]:
            return found
        try:
            patience.was_vain()
        except waiting.OutOfTime as error:
            problem = f"still runs task {found['task_id']}; it gets no more work"
            raise TimedOut(bot_id, problem) from error
