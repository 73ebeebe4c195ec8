"""`skep reproduce`: a task's command, environment and inputs in a folder, run on this machine."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from botapi.ctl import blobs, waiting
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid
from botapi.ctl.exits import TASK_CODE_MAX, Exit

Json = dict[str, Any]

SCRIPT = "run.sh"
ROOT = "root"
OUT = "out"


@click.command()
@click.argument("task_id", metavar="ID")
@click.option(
    "-work",
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to make; it must be empty. Default: skep-<ID>.",
)
@click.option("-no-run", "--no-run", "no_run", is_flag=True, help="Only prepare the folder.")
@client_command
def reproduce(call: Invocation, task_id: str, work: Path | None, no_run: bool) -> int:  # noqa: FBT001
    """Prepare a folder with what a task was given, and run its command there.

    The folder has run.sh, task.json, root (where the command runs, with the input files) and
    out. Dimensions, time limits, secrets and caches of the bot are not reproduced.
    """
    task = waiting.read_task(call.client, task_id)
    slice_ = task["slices"][task["slice_index"]]
    if not slice_["command"]:
        raise Invalid(f"task {task_id}", "has no command to run")
    folder = (work or Path(f"skep-{task['task_id']}")).resolve()
    prepare(folder, task, slice_)
    root = slice_.get("cas_input_root")
    if root:
        digest = f"{root['digest']['hash']}/{root['digest']['size_bytes']}"
        blobs.get(call.client, digest, folder / ROOT)
    start_of(folder, slice_).mkdir(parents=True, exist_ok=True)
    for text in missing(task, slice_):
        call.note(f"not reproduced: {text}")
    if no_run:
        click.echo(str(folder / SCRIPT))
        return Exit.DONE
    call.note(f"running {folder / SCRIPT}")
    code = subprocess.run(["/bin/sh", str(folder / SCRIPT)], check=False).returncode  # noqa: S603
    return code if 0 <= code <= TASK_CODE_MAX else TASK_CODE_MAX


def prepare(folder: Path, task: Json, slice_: Json) -> None:
    """Make the folder and what is in it. Raises Invalid when it holds something already."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise Invalid(str(folder), "is not empty", "name a new folder with --work")
        if not start_of(folder, slice_).is_relative_to(folder / ROOT):
            raise Invalid(slice_["relative_cwd"], "is not below the folder of the task")
        (folder / OUT).mkdir(parents=True)
        (folder / "task.json").write_text(json.dumps(task, indent=2) + "\n", encoding="utf-8")
        (folder / SCRIPT).write_text(script(folder, task, slice_), encoding="utf-8")
        (folder / SCRIPT).chmod(0o700)
    except OSError as error:
        raise Invalid(str(folder), error.strerror or str(error)) from error


def start_of(folder: Path, slice_: Json) -> Path:
    """Where the command starts."""
    return Path(os.path.normpath(folder / ROOT / (slice_["relative_cwd"] or ".")))


def script(folder: Path, task: Json, slice_: Json) -> str:
    """A shell script that does what the bot did: variables, folder, command."""
    lines = ["#!/bin/sh", f"# task {task['task_id']}: {task['name']!a}", "set -eu"]
    environment = {**slice_["env"], "SWARMING_TASK_ID": task["run_id"] or task["task_id"]}
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += _prefixes(folder, slice_["env_prefixes"])
    lines.append(f"cd {shlex.quote(str(start_of(folder, slice_)))}")
    out = str(folder / OUT)
    words = [word.replace("${ISOLATED_OUTDIR}", out) for word in slice_["command"]]
    lines.append(f"exec {shlex.join(words)}")
    return "\n".join(lines) + "\n"


def _prefixes(folder: Path, prefixes: Mapping[str, list[str]]) -> list[str]:
    """`export PATH=<folder>/a:<folder>/b:$PATH`, without an empty last part."""
    lines = []
    for name, paths in prefixes.items():
        joined = ":".join(shlex.quote(str(folder / ROOT / path)) for path in paths)
        lines.append(f'export {name}={joined}"${{{name}:+:${name}}}"')
    return lines


def missing(task: Json, slice_: Json) -> list[str]:
    """What the task had and this machine does not get, a line for each."""
    found = []
    if slice_.get("cipd_input"):
        found.append("packages")
    if task.get("secrets") or slice_.get("has_secret_bytes"):
        found.append("secrets")
    names = ", ".join(cache["name"] for cache in slice_.get("caches", ()))
    return found + ([f"named caches {names}"] if names else [])
