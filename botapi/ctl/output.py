"""Results on stdout: a table for people, tabs for pipes, JSON as the API gave it, or ids.

Nothing else is ever written to stdout; notes and errors go to stderr.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from botapi.ctl.errors import plain

Json = Mapping[str, Any]


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


def key(title: str, name: str = "") -> Column:
    """A column that shows one key of the item."""
    return Column(title, lambda item: item.get(name or title))


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
    if form == "json":
        write_json(whole)
    elif form == "jsonl":
        for item in items:
            write_record(listing.kind, item)
        write_record("summary", {"count": len(items)})
    elif form == "id":
        for item in items:
            click.echo(listing.identifier(item))
    else:
        rows = [[as_cell(column.cell(item)) for column in listing.columns] for item in items]
        _show_table([column.title for column in listing.columns], rows)


def show_item(form: str, kind: str, identifier: str, item: Json) -> None:
    """Print one thing; the table has a row for each key."""
    if form == "json":
        write_json(item)
    elif form == "jsonl":
        write_record(kind, item)
        write_record("summary", {"count": 1})
    elif form == "id":
        click.echo(as_cell(identifier))
    else:
        show_pairs({name: as_cell(value) for name, value in item.items()})


def show_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and values, a row for each."""
    _show_table(["", ""], [[name, value] for name, value in pairs.items()])


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


def _show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        # rich takes longer to import than all the rest of a command: only people wait for it
        show: Callable[..., None] = importlib.import_module("botapi.ctl.terminal").show_table
        show(titles, rows)
        return
    for row in rows:
        click.echo("\t".join(row))
