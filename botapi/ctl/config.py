"""`skep config`: check, look at and change the configuration, and take a change back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.asking import is_terminal
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import CtlError, Invalid, NotFound, plain
from botapi.ctl.exits import Exit
from botapi.ctl.options import CHECK_FOLDER
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import show_pages

Json = dict[str, Any]
Check = Callable[[Path], Json]

FILES = ("bots.cfg", "pools.cfg", "settings.cfg")
REVISIONS = Listing(
    "revision",
    (
        key("rev"),
        key("applied_at"),
        key("author"),
        key("in_force"),
        key("digest"),
        key("reason"),
    ),
)
CHANGES = Listing("change", (key("id"), key("kind"), key("changes"), key("details")))

_folder = click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
_reason = click.option("--reason", required=True, help="Why; kept with the revision.")
_drop = click.option(
    "--drop", type=click.IntRange(min=0), metavar="N", help="Drop exactly so many live bots."
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def config() -> None:
    """Check, preview, apply and roll back the configuration."""


@config.command()
@_folder
@client_command
def validate(call: Invocation, folder: Path | None) -> int:
    """Check the files in DIR without a server; every mistake with its place."""
    check: Check = click.get_current_context().meta[CHECK_FOLDER]
    folder = folder or call.settings.config_dir
    found = check(folder)
    _show_checked(call, found)
    if found["mistakes"]:
        raise Invalid(str(folder), f"{len(found['mistakes'])} mistake(s)", "see docs/bots-cfg.md")
    call.note(f"{folder}: good, {len(found['warnings'])} warning(s)")
    return Exit.DONE


@config.command()
@click.option("--rev", type=click.IntRange(min=1), help="An older revision.")
@click.option("--file", "name", metavar="NAME", help="Only this file, byte for byte.")
@client_command
def show(call: Invocation, rev: int | None, name: str | None) -> None:
    """Print what is in force, or an older revision."""
    path = "/config" if rev is None else f"/config/revisions/{rev}"
    found = call.client.get("configuration", path)
    if name is not None:
        if name not in found["files"]:
            raise NotFound(name, "no such file", f"there are: {', '.join(found['files'])}")
        output.write_bytes(found["files"][name].encode())
        return
    if call.form == "table":
        output.show_pairs({title: output.as_cell(value) for title, value in _shown(found).items()})
    else:
        output.show_item(call.form, "config", str(found["rev"]), found)
    _note_disk(call, found)


@config.command()
@_folder
@click.option("--rev", type=click.IntRange(min=1), help="Going back to this revision instead.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when something changes.")
@client_command
def preview(call: Invocation, folder: Path | None, rev: int | None, exit_code: bool) -> int:  # noqa: FBT001 - an option
    """Print what the files in DIR would do to bots and pending tasks; change nothing."""
    found = _preview(call, {"files": _files(call, folder)} if rev is None else {"rev": rev})
    rows = [_bot_row(bot) for bot in found["bots"]] + [_task_row(task) for task in found["tasks"]]
    if call.form == "jsonl":
        for bot in found["bots"]:
            output.write_record("bot", bot)
        for task in found["tasks"]:
            output.write_record("task", task)
        output.write_record("summary", _summary(found))
    else:
        output.show_list(call.form, CHANGES, rows, found)
    call.note(_said(found))
    return Exit.FAILED if exit_code and found["is_new"] else Exit.DONE


@config.command()
@_folder
@_reason
@_drop
@_yes
@client_command
def apply(
    call: Invocation,
    folder: Path | None,
    reason: str,
    drop: int | None,
    yes: bool,  # noqa: FBT001 - an option
) -> int:
    """Put the files in DIR in force."""
    files = _files(call, folder)
    parent = _confirmed(call, {"files": files}, yes=yes)
    return _change(call, "/config/apply", {"files": files, "reason": reason}, parent, drop)


@config.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@client_command
def history(call: Invocation, limit: int) -> int:
    """List the revisions, newest first."""
    return show_pages(call, REVISIONS, "/config/revisions", [], limit)


@config.command()
@click.argument("rev", type=click.IntRange(min=1))
@_reason
@_drop
@_yes
@client_command
def rollback(
    call: Invocation,
    rev: int,
    reason: str,
    drop: int | None,
    yes: bool,  # noqa: FBT001 - an option
) -> int:
    """Put an older revision in force again, as a new one."""
    parent = _confirmed(call, {"rev": rev}, yes=yes)
    return _change(call, "/config/rollback", {"rev": rev, "reason": reason}, parent, drop)


def _files(call: Invocation, folder: Path | None) -> dict[str, str]:
    """The files as the API takes them; Invalid when one cannot be read."""
    folder = folder or call.settings.config_dir
    paths = {name: folder / name for name in FILES if (folder / name).exists()}
    if FILES[0] not in paths:
        raise Invalid(str(folder), f"there is no {FILES[0]}", "name the folder of the files")
    paths |= {f"scripts/{path.name}": path for path in sorted((folder / "scripts").glob("*.py"))}
    try:
        return {name: path.read_bytes().decode() for name, path in paths.items()}
    except UnicodeDecodeError:
        raise Invalid(
            str(folder), "a file is not UTF-8 text", "skep config validate names it"
        ) from None
    except OSError as error:
        raise Invalid(str(error.filename), str(error.strerror)) from error


def _preview(call: Invocation, body: Json) -> Json:
    return _asked(call, "/config/preview", body)


def _confirmed(call: Invocation, body: Json, *, yes: bool) -> str:
    """Say what a change will touch, and ask; the revision it was compared with."""
    found = _preview(call, body)
    if not found["is_new"]:
        return str(found["parent"])  # `_change` will say so
    call.note(_said(found))
    if not yes:
        if not is_terminal():
            raise Invalid("--yes", "nobody is there to be asked", "give --yes to go on")
        if not click.confirm("put it in force?", err=True):
            raise Invalid("configuration", "not put in force")
    return str(found["parent"])


def _change(call: Invocation, path: str, body: Json, parent: str, drop: int | None) -> int:
    """Push, on the revision that was previewed."""
    asked = body | {"parent": parent} | ({} if drop is None else {"drop": drop})
    made = _asked(call, path, asked)
    output.show_item(call.form, "config", str(made["rev"]), made)
    if not made["is_new"]:
        call.note(f"nothing changes: revision {made['rev']} says the same")
    return Exit.DONE


def _asked(call: Invocation, path: str, body: Json) -> Json:
    """POST; every mistake of bad files goes to stderr, a line each, before the error."""
    try:
        return call.client.ask("configuration", path, body)
    except CtlError as error:
        problem = error.problem or {}
        if call.form not in {"json", "jsonl"}:
            for line in problem.get("mistakes", ()):
                click.echo(plain(str(line)), err=True)
        if problem.get("code") == "would_drop":
            error.hint = f"skep config preview names them; --drop {problem['dropped_bots']} goes on"
        raise


def _show_checked(call: Invocation, found: Json) -> None:
    lines = [("mistake", line) for line in found["mistakes"]]
    lines += [("warning", line) for line in found["warnings"]]
    if call.form == "json":
        output.write_json(found)
    elif call.form == "jsonl":
        for kind, line in lines:
            output.write_record(kind, {"text": line})
        output.write_record("summary", {"digest": found["digest"], "count": len(lines)})
    elif call.form == "id":
        click.echo(found["digest"] or "")
    else:
        for kind, line in lines:
            click.echo(plain(line if kind == "mistake" else f"{line} (warning)"))


def _shown(found: Json) -> Json:
    """A revision for people: file names instead of their contents."""
    disk = found.get("on_disk")
    names = [name for name, text in found["files"].items() if text]
    return found | {"files": names} | ({"on_disk": disk["state"]} if disk else {})


def _note_disk(call: Invocation, found: Json) -> None:
    disk = found.get("on_disk") or {"state": ""}
    if disk["state"] == "differs":
        call.note(
            "the files on the server's disk differ from what is in force: somebody applied "
            "another revision since they changed last"
        )
    elif disk["state"] == "kept_out":
        call.note("the files on the server's disk are kept out:")
        for line in disk["mistakes"]:
            call.note(f"  {line}")


def _summary(found: Json) -> Json:
    return {name: value for name, value in found.items() if name not in {"bots", "tasks"}}


def _said(found: Mapping[str, Any]) -> str:
    """A preview in one line."""
    if not found["is_new"]:
        return f"nothing changes: revision {found['parent_rev']} says the same"
    more = " or more" if found["tasks_cut"] else ""
    return (
        f"{', '.join(found['files'])} change: of {found['live_bots']} live bots "
        f"{found['restarting_bots']} will restart, {found['dropped_bots']} will be dropped; "
        f"{found['changed_bots']} known bots change; "
        f"{len(found['tasks'])}{more} pending tasks lose their last bot"
    )


def _bot_row(bot: Json) -> Json:
    changes = [*bot["changes"], *(["restart"] if bot["restarts"] else [])]
    changes += [] if bot["live"] else ["dead"]
    details = [f"dropped: {bot['dropped']}"] if bot["dropped"] else []
    if "group" in bot["changes"]:
        details.append(f"{bot['group_before']} -> {bot['group_after']}")
    details += [f"-{flat}" for flat in bot["dimensions_removed"]]
    details += [f"+{flat}" for flat in bot["dimensions_added"]]
    return {"id": bot["bot_id"], "kind": "bot", "changes": changes, "details": " ".join(details)}


def _task_row(task: Json) -> Json:
    wants = " ".join(task["wants"])
    return {
        "id": task["task_id"],
        "kind": "task",
        "changes": ["no bot"],
        "details": f"slice {task['slice_index']} wants {wants}",
    }
