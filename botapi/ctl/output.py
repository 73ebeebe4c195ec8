"""Results on stdout: a table for people, tabs for pipes, JSON as the API gave it, or ids.

Nothing else is ever written to stdout; notes and errors go to stderr.
"""

import csv
import importlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from botapi.ctl.errors import Invalid, plain

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """How this command shows its results, beside their format."""

    cols: tuple[str, ...] = ()
    has_header: bool = True
    is_wide: bool = False
    is_paged: bool = False
    color: bool | None = None
    json_file: Path | None = None


PLAIN = Look()
LOOK: ContextVar[Look] = ContextVar("look", default=PLAIN)
"""Set for each call of a command, from the common options."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its title and how its cell is found."""

    title: str
    cell: Callable[[Json], object]


@dataclass(frozen=True, slots=True)
class Listing:
    """How one kind of thing is listed; the first column is its identifier."""

    kind: str
    columns: tuple[Column, ...]

    def identifier(self, item: Json) -> str:
        """The identifier of one item."""
        return as_cell(self.columns[0].cell(item))

    def chosen(self, cols: Sequence[str], items: Sequence[Json]) -> tuple[Column, ...]:
        """The columns of `--cols`; Invalid for one that no item could have."""
        known = {column.title: column for column in self.columns}
        for name in cols:
            if items and name not in known and not any(_has(item, name) for item in items):
                offered = sorted({*known, *items[0]})
                hint = f"there are: {', '.join(offered)}"
                raise Invalid("--cols", f"no {self.kind} has {name!r}", hint)
        return tuple(known.get(name) or path(name) for name in cols) or self.columns


def key(title: str, name: str = "") -> Column:
    """A column that shows one key of the item."""
    return Column(title, lambda item: item.get(name or title))


def path(name: str) -> Column:
    """A column that shows a key within a key: `a.b`."""
    return Column(name, lambda item: _at(item, name))


def _at(item: Json, name: str) -> object:
    """The value at `a.b`; a key that itself has points goes first."""
    if name in item:
        return item[name]
    first, _, rest = name.partition(".")
    inner = item.get(first)
    return _at(inner, rest) if rest and isinstance(inner, Mapping) else None


def _has(item: Json, name: str) -> bool:
    first, _, rest = name.partition(".")
    inner = item.get(first)
    return name in item or (bool(rest) and isinstance(inner, Mapping))


def as_cell(value: object) -> str:
    """A value as one line of text that is safe on a terminal and between tabs."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{plain(str(k))}={as_cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(as_cell(part) for part in value)
    return plain(str(value))


def show_list(form: str, listing: Listing, items: Sequence[Json], whole: Json) -> None:
    """Print many items; `whole` is what the JSON form prints."""
    look = LOOK.get()
    if look.json_file is not None:
        _write_file(look.json_file, whole)
    elif form in {"json", "yaml"}:
        write_document(form, whole)
    elif form == "jsonl":
        for item in items:
            write_record(listing.kind, item)
        write_record("summary", {"count": len(items)})
    elif form == "id":
        for item in items:
            click.echo(listing.identifier(item))
    else:
        columns = listing.chosen(look.cols, items)
        rows = [[as_cell(column.cell(item)) for column in columns] for item in items]
        _show_rows(form, [column.title for column in columns], rows)


def show_item(form: str, kind: str, identifier: str, item: Json) -> None:
    """Print one thing; the table has a row for each key."""
    look = LOOK.get()
    if look.json_file is not None:
        _write_file(look.json_file, item)
    elif form in {"json", "yaml"}:
        write_document(form, item)
    elif form == "jsonl":
        write_record(kind, item)
        write_record("summary", {"count": 1})
    elif form == "id":
        click.echo(as_cell(identifier))
    elif look.cols:
        columns = Listing(kind, ()).chosen(look.cols, [item])
        _show_rows(form, list(look.cols), [[as_cell(column.cell(item)) for column in columns]])
    else:
        pairs = [[name, as_cell(value)] for name, value in item.items()]
        _show_rows(form, ["key", "value"] if form == "csv" else ["", ""], pairs)


def show_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and values, a row for each."""
    _show_rows("table", ["", ""], [[name, value] for name, value in pairs.items()])


def write_document(form: str, value: Json) -> None:
    """One document of JSON, or the same as YAML."""
    if form == "yaml":
        yaml: Any = importlib.import_module("yaml")  # slow to import
        text = yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True)
        click.echo(text, nl=False)
    else:
        write_json(value)


def write_json(value: Json) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2))


def write_record(kind: str, value: Json) -> None:
    """One typed record of a JSONL stream, at once."""
    click.echo(json.dumps({"kind": kind, **value}))


def write_bytes(content: bytes) -> None:
    """Bytes to stdout exactly as they are, at once."""
    stream = sys.stdout.buffer
    stream.write(content)
    stream.flush()


def _write_file(file: Path, value: Json) -> None:
    try:
        file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Invalid(f"--json-output {file}", error.strerror or str(error)) from error


def _show_rows(form: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    look = LOOK.get()
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([titles] * look.has_header + [*rows])
        click.echo(text.getvalue(), nl=False)
        return
    if sys.stdout.isatty():
        # rich takes longer to import than all the rest of a command: only people wait for it
        show: Callable[..., None] = importlib.import_module("botapi.ctl.terminal").show_table
        shown = titles if look.has_header else [""] * len(titles)
        show(shown, rows, is_wide=look.is_wide, is_paged=look.is_paged, color=look.color)
        return
    for row in rows:
        click.echo("\t".join(row))
