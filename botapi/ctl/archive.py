"""`skep archive`: keep bot archives, and take them through the fleet."""

from pathlib import Path
from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import Invalid, plain
from botapi.ctl.http import segment
from botapi.ctl.output import Column, Listing, as_cell, key
from botapi.ctl.params import whole_duration

MAX_BYTES = 64 * 1024 * 1024

ARCHIVES = Listing(
    "archive",
    (
        key("release_id"),
        key("label"),
        key("number"),
        key("origin"),
        Column("used_as", lambda item: item.get("used_as") or None),
        key("created_at"),
        key("file_name"),
    ),
)
_reason = click.option("--reason", default="", help="Kept in the audit record.")


@click.group()
def archive() -> None:
    """Keep bot archives, and take them through the fleet."""


@archive.command("list")
@client_command
def list_archives(call: Invocation) -> None:
    """List the releases that the server keeps, newest first."""
    found = call.client.get("archives", "/archives")
    output.show_list(call.form, ARCHIVES, found["items"], found)


@archive.command()
@click.argument("release")
@client_command
def show(call: Invocation, release: str) -> None:
    """Print everything about a release: its id, the beginning of one, or source."""
    found = call.client.get(f"release {release}", f"/archives/{segment(release)}")
    output.show_item(call.form, "archive", found["release_id"], found)


@archive.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--allow-unsigned", is_flag=True, help="Although the server has release keys.")
@client_command
def upload(call: Invocation, file: Path, allow_unsigned: bool) -> None:  # noqa: FBT001 - an option
    """Keep an archive made elsewhere; no bot runs it by that."""
    if file.stat().st_size > MAX_BYTES:
        raise Invalid(str(file), f"larger than {MAX_BYTES} bytes")
    query: list[tuple[str, str | int]] = [
        ("file_name", file.name),
        ("allow_unsigned", str(int(allow_unsigned))),
    ]
    made = call.client.upload(f"archive {file.name}", "/archives", file.read_bytes(), query)
    if call.form == "table":
        click.echo(plain(made["release_id"]))
        call.note(f"kept, {made['label']}; skep archive rollout start {made['release_id'][:12]}")
    else:
        output.show_item(call.form, "archive", made["release_id"], made)


@archive.command()
@click.argument("release")
@click.option("--percent", type=click.IntRange(0, 100), required=True, help="0 ends it.")
@_reason
@client_command
def canary(call: Invocation, release: str, percent: int, reason: str) -> None:
    """Give a release to a part of the fleet."""
    body = {"release": release, "percent": percent, "reason": reason}
    _show(call, call.client.ask("canary", "/rollout/canary", body))


@archive.command()
@_reason
@client_command
def rollback(call: Invocation, reason: str) -> None:
    """Take the new release back at once, on its way or stable already."""
    _show(call, call.client.once("rollback", "/rollout/rollback", {"reason": reason}))


@archive.group()
def rollout() -> None:
    """Take a release through the fleet, ring by ring."""


@rollout.command()
@click.argument("release")
@click.option("--rings", help="Percent of the fleet in each ring, such as 5,25,100.")
@click.option("--soak", "soak_s", type=whole_duration, help="How long a ring must be healthy.")
@click.option(
    "--max-failed",
    "max_failed_percent",
    type=click.IntRange(0, 100),
    help="Percent of failed bots over which the release is taken back.",
)
@click.option("--min-updated", type=click.IntRange(min=1), help="Healthy bots a ring needs.")
@click.option("--allow-downgrade", is_flag=True, help="To an older release, or an unsigned one.")
@_reason
@client_command
def start(call: Invocation, release: str, rings: str | None, **given: Any) -> None:
    """Begin with a release: its id, the beginning of one, or source."""
    body = {name: value for name, value in given.items() if value is not None}
    if rings is not None:
        body["rings"] = _rings(rings)
    _show(call, call.client.once("rollout", "/rollout", {"release": release, **body}))


@rollout.command()
@client_command
def status(call: Invocation) -> None:
    """Print who runs what, and how the rollout stands."""
    _show(call, call.client.get("rollout", "/rollout"))


@rollout.command()
@_reason
@client_command
def halt(call: Invocation, reason: str) -> None:
    """Stop before the next ring, until somebody resumes it or rolls it back."""
    _show(call, call.client.once("rollout", "/rollout/halt", {"reason": reason}))


@rollout.command()
@_reason
@client_command
def resume(call: Invocation, reason: str) -> None:
    """Go on with a halted rollout."""
    _show(call, call.client.once("rollout", "/rollout/resume", {"reason": reason}))


def _rings(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list such as 5,25,100") from None


def _show(call: Invocation, status: output.Json) -> None:
    """The state of things; the table has the keys of the rollout as rows of their own."""
    if call.form != "table":
        output.show_item(call.form, "rollout", str(status["stable"]), status)
        return
    rows = {name: as_cell(value) for name, value in status.items() if name != "rollout"}
    for name, value in (status["rollout"] or {}).items():
        rows[f"rollout {name}"] = as_cell(value)
    output.show_pairs(rows)
