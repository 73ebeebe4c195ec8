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
    """Print a table; the first column is never shortened, the others to the width.

    rich takes the width away from columns that may wrap; their cells do not wrap all the same.
    """
    table = Table(box=box.SIMPLE_HEAD, show_header=any(titles), pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=index == 0)
    for first, *others in rows:
        cells = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in others)
        table.add_row(Text(first), *cells)
    Console(file=file or sys.stdout).print(table)
