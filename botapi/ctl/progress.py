"""A bar on stderr for work that takes a while, where somebody watches."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botapi.ctl.command import Invocation

Advance = Callable[[int], None]


def is_watched(call: Invocation) -> bool:
    """Is stderr a terminal that can draw, and did nobody ask for silence?"""
    is_dumb = bool(os.environ.get("CI")) or os.environ.get("TERM") == "dumb"
    return not call.quiet and not is_dumb and sys.stderr.isatty()


@contextmanager
def bar(call: Invocation, title: str, total: int) -> Iterator[Advance]:
    """A function that says how much is done; without a watcher it does nothing."""
    if not is_watched(call):
        yield lambda _done: None
        return
    rich: Any = importlib.import_module("rich.progress")
    console: Any = importlib.import_module("rich.console").Console(stderr=True)
    with rich.Progress(console=console, transient=True) as shown:
        row = shown.add_task(title, total=total)
        yield lambda done: shown.update(row, completed=done)
