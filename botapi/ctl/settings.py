"""`skep settings show`: every setting and where it comes from; secrets stay hidden."""

import os

import click

from botapi import settings as knobs
from botapi.ctl import contexts, output
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import plain
from botapi.ctl.output import Listing, key


@click.group()
def settings() -> None:
    """Show the settings and their origin."""


@settings.command()
@click.option("--origin", is_flag=True, help="Add where each value comes from.")
@client_command
def show(call: Invocation, origin: bool) -> None:  # noqa: FBT001 - an option
    """Print every setting; variables that mean nothing are named on stderr."""
    sources = knobs.origins(os.environ, call.asked, contexts.saved(os.environ, call.asked))
    rows = [
        {"variable": knobs.variable(name), "value": value}
        | ({"origin": sources[name]} if origin else {})
        for name, value in knobs.shown(call.settings).items()
    ]
    columns = (key("variable"), key("value"), key("origin"))
    listing = Listing("setting", columns if origin else columns[:2])
    output.show_list(call.form, listing, rows, {"items": rows})
    for name in knobs.unknown(os.environ):
        click.echo(f"warning: {plain(name)} is no setting", err=True)
