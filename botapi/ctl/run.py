"""`skep run`: submit one task; wait for it or follow its output when asked."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from botapi.ctl import blobs, completion, exits, output, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid, TimedOut
from botapi.ctl.following import WhyPending, follow_output
from botapi.ctl.params import colon, duration, equals, optional_dimension, whole_duration
from botapi.ctl.task_body import from_file, task_request

Json = dict[str, Any]

IDEMPOTENT = "Take the result of an equal task that succeeded before, if there is one."


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "-d",
    "-dimension",
    "--dimension",
    "dimensions",
    type=equals,
    multiple=True,
    shell_complete=completion.dimension_keys,
    help="What the bot must be; v may be a|b. Repeat for more.",
)
@click.option("--pool", help="Short for -d pool=P; without one the pool is default.")
@click.option(
    "-env", "--env", "env", type=equals, multiple=True, help="Environment of the command."
)
@click.option(
    "-env-prefix",
    "--env-prefix",
    "env_prefixes",
    type=equals,
    multiple=True,
    help="Folder, relative to the task's, to put in front of a path variable.",
)
@click.option("-relative-cwd", "--relative-cwd", metavar="DIR", help="Folder to start in.")
@click.option(
    "--wait-for-capacity",
    is_flag=True,
    default=None,
    help="Submit it also when no bot is known that could run it.",
)
@click.option("-tag", "--tag", "tags", type=colon, multiple=True, help="Tag of the task.")
@click.option("-priority", "--priority", type=click.IntRange(1, 255), help="Smaller goes first.")
@click.option(
    "-expiration",
    "--expiration",
    "expiration_s",
    type=whole_duration,
    help="How long it may be pending.",
)
@click.option(
    "-hard-timeout",
    "--hard-timeout",
    "hard_timeout_s",
    type=whole_duration,
    help="How long it may run; 0 is for ever.",
)
@click.option(
    "-io-timeout",
    "--io-timeout",
    "io_timeout_s",
    type=whole_duration,
    help="How long it may be silent; 0 is for ever.",
)
@click.option(
    "--grace-period",
    "grace_period_s",
    type=whole_duration,
    help="Time between the signal and the kill.",
)
@click.option(
    "-optional-dimension",
    "--optional-dimension",
    "optional_dimensions",
    type=optional_dimension,
    multiple=True,
    metavar="K=V:SECS",
    help="What the bot must be for the first so many seconds only.",
)
@click.option("-idempotent", "--idempotent", is_flag=True, default=None, help=IDEMPOTENT)
@click.option(
    "-named-cache",
    "--named-cache",
    "caches",
    type=equals,
    multiple=True,
    metavar="NAME=PATH",
    help="Folder that stays on the bot for the next task.",
)
@click.option(
    "-output", "--output", "outputs", multiple=True, metavar="PATH", help="File or folder to keep."
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(exists=True, path_type=Path),
    help="Folder whose files the task starts with; only what the server lacks is sent.",
)
@click.option("-digest", "--digest", metavar="HASH/SIZE", help="As --input, sent before.")
@click.option(
    "--secret", "secrets", type=equals, multiple=True, metavar="VAR=NAME", help="Stored secret."
)
@click.option("-service-account", "--service-account", help="E-mail, bot or none: acts as it.")
@click.option("-realm", "--realm", help="project:name of its permissions.")
@click.option("--parent", "parent_task_id", metavar="ID", help="Task that it is a child of.")
@click.option("--max-retries", type=click.IntRange(0, 10), help="Retries after infrastructure.")
@click.option("--file", "file", metavar="FILE", help="Read the whole request as JSON; - is stdin.")
@click.option("--dry-run", is_flag=True, help="Submit nothing: say where it would run.")
@click.option("-name", "--name", help="Name of the task; else the command's first word.")
@click.option("-user", "--user", help="User the task is for (SKEP_USER).")
@click.option("--wait", is_flag=True, help="Wait until it is final.")
@click.option("--follow", is_flag=True, help="Print its output, and nothing else, on stdout.")
@click.option("--timeout", "timeout_s", type=duration, help="How long to wait.")
@click.option(
    "--exit-code",
    "exit_code_of",
    type=click.Choice(["skep", "task"]),
    default="skep",
    help="task: exit with the task's own code, at most 125.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@client_command
def run(
    call: Invocation,
    file: str | None,
    dry_run: bool,  # noqa: FBT001 - an option
    wait: bool,  # noqa: FBT001
    follow: bool,  # noqa: FBT001
    timeout_s: float | None,
    exit_code_of: str,
    **asked: Any,
) -> int:
    """Submit COMMAND as a task and print the task's id.

    \b
    skep run -- echo hello
    skep run -d os=Linux --tag build:7 --wait -- make test
    skep run --input src --output out/report.txt -- make
    skep run --follow --exit-code task -- python3 -c 'print(1)'
    """
    body = _body(call, file, dry_run=dry_run, **asked)
    if dry_run:
        return _dry_run(call, body)
    task = call.client.create("submit", "/tasks", body)
    _print_submitted(call, task, follow=follow, wait=wait)
    if not wait and not follow:
        return exits.Exit.DONE
    watch = _follow if follow else _wait
    final = _watch(call, task, lambda: watch(call, task["task_id"], timeout_s))
    call.note(summary(final))
    return exits.of_command(final) if exit_code_of == "task" else exits.of_task(final)


def _body(
    call: Invocation, file: str | None, user: str | None, *, dry_run: bool, **asked: Any
) -> Json:
    """The request, from a file or from the options. Raises Invalid."""
    defaults = {"user": call.settings.user, "parent_task_id": call.settings.parent_task}
    given = {name: value for name, value in asked.items() if value not in (None, (), "")}
    if file is not None:
        if given:
            words = ", ".join(sorted(given))
            raise Invalid("--file", f"says everything already, beside {words}", "give one of both")
        return from_file(file, defaults | ({"user": user} if user else {}))
    if not asked["command"]:
        raise Invalid("skep run", "no command", "skep run [OPTIONS] -- COMMAND [ARGUMENTS]")
    asked["outputs"] = list(asked["outputs"])
    digest = asked.pop("digest")
    input_path = asked.pop("input_path")
    if input_path and digest:
        raise Invalid("--digest", "stands beside --input", "give one of both")
    if input_path and not dry_run:
        digest = blobs.put(call.client, input_path)
        call.note(f"input {digest}")
    if digest:
        asked["cas_input_root"] = blobs.input_root(_checked(digest))
    return task_request(defaults, user=user, **asked)


def _checked(digest: str) -> str:
    """A digest in its one form. Raises Invalid."""
    if not re.fullmatch(r"[0-9a-f]{64}/[0-9]{1,15}", digest):
        raise Invalid("--digest", f"{digest[:80]!r} is not HASH/SIZE", "skep cas put prints it")
    return digest


def _dry_run(call: Invocation, body: Json) -> int:
    """Say what would be stored, and which bots could run it."""
    found = call.client.ask("dry run", "/tasks?dry_run=1", body)
    output.show_item(call.form, "dry_run", "", found)
    counts = found["matching_bots"]
    for index, count in enumerate(counts):
        call.note(f"slice {index + 1} of {len(counts)}: {count} known bot(s) match")
    return exits.Exit.DONE if any(counts) else exits.Exit.INFRASTRUCTURE


def summary(task: Json) -> str:
    """One line about a final task."""
    parts = [f"task {task['task_id']}: {task['state']}"]
    if task.get("exit_code") is not None:
        parts.append(f"exit code {task['exit_code']}")
    if task.get("bot_id"):
        parts.append(f"on {task['bot_id']}")
    if task.get("duration_s") is not None:
        parts.append(f"in {task['duration_s']:.1f} s")
    return ", ".join(parts)


def _print_submitted(call: Invocation, task: Json, *, follow: bool, wait: bool) -> None:
    if follow:
        call.note(f"task {task['task_id']}")
    elif call.form in {"json", "yaml"} or output.LOOK.get().json_file:
        if not wait:
            output.show_item(call.form, "task", task["task_id"], task)
    elif call.form == "jsonl":
        output.write_record("start", task)
        if not wait:
            output.write_record("summary", {"count": 1})
    else:
        click.echo(task["task_id"])


def _watch(call: Invocation, task: Json, watch: Callable[[], Json]) -> Json:
    """Watch to the end; on a time-out or Ctrl-C say how to go on."""
    task_id = task["task_id"]
    try:
        return watch()
    except waiting.OutOfTime as error:
        raise TimedOut(
            f"task {task_id}", "not final in the time given; it goes on", f"skep collect {task_id}"
        ) from error
    except KeyboardInterrupt:
        call.note(f"the task goes on: skep collect {task_id}, or skep cancel {task_id}")
        raise


def _wait(call: Invocation, task_id: str, timeout_s: float | None) -> Json:
    patience = waiting.Patience(timeout_s)
    final = waiting.until_final(call.client, task_id, patience, WhyPending(call))
    if call.form in {"json", "yaml"} or output.LOOK.get().json_file:
        output.show_item(call.form, "task", task_id, final)
    elif call.form == "jsonl":
        output.write_record("task", final)
        output.write_record("summary", {"count": 1})
    return final


def _follow(call: Invocation, task_id: str, timeout_s: float | None) -> Json:
    patience = waiting.Patience(timeout_s)
    follow_output(call, task_id, patience)
    return waiting.until_final(call.client, task_id, patience, lambda _task: None)
