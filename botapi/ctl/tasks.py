"""`skep tasks`, `skep task show|log|cancel` and `skep cancel`."""

from typing import Any

import click

from botapi.ctl import output, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Conflict, TimedOut
from botapi.ctl.exits import Exit
from botapi.ctl.following import follow_output
from botapi.ctl.http import segment
from botapi.ctl.output import Column, Listing, key
from botapi.ctl.paging import show_pages
from botapi.ctl.params import colon, duration

Json = dict[str, Any]

TASKS = Listing(
    "task",
    (key("task_id"), key("state"), key("name"), key("bot_id"), key("created_at"), key("tags")),
)
RESULTS = Listing(
    "task",
    (
        key("task_id"),
        key("state"),
        key("exit_code"),
        key("duration_s"),
        key("bot_id"),
        key("name"),
    ),
)
CANCELED = Listing(
    "canceled",
    (
        Column("task_id", lambda answer: answer["task"]["task_id"]),
        key("canceled"),
        key("was_running"),
        Column("state", lambda answer: answer["task"]["state"]),
    ),
)


@click.command()
@click.option(
    "-state",
    "--state",
    "states",
    multiple=True,
    help="A state's name, pending, running or final; repeat for or.",
)
@click.option("-tag", "--tag", "tags", type=colon, multiple=True, help="k:v; repeat for and.")
@click.option("-bot", "--bot", help="Only tasks of this bot.")
@click.option("-user", "--user", help="Only tasks of this user.")
@click.option("-limit", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def tasks(
    call: Invocation,
    states: tuple[str, ...],
    tags: tuple[tuple[str, str], ...],
    bot: str | None,
    user: str | None,
    limit: int,
) -> int:
    """List tasks, newest first."""
    filters = [("state", state) for state in states]
    filters += [("tag", f"{name}:{value}") for name, value in tags]
    filters += [(name, value) for name, value in (("bot", bot), ("user", user)) if value]
    return show_pages(call, TASKS, "/tasks", filters, limit)


@click.group()
def task() -> None:
    """Show, follow or cancel one task."""


@task.command()
@click.argument("task_id", metavar="ID")
@client_command
def show(call: Invocation, task_id: str) -> None:
    """Print everything about a task."""
    found = waiting.read_task(call.client, task_id)
    output.show_item(call.form, "task", found["task_id"], found)


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task is final.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to follow.")
@client_command
def log(
    call: Invocation,
    task_id: str,
    follow: bool,  # noqa: FBT001 - an option
    timeout_s: float | None,
) -> None:
    """Write a task's output to stdout, byte for byte."""
    if not follow:
        for piece in waiting.output_pieces(call.client, task_id, None, lambda _state: None):
            output.write_bytes(piece)
        return
    try:
        follow_output(call, task_id, waiting.Patience(timeout_s))
    except waiting.OutOfTime as error:
        raise TimedOut(f"task {task_id}", "not final in the time given; it goes on") from error


def _cancel(call: Invocation, task_ids: tuple[str, ...], reason: str, *, kill: bool) -> int:
    answers: list[Json] = []
    for task_id in task_ids:
        answer = call.client.ask(
            f"cancel {task_id}",
            f"/tasks/{segment(task_id)}/cancel",
            {"kill_running": kill, "reason": reason},
        )
        answers.append(answer)
    output.show_list(call.form, CANCELED, answers, {"items": answers})
    refused = [answer for answer in answers if not _is_canceled(answer)]
    if refused:
        raise _not_canceled(refused)
    return Exit.DONE


def _is_canceled(answer: Json) -> bool:
    """Did it work, now or before? A repeat of a call whose answer was lost is no conflict."""
    task = answer["task"]
    return (
        answer["canceled"] or task["state"] in {"CANCELED", "KILLED"} or bool(task.get("killing"))
    )


def _not_canceled(refused: list[Json]) -> Conflict:
    ids = ", ".join(answer["task"]["task_id"] for answer in refused)
    if any(answer["was_running"] for answer in refused):
        return Conflict("cancel", f"{ids}: running", "--kill-running stops a running task")
    return Conflict("cancel", f"{ids}: already final")


_kill = click.option(
    "-kill-running",
    "--kill-running",
    "kill_running",
    is_flag=True,
    help="Stop it also when it runs.",
)
_reason = click.option("--reason", default="", help="Why; kept in the audit record.")
_ids = click.argument("task_ids", nargs=-1, required=True, metavar="ID...")


def _cancel_command() -> click.Command:
    """The same command for two places: `skep cancel` and `skep task cancel`."""

    @click.command("cancel")
    @_kill
    @_reason
    @_ids
    @client_command
    def cancel(
        call: Invocation,
        task_ids: tuple[str, ...],
        kill_running: bool,  # noqa: FBT001 - an option
        reason: str,
    ) -> int:
        """Cancel tasks that are pending; with --kill-running also those that run."""
        return _cancel(call, task_ids, reason, kill=kill_running)

    return cancel


cancel = _cancel_command()
task.add_command(cancel)
