"""Options that every client command has, before or after the command's name."""

from collections.abc import Callable
from typing import TypeVar

import click

from botapi.settings import FORMATS

F = TypeVar("F", bound=Callable[..., object])

NAMES = (
    "server",
    "context",
    "token_file",
    "format",
    "json_output",
    "cols",
    "no_header",
    "wide",
    "no_pager",
    "color",
    "debug",
    "quiet",
)

CHECK_FOLDER = "botapi.ctl.check_folder"
"""Where click's shared `meta` has the function that checks a folder of files without a server."""

_OPTIONS = (
    click.option("-server", "--server", "server", metavar="URL", help="Server to talk to."),
    click.option("--context", "context", metavar="NAME", help="Context of that server and key."),
    click.option("--token-file", "token_file", metavar="FILE", help="File that holds the API key."),
    click.option(
        "-o", "--format", "format", type=click.Choice(FORMATS), help="Form of the results."
    ),
    click.option(
        "-json-output",
        "--json-output",
        "json_output",
        metavar="FILE",
        help="Write the results as JSON to a file; - is stdout.",
    ),
    click.option("--cols", metavar="A,B", help="Columns of a table; a.b is a key within a key."),
    click.option("--no-header", is_flag=True, default=None, help="No titles above a table."),
    click.option("--wide", is_flag=True, default=None, help="Shorten no column."),
    click.option("--no-pager", is_flag=True, default=None, help="Long tables all at once."),
    click.option(
        "--color/--no-color", "color", default=None, help="Colour, whatever the terminal is."
    ),
    click.option(
        "--debug", "debug", is_flag=True, default=None, help="Add request id and trace to errors."
    ),
    click.option(
        "--quiet", "quiet", is_flag=True, default=None, help="No notes and no progress on stderr."
    ),
)


def common_options(function: F) -> F:
    """Declare the options of `NAMES`; None means not given here."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
