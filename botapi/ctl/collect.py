"""`skep collect`: wait for many tasks with few calls, and print what became of them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from botapi.ctl import blobs, exits, output, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid, TimedOut
from botapi.ctl.http import CONNECTIONS
from botapi.ctl.output import Listing, path
from botapi.ctl.parallel import in_order
from botapi.ctl.params import duration
from botapi.ctl.progress import bar
from botapi.ctl.task_body import read_text
from botapi.ctl.tasks import RESULTS

Json = dict[str, Any]

STDOUT_FORMS = ("none", "console", "json", "dir")
MAX_JSON_OUTPUT = 16 * 1024 * 1024
"""Bytes of a task's output that go into the JSON of a result; more is cut, and said."""
PERF = Listing(
    "task",
    (
        *RESULTS.columns,
        path("performance.bot_overhead"),
        path("performance.isolated.download.duration"),
        path("performance.isolated.upload.duration"),
        path("cost_usd"),
    ),
)


@dataclass(frozen=True, slots=True)
class OutputForms:
    """Where the output of tasks goes: `folders` hold a file for each task."""

    to_console: bool = False
    to_json: bool = False
    folders: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return self.to_console or self.to_json or bool(self.folders)


def stdout_form(text: str) -> tuple[str, str]:
    """`none`, `console`, `json`, or `dir` with a folder: `dir:out`."""
    form, _colon, folder = text.partition(":")
    if form not in STDOUT_FORMS or (folder and form != "dir"):
        raise click.BadParameter(f"{text!r} is none of none, console, json, dir, dir:FOLDER")
    return form, folder


@click.command()
@click.option(
    "-requests-json",
    "--requests-json",
    "requests_json",
    metavar="FILE",
    help="Read the ids from what spawn or run printed as JSON; - is stdin.",
)
@click.option("-timeout", "--timeout", "timeout_s", type=duration, help="How long to wait.")
@click.option("-eager", "--eager", is_flag=True, help="Return as soon as one task is final.")
@click.option("-no-wait", "--no-wait", "no_wait", is_flag=True, help="Print how they stand now.")
@click.option(
    "-task-output-stdout",
    "--task-output-stdout",
    "stdout_forms",
    type=stdout_form,
    multiple=True,
    metavar="FORM",
    help="Where outputs go: none, console, json, dir or dir:FOLDER; repeat for more.",
)
@click.option(
    "-output-dir",
    "--output-dir",
    "output_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for outputs: <task id>.txt, and the files a task kept below <task id>.",
)
@click.option("-perf", "--perf", is_flag=True, help="Show what the runs took beside the commands.")
@click.option(
    "-output-fetch-concurrency",
    "--output-fetch-concurrency",
    "fetchers",
    type=click.IntRange(1, CONNECTIONS),
    default=CONNECTIONS,
    show_default=True,
    help="Outputs fetched at once.",
)
@click.option(
    "--exit-code",
    "exit_code_of",
    type=click.Choice(["skep", "task"]),
    default="skep",
    help="task: exit with the code of the one task, at most 125.",
)
@click.argument("task_ids", nargs=-1, metavar="ID...")
@client_command
def collect(
    call: Invocation,
    task_ids: tuple[str, ...],
    requests_json: str | None,
    timeout_s: float | None,
    eager: bool,  # noqa: FBT001 - an option
    no_wait: bool,  # noqa: FBT001
    **how: Any,
) -> int:
    """Wait until the tasks are final and print their results in the order asked.

    `-` reads the ids from stdin, one a line.
    """
    gathering = Gathering(call, _ids(task_ids, requests_json), is_perf=how["perf"])
    if how["exit_code_of"] == "task" and len(gathering.asked) != 1:
        raise Invalid("--exit-code task", f"there are {len(gathering.asked)} tasks, not one")
    output_dir = how["output_dir"]
    forms = _forms(how["stdout_forms"], output_dir)
    if no_wait:
        gathering.look()
    else:
        _gather(call, gathering, timeout_s, eager=eager)
    outputs = fetch(call, gathering.finals(), forms, how["fetchers"]) if forms else {}
    if output_dir is not None:
        fetch_files(call, gathering.finals(), output_dir)
    gathering.show(outputs)
    if how["exit_code_of"] == "task":
        return exits.of_command(gathering.known()[0])
    shown = gathering.known() if no_wait else gathering.finals()
    return exits.worst(exits.of_task(task) for task in shown)


