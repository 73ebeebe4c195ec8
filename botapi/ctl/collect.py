"""`skep collect`: wait for many tasks with few calls, and print what became of them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from botapi.ctl import exits, output, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid, TimedOut
from botapi.ctl.params import duration
from botapi.ctl.tasks import RESULTS

Json = dict[str, Any]


@click.command()
@click.option("-timeout", "--timeout", "timeout_s", type=duration, help="How long to wait.")
@click.option("-eager", "--eager", is_flag=True, help="Return as soon as one task is final.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write each final task's output to, as <task id>.txt.",
)
@click.argument("task_ids", nargs=-1, required=True, metavar="ID...")
@client_command
def collect(
    call: Invocation,
    task_ids: tuple[str, ...],
    timeout_s: float | None,
    eager: bool,  # noqa: FBT001 - an option
    output_dir: Path | None,
) -> int:
    """Wait until the tasks are final and print their results in the order asked.

    `-` reads the ids from stdin, one a line.
    """
    gathering = Gathering(call, _ids(task_ids))
    try:
        gathering.gather(waiting.Patience(timeout_s), eager=eager)
    except waiting.OutOfTime as error:
        gathering.show()
        count = len(gathering.waiting)
        raise TimedOut(
            "collect",
            f"{count} of {len(gathering.asked)} tasks not final in the time given",
            _again(gathering.waiting),
        ) from error
    except KeyboardInterrupt:
        gathering.show()
        call.note(f"the tasks go on: {_again(gathering.waiting)}")
        raise
    gathering.show()
    finals = gathering.finals()
    if output_dir is not None:
        _write_outputs(call, finals, output_dir)
    return exits.worst(exits.of_task(task) for task in finals)


class Gathering:
    """The tasks that were asked for and what is known of them."""

    def __init__(self, call: Invocation, task_ids: Sequence[str]) -> None:
        self._call = call
        self.asked = list(dict.fromkeys(task_ids))
        self.waiting = list(self.asked)
        self._known: dict[str, Json] = {}

    def finals(self) -> list[Json]:
        """The final tasks in the order asked."""
        tasks = (self._known.get(task_id) for task_id in self.asked)
        return [task for task in tasks if task is not None and exits.is_final(task)]

    def gather(self, patience: waiting.Patience, *, eager: bool) -> None:
        """Ask until all (or, eager, one) are final; OutOfTime when patience ends.

        At most 1,000 ids a call; a call is held until all of its tasks are final, so the
        number of calls depends on the time waited and not on the number of tasks.
        """
        while self.waiting:
            chunk = self.waiting[: waiting.COLLECT_MAX]
            known_final = 0 if eager else len(chunk) - 1
            found = waiting.collect(self._call.client, chunk, known_final, patience.next_hold_s())
            self._learn(chunk, found)
            if eager and self.finals():
                return
            if not any(exits.is_final(task) for task in found):
                patience.was_vain()

    def show(self) -> None:
        """Print every task in the order asked, also those of which nothing is known yet."""
        items = [self._known.get(i, {"task_id": i, "state": "PENDING"}) for i in self.asked]
        output.show_list(self._call.form, RESULTS, items, {"items": items})

    def _learn(self, chunk: Sequence[str], found: Sequence[Json]) -> None:
        self._known |= dict(zip(chunk, found, strict=True))
        left_before = len(self.waiting)
        left = [i for i in chunk if not exits.is_final(self._known[i])]
        self.waiting = self.waiting[len(chunk) :] + left
        if len(self.waiting) != left_before:
            done = len(self.asked) - len(self.waiting)
            self._call.note(f"{done} of {len(self.asked)} tasks are final")


def _ids(given: Sequence[str]) -> list[str]:
    ids = [i for word in given for i in (sys.stdin.read().split() if word == "-" else [word])]
    if not ids:
        raise Invalid("collect", "no task ids on stdin")
    return ids


def _again(task_ids: Sequence[str]) -> str:
    more = f" and {len(task_ids) - 3} more" if len(task_ids) > 3 else ""
    return f"skep collect {' '.join(task_ids[:3])}{more}"


def _write_outputs(call: Invocation, tasks: Sequence[Json], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        name = f"{Path(task['task_id']).name}.txt"
        with (folder / name).open("wb") as file:
            pieces = waiting.output_pieces(call.client, task["task_id"], None, lambda _state: None)
            file.writelines(pieces)
