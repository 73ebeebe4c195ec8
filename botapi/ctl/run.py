"""`skep run`: submit one task; wait for it or follow its output when asked."""

from collections.abc import Callable
from typing import Any

import click

from botapi.ctl import exits, output, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import TimedOut
from botapi.ctl.following import WhyPending, follow_output
from botapi.ctl.params import colon, duration, equals, whole_duration

Json = dict[str, Any]


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "-d",
    "-dimension",
    "--dimension",
    "dimensions",
    type=equals,
    multiple=True,
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
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@client_command
def run(
    call: Invocation,
    wait: bool,  # noqa: FBT001 - an option
    follow: bool,  # noqa: FBT001
    timeout_s: float | None,
    exit_code_of: str,
    **asked: Any,
) -> int:
    """Submit COMMAND as a task and print the task's id.

    \b
    skep run -- echo hello
    skep run -d os=Linux --tag build:7 --wait -- make test
    skep run --follow --exit-code task -- python3 -c 'print(1)'
    """
    task = call.client.create("submit", "/tasks", task_request(call.settings.user, **asked))
    _print_submitted(call, task, follow=follow, wait=wait)
    if not wait and not follow:
        return exits.Exit.DONE
    watch = _follow if follow else _wait
    final = _watch(call, task, lambda: watch(call, task["task_id"], timeout_s))
    call.note(summary(final))
    return exits.of_command(final) if exit_code_of == "task" else exits.of_task(final)


def task_request(
    default_user: str,
    command: tuple[str, ...],
    dimensions: tuple[tuple[str, str], ...] = (),
    pool: str | None = None,
    env: tuple[tuple[str, str], ...] = (),
    env_prefixes: tuple[tuple[str, str], ...] = (),
    tags: tuple[tuple[str, str], ...] = (),
    user: str | None = None,
    **given: Any,
) -> Json:
    """The body of `POST /tasks`; what was not given is left to the server."""
    wanted: dict[str, list[str]] = {}
    for name, value in [*dimensions, *([("pool", pool)] if pool else [])]:
        wanted.setdefault(name, []).append(value)
    prefixes: dict[str, list[str]] = {}
    for name, value in env_prefixes:
        prefixes.setdefault(name, []).append(value)
    body: Json = {
        "command": list(command),
        "dimensions": wanted,
        "env": dict(env),
        "env_prefixes": prefixes,
        "tags": [f"{name}:{value}" for name, value in tags],
        "user": user or default_user,
    }
    body |= given
    return {name: value for name, value in body.items() if value not in (None, "", {}, [])}


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
    elif call.form == "json":
        if not wait:
            output.write_json(task)
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
    if call.form == "json":
        output.write_json(final)
    elif call.form == "jsonl":
        output.write_record("task", final)
        output.write_record("summary", {"count": 1})
    return final


def _follow(call: Invocation, task_id: str, timeout_s: float | None) -> Json:
    patience = waiting.Patience(timeout_s)
    follow_output(call, task_id, patience)
    return waiting.until_final(call.client, task_id, patience, lambda _task: None)