def _gather(
    call: Invocation, gathering: "Gathering", timeout_s: float | None, *, eager: bool
) -> None:
    """Wait; when that ends before the tasks do, the ids are printed all the same."""
    try:
        gathering.gather(waiting.Patience(timeout_s), eager=eager)
    except waiting.OutOfTime as error:
        gathering.show({})
        count = len(gathering.waiting)
        raise TimedOut(
            "collect",
            f"{count} of {len(gathering.asked)} tasks not final in the time given",
            _again(gathering.waiting),
        ) from error
    except KeyboardInterrupt:
        gathering.show({})
        call.note(f"the tasks go on: {_again(gathering.waiting)}")
        raise


class Gathering:
    """The tasks that were asked for and what is known of them."""

    def __init__(self, call: Invocation, task_ids: Sequence[str], *, is_perf: bool = False) -> None:
        self._call = call
        self._listing = PERF if is_perf else RESULTS
        self.asked = list(dict.fromkeys(task_ids))
        self.waiting = list(self.asked)
        self._known: dict[str, Json] = {}

    def known(self) -> list[Json]:
        """Every task in the order asked, also those of which nothing is known yet."""
        return [self._known.get(i, {"task_id": i, "state": "PENDING"}) for i in self.asked]

    def finals(self) -> list[Json]:
        """The final tasks in the order asked."""
        return [task for task in self.known() if exits.is_final(task)]

    def look(self) -> None:
        """Ask once how each stands now."""
        for start in range(0, len(self.asked), waiting.COLLECT_MAX):
            chunk = self.asked[start : start + waiting.COLLECT_MAX]
            self._learn(chunk, waiting.collect(self._call.client, chunk, len(chunk) - 1, 0))

    def gather(self, patience: waiting.Patience, *, eager: bool) -> None:
        """Ask until all (or, eager, one) are final; OutOfTime when patience ends.

        At most 1,000 ids a call; a call is held until all of its tasks are final, so the
        number of calls depends on the time waited and not on the number of tasks.
        """
        with bar(self._call, "waiting", len(self.asked)) as advance:
            while self.waiting:
                chunk = self.waiting[: waiting.COLLECT_MAX]
                known_final = 0 if eager else len(chunk) - 1
                hold_s = patience.next_hold_s()
                found = waiting.collect(self._call.client, chunk, known_final, hold_s)
                self._learn(chunk, found)
                advance(len(self.asked) - len(self.waiting))
                if eager and self.finals():
                    return
                if not any(exits.is_final(task) for task in found):
                    patience.was_vain()

    def show(self, outputs: dict[str, str]) -> None:
        """Print every task in the order asked, with its output where that is wanted."""
        items = [
            task | ({"output": outputs[task["task_id"]]} if task["task_id"] in outputs else {})
            for task in self.known()
        ]
        output.show_list(self._call.form, self._listing, items, {"items": items})

    def _learn(self, chunk: Sequence[str], found: Sequence[Json]) -> None:
        self._known |= dict(zip(chunk, found, strict=True))
        left_before = len(self.waiting)
        left = [i for i in chunk if not exits.is_final(self._known[i])]
        asked = set(chunk)
        self.waiting = [i for i in self.waiting if i not in asked] + left
        if len(self.waiting) != left_before:
            done = len(self.asked) - len(self.waiting)
            self._call.note(f"{done} of {len(self.asked)} tasks are final")


def _ids(given: Sequence[str], requests_json: str | None) -> list[str]:
    ids = [i for word in given for i in (sys.stdin.read().split() if word == "-" else [word])]
    if requests_json is not None:
        ids += ids_in(requests_json, read_text(requests_json))
    if not ids:
        raise Invalid("collect", "no task ids", "give ids, - for stdin, or --requests-json FILE")
    return ids


