"""How values on the command line are read: durations, `k=v` and `k:v`.

Each is a function that click takes as a type; BadParameter is its one error.
"""

from collections.abc import Callable

import click

from botapi.settings import duration_s


def duration(text: str) -> float:
    """Seconds in `90`, `90s`, `1.5s` or `2h30m`."""
    try:
        return duration_s(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def whole_duration(text: str) -> int:
    """As `duration`, in whole seconds: what a task's limits are made of."""
    seconds = duration(text)
    if seconds != int(seconds):
        raise click.BadParameter(f"{text!r} is not a whole number of seconds")
    return int(seconds)


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    """A reader of two texts around a separator; the first may not be empty."""

    def read(text: str) -> tuple[str, str]:
        first, found, second = text.partition(separator)
        if not first or not found:
            raise click.BadParameter(f"{text!r} has not the form k{separator}v")
        return first, second

    read.__name__ = f"k{separator}v"  # what --help shows
    return read


equals = pair("=")
colon = pair(":")
