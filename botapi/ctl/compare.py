"""In what two things of the API differ, key by key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation
from botapi.ctl.output import Column, Json, Listing, key

wants_all = click.option("--all", "everything", is_flag=True, help="Also what is equal.")


def show_differences(
    call: Invocation, names: tuple[str, str], pair: Sequence[Json], *, everything: bool
) -> None:
    """A row for each key that differs, with a key within a key as `a.b`; both values."""
    rows = list(differences(*pair, everything=everything))
    columns = (key("key"), Column(names[0], _first), Column(names[1], _second))
    output.show_list(call.form, Listing("difference", columns), rows, {"items": rows})
    if not rows:
        call.note(f"{names[0]} and {names[1]} are equal")


def differences(first: Json, second: Json, *, everything: bool = False) -> Iterator[dict[str, Any]]:
    """`{"key", "first", "second"}` for each key whose values differ, or for each key."""
    left, right = dict(_flat(first)), dict(_flat(second))
    for name in dict.fromkeys((*left, *right)):
        if everything or left.get(name) != right.get(name):
            yield {"key": name, "first": left.get(name), "second": right.get(name)}


def _flat(item: Json, above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in item.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _first(row: Json) -> object:
    return row["first"]


def _second(row: Json) -> object:
    return row["second"]