def ids_in(name: str, text: str) -> list[str]:
    """The ids in JSON: of `tasks` or `items`, of one task, or a list of ids. Raises Invalid."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Invalid(f"--requests-json {name}", f"not JSON: {error}") from error
    if isinstance(found, dict):
        found = found.get("tasks") or found.get("items") or [found]
    entries = found if isinstance(found, list) else []
    named = [entry.get("task_id") if isinstance(entry, dict) else entry for entry in entries]
    ids = [task_id for task_id in named if isinstance(task_id, str) and task_id]
    if not ids or len(ids) != len(named):
        problem = 'holds no task ids; {"tasks": [{"task_id": ...}]} is expected'
        raise Invalid(f"--requests-json {name}", problem)
    return ids


def _again(task_ids: Sequence[str]) -> str:
    more = f" and {len(task_ids) - 3} more" if len(task_ids) > 3 else ""
    return f"skep collect {' '.join(task_ids[:3])}{more}"


def _forms(given: Sequence[tuple[str, str]], output_dir: Path | None) -> OutputForms:
    """What was asked for; a folder alone means files in it. Raises Invalid."""
    names = {form for form, _folder in given}
    folders = [Path(folder) if folder else output_dir for form, folder in given if form == "dir"]
    if None in folders:
        raise Invalid("--task-output-stdout dir", "no folder", "dir:FOLDER, or --output-dir FOLDER")
    if output_dir is not None and not given:
        folders = [output_dir]
    return OutputForms(
        "console" in names, "json" in names, tuple(folder for folder in folders if folder)
    )


def fetch(
    call: Invocation, tasks: Sequence[Json], forms: OutputForms, fetchers: int
) -> dict[str, str]:
    """Fetch the outputs, some at once, to where they go; the texts for JSON by task id."""
    for folder in forms.folders:
        folder.mkdir(parents=True, exist_ok=True)

    texts: dict[str, str] = {}
    ids = [task["task_id"] for task in tasks]
    contents = in_order(lambda task_id: _fetch_one(call, task_id, forms), ids, fetchers)
    with bar(call, "fetching", len(ids)) as advance:
        for count, (task_id, content) in enumerate(zip(ids, contents, strict=True), 1):
            if forms.to_console:
                call.note(f"output of {task_id}:")
                output.write_bytes(content)
            if forms.to_json:
                texts[task_id] = content.decode("utf-8", "replace")
            advance(count)
    return texts


def fetch_files(call: Invocation, tasks: Sequence[Json], folder: Path) -> None:
    """The files that tasks kept, each in a folder of its own; one that is there stays."""
    kept = [task["task_id"] for task in tasks if task.get("cas_output_root")]
    with bar(call, "fetching files", len(kept)) as advance:
        for count, task_id in enumerate(kept, 1):
            place = folder / Path(task_id).name
            if place.exists() and any(place.iterdir()):
                call.note(f"{place}: is there already; not fetched again")
            else:
                blobs.get_outputs(call.client, task_id, place)
            advance(count)


def _fetch_one(call: Invocation, task_id: str, forms: OutputForms) -> bytes:
    """Into the files as it comes; in memory, up to a bound, only what is printed from there."""
    files = [(folder / f"{Path(task_id).name}.txt").open("wb") for folder in forms.folders]
    kept = bytearray()
    try:
        for piece in waiting.output_pieces(call.client, task_id, None, lambda _state: None):
            for file in files:
                file.write(piece)
            if forms.to_console or forms.to_json:
                kept += piece[: max(0, MAX_JSON_OUTPUT - len(kept))]
    finally:
        for file in files:
            file.close()
    if len(kept) == MAX_JSON_OUTPUT:
        call.note(f"output of {task_id}: cut at {MAX_JSON_OUTPUT} bytes; skep task log has all")
    return bytes(kept)
