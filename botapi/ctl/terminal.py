"""Tables for a terminal; imported only when there is one."""

import sys
from collections.abc import Sequence
from typing import TextIO

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    file: TextIO | None = None,
    *,
    is_wide: bool = False,
    is_paged: bool = False,
    color: bool | None = None,
) -> None:
    """Print a table; the first column is never shortened, the others to the width.

    rich takes the width away from columns that may wrap; their cells do not wrap all the same.
    With `is_wide` nothing is shortened. With `is_paged` a table that is longer than the screen
    goes through PAGER. `color` None is what terminal and NO_COLOR say.
    """
    table = Table(box=box.SIMPLE_HEAD, show_header=any(titles), pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=index == 0 or is_wide)
    for first, *others in rows:
        cells = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in others)
        table.add_row(Text(first), *cells)
    console = Console(
        file=file or sys.stdout,
        force_terminal=color,
        no_color=None if color is None else not color,
    )
    if is_wide:
        console.width = max(console.width, _width(titles, rows))
    if not is_paged or len(rows) < console.height:
        console.print(table, soft_wrap=is_wide)
        return
    with console.capture() as captured:
        console.print(table, soft_wrap=is_wide)
    click.echo_via_pager(captured.get())


def _width(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """What the widest row takes, with what stands between the columns."""
    widest = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return sum(widest) + 3 * len(widest)
