"""`python -m examples.census.demo`: a real server, real bots and a real job, checked.

The fleet counts the standard library in shards, one task a shard; the sum must equal one serial
pass exactly. Progress goes to stderr, the result to stdout; nothing is left behind.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from botapi import settings
from botapi.ctl.exits import Exit, of_task
from botapi.ctl.http import Client
from botapi.ctl.run import summary
from examples.census import census
from examples.census.fleet import Fleet, FleetError, last_lines, pause

Json = dict[str, Any]

INTERRUPTED = 130
COLLECT_LIMIT = "10m"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the fleet did: its sums, the tasks of all shards, and the seconds it took."""

    census: census.Census
    tasks: list[Json]
    fleet_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 when both censuses agree, 1 for any failure, 130 for Ctrl-C."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    folder = asked.dir or Path(tempfile.mkdtemp(prefix="skep-demo-"))
    try:
        fleet = Fleet(folder.resolve(), _tell)
        with _running(fleet):
            code = _demonstrate(fleet, asked)
            if asked.keep and code == 0:
                _keep(fleet)
    except FleetError as error:
        print(f"error: {error}\n--- the end of {error.log}:", file=sys.stderr)
        print(last_lines(error.log), file=sys.stderr)
        print(f"--- all logs are in {folder / 'logs'}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; the logs are in {folder / 'logs'}", file=sys.stderr)
        return INTERRUPTED
    if asked.dir is None and code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.census.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the fleet running until Ctrl-C")
    parser.add_argument("--bots", type=int, default=4, help="how many bots (default 4)")
    parser.add_argument("--shards", type=int, default=32, help="how many tasks (default 32)")
    parser.add_argument("--port", type=int, default=0, help="the server's port (default: any)")
    parser.add_argument("--library", type=Path, help="folder to count instead of the library")
    parser.add_argument("--dir", type=Path, help="a new folder for everything; it is kept")
    return parser


def _demonstrate(fleet: Fleet, asked: argparse.Namespace) -> int:
    fleet.start_server(asked.port)
    fleet.start_bots(asked.bots)
    outcome = _count_with(fleet, asked.shards, asked.library)
    fleet.check()
    _tell("the serial pass, in one process")
    began = time.monotonic()
    serial = census.serial_pass(asked.library)
    serial_s = time.monotonic() - began
    wrong = census.differences(outcome.census, serial)
    if wrong:
        print("the fleet and the serial pass differ (fleet and serial):", *wrong[:50], sep="\n  ")
        return 1
    _report(outcome, serial_s, fleet.url)
    return 0


def _count_with(fleet: Fleet, shards: int, library: Path | None) -> Outcome:
    """One task a shard; submitted, waited for and read with the client commands' own code."""
    _tell(f"submitting {shards} tasks")
    began = time.monotonic()
    with Client(settings.load(fleet.environ)) as client:
        commands = [census.shard_command(index, shards, library) for index in range(shards)]
        ids = [_submit(client, i, command)["task_id"] for i, command in enumerate(commands)]
    outputs = fleet.folder / "outputs"
    collected = fleet.skep(
        *("collect", "--format", "json", "--timeout", COLLECT_LIMIT),
        *("--output-dir", str(outputs), *ids),
        also=frozenset({Exit.FAILED, Exit.CANCELED, Exit.INFRASTRUCTURE}),
    )
    fleet_s = time.monotonic() - began
    tasks = json.loads(collected)["items"]
    for task in tasks:
        if of_task(task) is not Exit.DONE:
            raise FleetError(summary(task), outputs / f"{task['task_id']}.txt")
    found = [census.parse_shard((outputs / f"{i}.txt").read_bytes()) for i in ids]
    return Outcome(census.add_up(found), tasks, fleet_s)


def _submit(client: Client, index: int, command: list[str]) -> Json:
    body = {
        "name": f"census shard {index}",
        "command": command,
        "tags": ["demo:census", f"shard:{index}"],
    }
    return client.create("submit", "/tasks", body)


def _report(outcome: Outcome, serial_s: float, url: str) -> None:
    total = outcome.census
    print("\nThe census:")
    for name in ("modules", "lines", "bytes", "functions", "classes", "nodes", "skipped"):
        print(f"  {name:<10} {total[name]:>12,}")
    print("  imported most: " + ", ".join(f"{n} {c}" for n, c in census.top_imports(total)))
    print(f"  digest {total['digest']}")
    print("\nWho did it:")
    for bot_id, count in sorted(Counter(task["bot_id"] for task in outcome.tasks).items()):
        busy = sum(t["duration_s"] or 0 for t in outcome.tasks if t["bot_id"] == bot_id)
        print(f"  {bot_id:<10} {count:>3} tasks {busy:>7.1f} s")
    print(
        f"\nfleet  {outcome.fleet_s:>6.1f} s for {len(outcome.tasks)} tasks, submitted to collected"
    )
    print(f"serial {serial_s:>6.1f} s in one process ({os.cpu_count()} CPUs here)")
    print("Both censuses agree exactly.")
    print(f"Pages: {url}/", flush=True)


def _keep(fleet: Fleet) -> None:
    """Leave the fleet running until Ctrl-C, which is the right way to end it."""
    with contextlib.suppress(KeyboardInterrupt):
        print(f"\nThe fleet goes on until Ctrl-C. Everything is in {fleet.folder}")
        print(f"  export SKEP_SERVER={fleet.url} SKEP_TOKEN_FILE={fleet.key_file}")
        print("  skep bots")
        print("  skep run --follow -- echo hello")
        print("  skep tasks --tag demo:census", flush=True)
        while True:
            fleet.check()
            pause(1)


@contextlib.contextmanager
def _running(fleet: Fleet) -> Iterator[None]:
    """Stop the fleet in any case; a second Ctrl-C does not interrupt that."""
    try:
        yield
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _tell("stopping")
        fleet.stop()
        signal.signal(signal.SIGINT, before)


def _tell(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
