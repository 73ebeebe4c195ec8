"""`skep spawn`: submit many tasks from a file, a few at a time; repeating it is harmless."""

import hashlib
import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import CtlError, Invalid
from botapi.ctl.exits import Exit
from botapi.ctl.http import CONNECTIONS
from botapi.ctl.output import Listing, key
from botapi.ctl.parallel import in_order
from botapi.ctl.progress import bar
from botapi.ctl.task_body import read_text

Json = dict[str, Any]

MAX_REQUESTS = 100_000
KEY_CHARS = 40
SPAWNED = Listing("task", (key("task_id"),))
"""Only ids, so that `skep collect -` can read them; `--cols` has the rest."""


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "-cancel-extra-on-error",
    "--cancel-extra-on-error",
    "cancel_extra",
    is_flag=True,
    help="Cancel those that were made when one is refused.",
)
@click.option("--again", default="", metavar="TEXT", help="Make new tasks of a file used before.")
@click.option(
    "--jobs",
    type=click.IntRange(1, CONNECTIONS),
    default=CONNECTIONS,
    show_default=True,
    help="Submissions at once.",
)
@client_command
def spawn(call: Invocation, file: str, cancel_extra: bool, again: str, jobs: int) -> int:  # noqa: FBT001
    """Submit every request in FILE (JSON or JSONL, - is stdin) and print the ids in its order.

    Each request is the body of a task (docs/api.md). The same file makes the same tasks: after
    a failure call it again and nothing is made twice. --again TEXT makes new ones.
    """
    text = read_text(file)
    bodies = requests_in(file, text)
    defaults = {"user": call.settings.user, "parent_task_id": call.settings.parent_task}
    bodies = [{name: value for name, value in defaults.items() if value} | b for b in bodies]
    spawning = Spawning(call, bodies, hashlib.sha256(f"{again}\n{text}".encode()).hexdigest())
    try:
        spawning.submit(jobs)
    except KeyboardInterrupt:
        spawning.show()
        call.note(f"{len(spawning.made)} of {len(bodies)} made; the same command makes the rest")
        raise
    spawning.show()
    if spawning.old:
        call.note(f"{spawning.old} of these were made before; --again TEXT makes new ones")
    if spawning.errors:
        return _failed(call, spawning, cancel_extra=cancel_extra)
    return Exit.DONE


class Spawning:
    """Requests and what became of them. `made` is by index, `errors` too."""

    def __init__(self, call: Invocation, bodies: Sequence[Json], digest: str) -> None:
        self._call = call
        self._bodies = bodies
        self._digest = digest
        self.made: dict[int, Json] = {}
        self.errors: dict[int, CtlError] = {}
        self.old = 0

    def submit(self, jobs: int) -> None:
        """Submit all, `jobs` at once; after the first error no further one begins."""
        wanted = takewhile(lambda _index: not self.errors, range(len(self._bodies)))
        with bar(self._call, "submitting", len(self._bodies)) as advance:
            for _ in in_order(self._submit, wanted, jobs):
                advance(len(self.made))

    def _submit(self, index: int) -> None:
        name = f"{self._digest}{index}".encode()
        request_key = hashlib.sha256(name).hexdigest()[:KEY_CHARS]
        body = self._bodies[index]
        try:
            made, is_new = self._call.client.create_as(
                request_key, f"request {index + 1}", "/tasks", body
            )
        except CtlError as error:
            self.errors[index] = error
            return
        self.made[index] = made
        self.old += not is_new

    def tasks(self) -> list[Json]:
        """The tasks that exist, in the order of the file."""
        return [task for _index, task in sorted(self.made.copy().items())]

    def show(self) -> None:
        """Print the tasks."""
        tasks = self.tasks()
        output.show_list(self._call.form, SPAWNED, tasks, {"tasks": tasks})


def _failed(call: Invocation, spawning: Spawning, *, cancel_extra: bool) -> int:
    """Say what was refused, and cancel the others when asked."""
    index, error = min(spawning.errors.items())
    if cancel_extra:
        for task in spawning.tasks():
            body = {"kill_running": True, "reason": f"request {index + 1} was refused"}
            call.client.ask("cancel", f"/tasks/{task['task_id']}/cancel", body)
        call.note(f"canceled {len(spawning.made)} task(s)")
    elif spawning.made:
        call.note(f"{len(spawning.made)} task(s) were made; the same file makes the rest")
    raise error


def requests_in(name: str, text: str) -> list[Json]:
    """The requests in a file: a JSON list, `{"requests": [...]}`, or one a line. Raises Invalid."""
    found = _parsed(name, text)
    if isinstance(found, dict):
        found = found.get("requests", [found])
    if not isinstance(found, list) or not found:
        raise Invalid(name, "holds no requests", "a JSON list, or a request on each line")
    if len(found) > MAX_REQUESTS:
        raise Invalid(name, f"holds {len(found)} requests, at most {MAX_REQUESTS}", "split it")
    for index, body in enumerate(found):
        if not isinstance(body, dict):
            raise Invalid(
                name, f"request {index + 1} is no JSON object", "docs/api.md has its keys"
            )
    return found


def _parsed(name: str, text: str) -> Any:  # noqa: ANN401 - whatever stands there
    try:
        return json.loads(text)
    except ValueError as whole:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise Invalid(name, f"not JSON: {whole}") from whole
    found = []
    for number, line in lines:
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise Invalid(name, f"line {number} is not JSON: {error}") from error
    return found
