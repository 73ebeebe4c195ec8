"""`skep tasks`, `skep task show|why|log|cancel|kill|retry`, `skep cancel`, `cancel-tasks`."""

import json
import re
from collections.abc import Callable
from typing import Any

import click

from botapi.ctl import output, waiting
from botapi.ctl.cancel_many import cancel_many
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.compare import show_differences, wants_all
from botapi.ctl.errors import Conflict, Invalid, TimedOut
from botapi.ctl.exits import Exit
from botapi.ctl.following import follow_output
from botapi.ctl.http import segment
from botapi.ctl.output import Column, Listing, key
from botapi.ctl.paging import show_count, show_pages
from botapi.ctl.params import duration, pattern
from botapi.ctl.task_body import SLICE_KEYS
from botapi.ctl.task_filters import as_query, task_filters

Json = dict[str, Any]

MAX_LINE = 1 << 20
WHY_SHOWN = 20
WHY_PAGE = 1000
REQUEST_KEYS = (
    "name",
    "priority",
    "user",
    "bot_ping_tolerance_s",
    "service_account",
    "realm",
    "parent_task_id",
    "secrets",
    "max_retries",
)
"""What a task says beside its slices and tags and a new request may say again."""

TASKS = Listing(
    "task",
    (key("task_id"), key("state"), key("name"), key("bot_id"), key("created_at"), key("tags")),
)
WHY = Listing("bot", (key("bot_id"), key("reason"), key("misses"), key("detail")))
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
@task_filters
@click.option("-limit", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("-count", "--count", is_flag=True, help="Only how many there are.")
@click.option("--estimate", is_flag=True, help="With --count: quickly, not exactly.")
@client_command
def tasks(
    call: Invocation,
    limit: int,
    count: bool,  # noqa: FBT001 - an option
    estimate: bool,  # noqa: FBT001
    **asked: Any,
) -> int:
    """List tasks, newest first.

    \b
    skep tasks -q 'pool:ci state:failure created:<1h'
    skep tasks --from 'yesterday 14:00' --tag build:7 --cols task_id,name,exit_code
    """
    filters = as_query(**asked)
    if count:
        return show_count(call, "tasks", "/tasks", filters, is_exact=not estimate)
    return show_pages(call, TASKS, "/tasks", filters, limit)


@click.group()
def task() -> None:
    """Show, follow or cancel one task."""


@task.command()
@click.argument("task_id", metavar="ID")
@click.argument("other_id", metavar="OTHER")
@wants_all
@client_command
def compare(call: Invocation, task_id: str, other_id: str, everything: bool) -> None:  # noqa: FBT001
    """Print in what two tasks differ: request, bot, times and result."""
    pair = [call.client.get(f"task {i}", f"/tasks/{segment(i)}") for i in (task_id, other_id)]
    show_differences(call, (task_id, other_id), pair, everything=everything)


@task.command()
@click.argument("task_id", metavar="ID")
@client_command
def show(call: Invocation, task_id: str) -> None:
    """Print everything about a task."""
    found = waiting.read_task(call.client, task_id)
    output.show_item(call.form, "task", found["task_id"], found)


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("--all", "all_bots", is_flag=True, help="Every bot of the pool, not the nearest 20.")
@client_command
def why(call: Invocation, task_id: str, all_bots: bool) -> int:  # noqa: FBT001 - an option
    """Say why a task is pending: what keeps each bot from it, and what would help."""
    path = f"/tasks/{segment(task_id)}/why"
    limit = WHY_PAGE if all_bots else WHY_SHOWN
    found = call.client.get(f"task {task_id}", path, [("limit", limit)])
    offset = found.get("next_offset")
    while all_bots and offset:
        query = [("limit", WHY_PAGE), ("offset", offset)]
        page = call.client.get(f"task {task_id}", path, query)
        found["bots"] += page["bots"]
        offset = found["next_offset"] = page.get("next_offset")
    call.note(found["summary"])
    if found.get("queue_position") is not None:
        call.note(f"position {found['queue_position']} in its queue")
    output.show_list(call.form, WHY, found["bots"], found)
    if offset:
        call.note("there are more bots: --all shows them")
    for text in found["would_help"]:
        call.note(f"would help: {text}")
    return Exit.DONE


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task is final.")
@click.option(
    "--since",
    type=int,
    default=0,
    metavar="BYTE",
    help="Begin there; -N is N bytes before what there is now.",
)
@click.option("--grep", type=pattern, metavar="REGEX", help="Only lines in which this is found.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to follow.")
@client_command
def log(
    call: Invocation,
    task_id: str,
    follow: bool,  # noqa: FBT001 - an option
    since: int,
    grep: re.Pattern[bytes] | None,
    timeout_s: float | None,
) -> None:
    """Write a task's output to stdout, byte for byte."""
    write = output.write_bytes if grep is None else Lines(grep, output.write_bytes)
    offset = since if since >= 0 else _from_the_end(call, task_id, -since)
    if follow:
        patience = waiting.Patience(timeout_s)
        try:
            follow_output(call, task_id, patience, write, offset)
        except waiting.OutOfTime as error:
            raise TimedOut(f"task {task_id}", "not final in the time given; it goes on") from error
    else:
        pieces = waiting.output_pieces(call.client, task_id, None, lambda _state: None, offset)
        for piece in pieces:
            write(piece)
    if isinstance(write, Lines):
        write.end()


def _from_the_end(call: Invocation, task_id: str, count: int) -> int:
    there: int = waiting.read_task(call.client, task_id)["output_bytes"]
    return max(0, there - count)


class Lines:
    """Lets whole lines pass in which a pattern is found; the text comes in pieces."""

    def __init__(self, grep: re.Pattern[bytes], write: Callable[[bytes], None]) -> None:
        self._grep = grep
        self._write = write
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece. A line of more than `MAX_LINE` bytes is looked at in parts."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        found = [line + b"\n" for line in lines if self._grep.search(line)]
        if found:
            self._write(b"".join(found))

    def end(self) -> None:
        """The last line may have no end."""
        if self._rest and self._grep.search(self._rest):
            self._write(self._rest + b"\n")


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


@task.command()
@_reason
@_ids
@client_command
def kill(call: Invocation, task_ids: tuple[str, ...], reason: str) -> int:
    """Stop tasks, whether they run or are pending."""
    return _cancel(call, task_ids, reason, kill=True)


@task.command()
@click.option("--same-bot", is_flag=True, help="On the bot that had it.")
@click.option("--edit", is_flag=True, help="Change the request in an editor first.")
@_reason
@click.argument("task_id", metavar="ID")
@client_command
def retry(
    call: Invocation,
    task_id: str,
    same_bot: bool,  # noqa: FBT001 - an option
    edit: bool,  # noqa: FBT001
    reason: str,
) -> int:
    """Make a new task of a final one that asks for the same, and print its id."""
    if edit:
        if same_bot:
            raise Invalid("--edit", "goes with an own dimension id", "leave out --same-bot")
        made = call.client.create("submit", "/tasks", _edited(call, task_id))
    else:
        body = {"same_bot": same_bot, "reason": reason}
        made = call.client.create(f"retry {task_id}", f"/tasks/{segment(task_id)}/retry", body)
    output.show_list("id" if call.form == "table" else call.form, TASKS, [made], made)
    return Exit.DONE


def _edited(call: Invocation, task_id: str) -> Json:
    """The request of a task as somebody changed it. Raises Invalid."""
    body = request_of(waiting.read_task(call.client, task_id))
    text = click.edit(json.dumps(body, indent=2), extension=".json")
    if text is None:
        raise Invalid("--edit", "nothing was saved; no task was made")
    try:
        changed = json.loads(text)
    except ValueError as error:
        raise Invalid("--edit", f"not JSON: {error}") from error
    if not isinstance(changed, dict):
        raise Invalid("--edit", "not a JSON object")
    return changed


def request_of(task: Json) -> Json:
    """The body of `POST /tasks` that asks for the same, of a task as the API gives it."""
    kept = {name: task[name] for name in REQUEST_KEYS if task.get(name)}
    slices = [
        {name: value for name, value in slice_.items() if name in SLICE_KEYS and value}
        for slice_ in task["slices"]
    ]
    automatic = {f"{name}:{task.get(name)}" for name in ("priority", "user", "service_account")}
    automatic |= {f"realm:{task.get('realm') or 'none'}", "authenticated:"}
    kept["tags"] = [tag for tag in task["tags"] if tag not in automatic]
    return kept | {"slices": slices}


@click.command("cancel-tasks")
@task_filters
@_kill
@_reason
@click.option("-limit", "--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def cancel_tasks(
    call: Invocation,
    kill_running: bool,  # noqa: FBT001 - an option
    reason: str,
    limit: int | None,
    yes: bool,  # noqa: FBT001
    **asked: Any,
) -> int:
    """Cancel every task that a filter finds and that is not final; asks first.

    Without --kill-running only those that are pending.
    """
    return cancel_many(call, asked, kill_running=kill_running, reason=reason, limit=limit, yes=yes)


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
