"""`skep store`: a database copied to another engine, read whole, or put on a new schema.

All open the databases themselves and ask no server (docs/deploy/moving.md, docs/upgrading.md).
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from botapi import engines, settings
from botapi.clock import Clock, SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.scheduler.store_check import Finding, Report, check_store
from botapi.secrets.by_name import SecretError, resolved
from botapi.settings import Settings, SettingsError
from botapi.store import codec, copying
from botapi.store.copying import Tally
from botapi.store.protocol import SCHEMA_NUMBER, Store, StoreError, UnfitAddress
from botapi.store.sqlite_copy import damage
from botapi.store.sqlite_files import DATABASE
from botapi.store.walk import END
from botapi.transactions.server_presence import living, raise_schema

FOUND, USAGE, FAILED, CONFLICT = 1, 2, 3, 9
SAY_EVERY = 10_000
"""Documents of a kind between two lines that say how far the copy is."""
_UNTIL = "until_ms"


class MoveError(Exception):
    """One line: what, where, what to do; `code` is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@click.group()
def store() -> None:
    """Copy a whole database to another engine, check one, or raise its schema."""


_FORMAT = click.option(
    "--format", "-o", "form", type=click.Choice(["table", "json"]), help="Form of the results."
)


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--resume", is_flag=True, help="Go on with a copy that broke off.")
@click.option("--force", is_flag=True, help="Copy although a server works on FROM.")
@_FORMAT
def copy(source: str, target: str, *, resume: bool, force: bool, form: str | None) -> None:
    """Copy every document of FROM into TO, then read TO and compare.

    An address is sqlite:FOLDER, postgresql://..., datastore://..., or @FILE for a file that
    holds one. Stop the servers of FROM before; files of tasks are copied apart.
    """
    chosen = _settings(form)
    try:
        said = move(chosen, source, target, resume=resume, force=force)
    except MoveError as error:
        _fail(error)
    except StoreError as error:
        _fail(MoveError(f"{error}; after a break the same command with --resume goes on", FAILED))
    _print_copy(chosen.format, said)


@store.command()
@click.argument("address", required=False)
@_FORMAT
def check(address: str | None, form: str | None) -> None:
    """Read a whole database and say what is wrong in it; 1 when something is.

    Without an ADDRESS it is the one of SKEP_STORE. A server may work on it meanwhile.
    """
    chosen = _settings(form)
    try:
        where = chosen.store if address is None else _address(address)
        report = examine(chosen, where)
    except MoveError as error:
        _fail(error)
    except StoreError as error:
        _fail(MoveError(str(error), FAILED))
    _print_check(chosen.format, shown(where), report)
    sys.exit(FOUND if report.findings else 0)


@store.command()
@_FORMAT
def upgrade(form: str | None) -> None:
    """Put the schema of this Skep in force, once every server process knows it.

    The last step of an upgrade (docs/upgrading.md): releases that do not know it refuse to
    start afterwards.
    """
    chosen = _settings(form)
    try:
        before = raise_to_known(chosen)
    except MoveError as error:
        _fail(error)
    except StoreError as error:
        _fail(MoveError(str(error), FAILED))
    if chosen.format == "json":
        click.echo(json.dumps({"before": before, "schema": SCHEMA_NUMBER}))
    elif before == SCHEMA_NUMBER:
        click.echo(f"schema {SCHEMA_NUMBER} is in force already")
    else:
        click.echo(f"schema {SCHEMA_NUMBER} is in force, before it {before}")


def raise_to_known(chosen: Settings) -> int:
    """Raise the schema number in force to the one that this Skep knows; the one before.

    Raises MoveError naming the living processes that do not know it, StoreError.
    """
    clock, rng = SystemClock(), SystemRng()
    with ExitStack() as stack:
        found = _open(stack, chosen, chosen.store, clock, must_exist=True)
        now_ms = clock.now_ms()
        older = [each for each in living(found, now_ms) if each.knows < SCHEMA_NUMBER]
        if older:
            names = ", ".join(server.named for server in older)
            raise MoveError(
                f"these server processes do not know schema {SCHEMA_NUMBER}: {names}; bring them "
                "to this release first (one that was killed counts for 60 s more)",
                CONFLICT,
            )
        entry_id = f"{rng.randbits(96):024x}"
        return raise_schema(found, SCHEMA_NUMBER, entry_id=entry_id, now_ms=now_ms)


def move(
    chosen: Settings, source: str, target: str, *, resume: bool, force: bool
) -> dict[str, Any]:
    """Copy, compare, and let servers start on the copy; what there was.

    Raises MoveError, StoreError; the copy then stays unfinished.
    """
    names = shown(_address(source)), shown(_address(target))
    clock = SystemClock()
    with ExitStack() as stack:
        before = _open(stack, chosen, _address(source), clock, must_exist=True)
        is_held = _check_source(before, names[0], clock, force=force)
        after = _open(stack, chosen, _address(target), clock, must_exist=False)
        _check_target(after, names[1], resume=resume)
        duties = _duties(before)
        read = copying.copy_all(before, after, _say)
        if is_held or _duties(before) != duties:
            raise MoveError(
                f"a server worked on {names[0]} meanwhile: the copy is of no one moment; "
                "stop it, then the same command with --resume brings the rest",
                CONFLICT,
            )
        differing = copying.differences(read, after)
        if differing:
            raise MoveError(
                f"{names[1]} does not hold the same of {', '.join(differing)}: was it written "
                "to meanwhile? The same command with --resume makes it right",
                CONFLICT,
            )
        copying.finish(before, after)
    return {
        "from": names[0],
        "to": names[1],
        "equal": True,
        "kinds": {kind: _tally(found) for kind, found in read.items()},
    }


