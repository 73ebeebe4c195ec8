"""`skep bots`, `skep terminate`, `skep delete-bots`, and how these and others choose bots."""

from collections.abc import Callable, Iterable
from typing import Any

import click

from botapi.ctl import completion, exits, output, waiting
from botapi.ctl.asking import confirm
from botapi.ctl.cancel_many import delete_each
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Conflict, Invalid, TimedOut
from botapi.ctl.exits import Exit
from botapi.ctl.http import segment
from botapi.ctl.output import Column, Listing, key
from botapi.ctl.paging import NothingMatched, read_pages, show_pages
from botapi.ctl.params import duration, equals, moment

STATUSES = ("busy", "idle", "paused", "draining", "maintenance", "quarantined", "dead")


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
DELETED = Listing("bot", (key("bot_id"), key("deleted")))


bot_id_argument = click.argument("bot_id", metavar="ID", shell_complete=completion.bot_ids)
_dimensions_option = click.option(
    "-d",
    "-dimension",
    "--dimension",
    "dimensions",
    type=equals,
    multiple=True,
    shell_complete=completion.dimension_keys,
    help="k=v, v may be a|b; repeat for and.",
)
_q = click.option("-q", "q", metavar="FILTER", help="Filter, such as 'os:linux -status:dead'.")
_status = click.option("--status", type=click.Choice(STATUSES), help="Only bots of this status.")


@click.command()
@_q
@_dimensions_option
@_status
@click.option("-bare", "--bare", is_flag=True, help="Ids only.")
@click.option("-count", "--count", is_flag=True, help="Only how many of each status.")
@click.option("-limit", "--limit", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--at", type=moment, metavar="TIME", help="As they were then: RFC 3339, -2h.")
@client_command
def bots(
    call: Invocation,
    bare: bool,  # noqa: FBT001 - an option
    count: bool,  # noqa: FBT001
    limit: int,
    at: str | None,
    **asked: Any,
) -> int:
    """List bots by id, or count them.

    \b
    skep bots -q 'pool:ci status:quarantined seen:>1h'
    skep bots -d os=Linux --cols bot_id,dimensions.cores,state.disk.free_mb
    skep bots --at 'yesterday 14:00' --status quarantined
    """
    filters = _filters(**asked) + ([("at", at)] if at else [])
    if count and at:
        raise Invalid("--count", "is not known of a time that is past", "leave out --at")
    if count:
        return _count(call, filters)
    return show_pages(call, BOTS, "/bots", filters, limit, "id" if bare else "")


def _filters(
    q: str | None, dimensions: tuple[tuple[str, str], ...], status: str | None = None
) -> list[tuple[str, str]]:
    """The parameters of `GET /bots`."""
    filters = [("q", q)] if q else []
    filters += [("dimension", f"{name}:{value}") for name, value in dimensions]
    return filters + ([("status", status)] if status else [])


def _count(call: Invocation, filters: list[tuple[str, str]]) -> int:
    """By status where the server counts so, else one number."""
    exactly = [("count", "exact")] if dict(filters).get("q") else []
    found = call.client.get("bots", "/bots", [*filters, *exactly, ("limit", "1")])
    counts = found["counts"] or {"count": found["count"], "count_kind": found["count_kind"]}
    output.show_item(call.form, "count", str(found.get("count", "")), counts)
    return Exit.DONE


def several(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which bots: by id, or by a filter."""
    for option in (
        click.argument("bot_ids", nargs=-1, metavar="[ID...]", shell_complete=completion.bot_ids),
        _q,
        _dimensions_option,
        click.option("-limit", "--limit", type=click.IntRange(min=1), default=1000,
                     show_default=True),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@bot_id_argument
@click.option("-wait", "--wait", is_flag=True, help="Until the bot has exited.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to wait.")
@click.option("--reason", default="", help="Why; kept in the audit record.")
@client_command
def terminate(
    call: Invocation,
    bot_id: str,
    wait: bool,  # noqa: FBT001 - an option
    timeout_s: float | None,
    reason: str,
) -> int:
    """Ask a bot to exit when it has done what it runs, and print the id of the task that asks."""
    path = f"/bots/{segment(bot_id)}/terminate"
    made = call.client.ask(f"terminate {bot_id}", path, {"reason": reason})
    task_id = made["task_id"]
    if not wait:
        output.show_item(_or_id(call), "task", task_id, made)
        return Exit.DONE
    call.note(f"task {task_id} asks {bot_id} to exit")
    try:
        final = waiting.until_final(
            call.client, task_id, waiting.Patience(timeout_s), lambda _task: None
        )
    except waiting.OutOfTime as error:
        raise TimedOut(bot_id, "has not exited in the time given; it is still asked to") from error
    output.show_item(_or_id(call), "task", task_id, final)
    is_done = final["state"] == "COMPLETED"
    return Exit.DONE if is_done else exits.of_task(final)


def _or_id(call: Invocation) -> str:
    return "id" if call.form == "table" else call.form


@click.command("delete-bots")
@several
@click.option("-force", "--force", is_flag=True, help="Also bots that are not dead.")
@client_command
def delete_bots(
    call: Invocation,
    force: bool,  # noqa: FBT001 - an option
    bot_ids: tuple[str, ...],
    limit: int,
    yes: bool,  # noqa: FBT001
    **asked: Any,
) -> int:
    """Forget bots, by id or by a filter; asks first. Without --force only those that are dead."""
    filters = one_of_both("delete-bots", bot_ids, **asked)
    chosen = found(call, filters, limit) if filters else named(call, bot_ids)
    alive = [bot["bot_id"] for bot in chosen if bot["status"] != "dead"]
    if alive and not force and bot_ids:
        problem = f"{', '.join(alive[:5])}: not dead"
        raise Conflict("delete-bots", problem, "skep terminate ID, or --force")
    ids = [bot["bot_id"] for bot in chosen if force or bot["status"] == "dead"]
    if not ids:
        raise NothingMatched("bot", "no dead bot matches", "--force takes those that are alive")
    confirm(call, f"{len(ids)} bot(s) will be deleted: {first_of(ids)}", "delete them?", yes=yes)
    deleted = [{"bot_id": bot_id, "deleted": True} for bot_id in delete_each(call, ids)]
    output.show_list(call.form, DELETED, deleted, {"items": deleted})
    return Exit.DONE


def first_of(ids: list[str]) -> str:
    """The first ten, and how many more."""
    return ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def one_of_both(
    command: str, bot_ids: tuple[str, ...], q: str | None, dimensions: tuple[tuple[str, str], ...]
) -> list[tuple[str, str]]:
    """The parameters of a filter; none when bots were named by id."""
    filters = _filters(q, dimensions)
    if bool(bot_ids) == bool(filters):
        raise Invalid(command, "give ids, or a filter with -q or -d", "one of both")
    return filters


def named(call: Invocation, bot_ids: Iterable[str]) -> list[output.Json]:
    """The bots of these ids, each once. Raises NotFound."""
    return [call.client.get(f"bot {i}", f"/bots/{segment(i)}") for i in dict.fromkeys(bot_ids)]


def found(call: Invocation, filters: list[tuple[str, str]], limit: int) -> list[output.Json]:
    """The bots that a filter finds."""
    found: list[output.Json] = read_pages(call, "bots", "/bots", filters, limit)["items"]
    return found
