"""Tables for a terminal; imported only when there is one."""

import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None
) -> None:
    """Print a table; the first column is never shortened, the others to the width."""
    table = Table(box=box.SIMPLE_HEAD, show_header=any(titles), pad_edge=False)
    for index, title in enumerate(titles):
        if index:
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        else:
            table.add_column(title, no_wrap=True, overflow="fold", min_width=_widest(rows))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=file or sys.stdout).print(table)


def _widest(rows: Sequence[Sequence[str]]) -> int | None:
    return max((len(row[0]) for row in rows), default=None)
