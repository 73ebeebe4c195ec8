"""The options by which tasks are chosen, for every verb that takes a filter."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from botapi.ctl.params import colon, moment

F = TypeVar("F", bound=Callable[..., object])
Filters = list[tuple[str, str]]

_OPTIONS = (
    click.option("-q", "q", metavar="FILTER", help="Filter, such as 'state:failure created:<1h'."),
    click.option(
        "-state",
        "--state",
        "states",
        multiple=True,
        help="A state's name, pending, running or final; repeat for or.",
    ),
    click.option("-tag", "--tag", "tags", type=colon, multiple=True, help="k:v; repeat for and."),
    click.option("-bot", "--bot", help="Only tasks of this bot."),
    click.option("-user", "--user", help="Only tasks of this user."),
    click.option(
        "-start",
        "--from",
        "since",
        type=moment,
        metavar="TIME",
        help="Made at or after: RFC 3339, -2h, today 9:30.",
    ),
    click.option("-end", "--to", "until", type=moment, metavar="TIME", help="Made before."),
)
_NAMES = {"q": "q", "bot": "bot", "user": "user", "since": "from", "until": "to"}


def task_filters(function: F) -> F:
    """Declare the options; the command gets them as keywords, for `as_query`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def as_query(
    states: tuple[str, ...] = (), tags: tuple[tuple[str, str], ...] = (), **given: Any
) -> Filters:
    """The parameters of `GET /tasks`."""
    found = [("state", state) for state in states]
    found += [("tag", f"{name}:{value}") for name, value in tags]
    return found + [(_NAMES[name], value) for name, value in given.items() if value]
