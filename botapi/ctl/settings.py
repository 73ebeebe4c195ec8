"""`skep settings show`: every setting and where it comes from; secrets stay hidden."""

import os
from typing import Any

import click

from botapi import settings as knobs
from botapi.ctl import contexts, output
from botapi.ctl.command import load_settings
from botapi.ctl.errors import plain
from botapi.ctl.options import NAMES, common_options
from botapi.ctl.output import Listing, key


@click.group()
def settings() -> None:
    """Show the settings and their origin."""


@settings.command()
@click.option("--origin", is_flag=True, help="Add where each value comes from.")
@common_options
@click.pass_context
def show(context: click.Context, /, origin: bool, **given: Any) -> None:  # noqa: FBT001 - an option
    """Print every setting; variables that mean nothing are named on stderr."""
    before = context.find_object(dict) or {}
    common = {name: before.get(name) if given[name] is None else given[name] for name in NAMES}
    loaded = load_settings(common)
    asked = {name: common[name] for name in ("server", "context", "format")}
    sources = knobs.origins(os.environ, asked, contexts.saved(os.environ, asked))
    if common["token_file"]:
        sources["token"] = "--token-file"  # noqa: S105 - no secret
    rows = [
        {"variable": knobs.variable(name), "value": value}
        | ({"origin": sources[name]} if origin else {})
        for name, value in knobs.shown(loaded).items()
    ]
    columns = (key("variable"), key("value"), key("origin"))
    listing = Listing("setting", columns if origin else columns[:2])
    output.show_list(loaded.format, listing, rows, {"items": rows})
    for name in knobs.unknown(os.environ):
        click.echo(f"warning: {plain(name)} is no setting", err=True)