def examine(chosen: Settings, address: str) -> Report:
    """Everything that is wrong in the store at an address. Raises MoveError, StoreError."""
    folder = _folder(chosen, address)
    if folder is not None and (folder / DATABASE).exists():
        lines = damage(folder / DATABASE)
        if lines:
            return Report(findings=[Finding("", "", f"SQLite: {line}") for line in lines])
    with ExitStack() as stack:
        found = _open(stack, chosen, address, SystemClock(), must_exist=True)
        _check_not_empty(found, shown(address))
        return check_store(found)


def shown(address: str) -> str:
    """An address without its password, also when that is written in a way that is refused."""
    scheme, mark, rest = address.partition("://")
    if not mark or scheme == "datastore":
        return address
    head, at, tail = re.split(r"\?\w+=", rest, maxsplit=1)[0].rpartition("@")
    user = re.split("[:/?#]", head, maxsplit=1)[0]
    return f"{scheme}://{user}{at}{tail.partition('?')[0]}"


def _address(text: str) -> str:
    """The address itself; one that begins with @ is in that file.

    What is no address is not shown: it may be a password, or the key file of the secrets.
    """
    what = "this"
    if text.startswith("@"):
        what = f"what {text} holds"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise MoveError(f"{text}: {reason}: a file with an address is needed", USAGE) from None
    if not re.fullmatch(r"sqlite(:.*)?|(postgres(ql)?|datastore)://.*", text):
        raise MoveError(
            f"{what} is no address: give sqlite:FOLDER, postgresql://..., datastore://..., "
            "or @FILE",
            USAGE,
        )
    return text


def _folder(chosen: Settings, address: str) -> Path | None:
    """The data folder of a SQLite address."""
    scheme, _, rest = address.partition(":")
    if scheme != "sqlite":
        return None
    return Path(rest) if rest else chosen.data_dir


def _open(
    stack: ExitStack, chosen: Settings, address: str, clock: Clock, *, must_exist: bool
) -> Store:
    folder = _folder(chosen, address)
    if must_exist and folder is not None and not (folder / DATABASE).exists():
        raise MoveError(
            f"{folder / DATABASE}: there is no database: give the data folder of a server", USAGE
        )
    try:
        found = engines.open_address(address, chosen, Threads(), clock, SystemRng())
    except OSError as error:
        raise MoveError(f"{error.filename or shown(address)}: {error.strerror}", FAILED) from None
    except UnfitAddress as error:
        raise MoveError(str(error), USAGE) from None
    stack.callback(found.close)
    return found


def _check_not_empty(found: Store, name: str) -> None:
    if copying.is_empty(found):
        raise MoveError(f"{name} holds nothing: is it the right one?", USAGE)


def _check_source(before: Store, name: str, clock: Clock, *, force: bool) -> bool:
    """Does a server work on it? Then its copy is of no one moment, however short it takes."""
    _check_not_empty(before, name)
    if copying.is_unfinished(before):
        raise MoveError(f"{name} is itself a copy that is not finished", CONFLICT)
    held = [key for key, body in _duties(before).items() if body[_UNTIL] > clock.now_ms()]
    if held and not force:
        raise MoveError(
            f"a server works on {name}: stop every one first (one that was killed counts for "
            "10 s more); --force copies what there is now, for --resume to bring the rest later",
            CONFLICT,
        )
    return bool(held)


def _check_target(after: Store, name: str, *, resume: bool) -> None:
    if copying.is_unfinished(after):
        if not resume:
            raise MoveError(
                f"{name} holds a copy that broke off: --resume goes on with it", CONFLICT
            )
    elif not copying.is_empty(after):
        raise MoveError(
            f"{name} holds documents already, and no copy that broke off: give an empty one",
            CONFLICT,
        )


def _duties(found: Store) -> dict[str, Mapping[str, Any]]:
    docs = found.scan(codec.DUTY, "", END, limit=copying.PAGE)
    return {doc.key: doc.body for doc in docs}


def _tally(found: Tally) -> dict[str, Any]:
    return {"documents": found.documents, "digest": found.digest}


def _say(kind: str, documents: int) -> None:
    if documents % SAY_EVERY == 0:
        click.echo(f"{kind}: {documents:,} documents", err=True)


def _print_copy(form: str, said: dict[str, Any]) -> None:
    if form == "json":
        click.echo(json.dumps(said, indent=2))
    else:
        for kind, found in said["kinds"].items():
            click.echo(f"{kind}\t{found['documents']}\t{found['digest']}")
    click.echo(
        f"{said['to']} holds the same as {said['from']}, by count and digest. Not in it: files of "
        "tasks (SKEP_BLOBS), the key file of secrets, bots.cfg on disk (docs/deploy/moving.md)",
        err=True,
    )


def _print_check(form: str, where: str, report: Report) -> None:
    if form == "json":
        findings = [asdict(finding) for finding in report.findings]
        said = {"store": where, "documents": report.documents, "findings": findings}
        click.echo(json.dumps({**said, "more_findings": report.unsaid}, indent=2))
    else:
        for finding in report.findings:
            place = f"{finding.kind} {finding.key!r}: " if finding.kind else ""
            click.echo(place + finding.text)
    total, wrong = sum(report.documents.values()), len(report.findings) + report.unsaid
    click.echo(f"{where}: {total} documents read, {wrong} findings", err=True)


def _settings(form: str | None) -> Settings:
    folder = Path(os.environ.get("SKEP_DATA_DIR") or Settings().data_dir)
    try:
        return settings.load(resolved(os.environ, folder), {"format": form})
    except SettingsError as error:
        _fail(MoveError(str(error), USAGE))
    except SecretError as error:
        _fail(MoveError(str(error), FAILED))


def _fail(error: MoveError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.code)
