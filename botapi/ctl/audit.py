"""`skep audit`: what people changed, newest first."""

import click

from botapi.ctl.command import Invocation, client_command
from botapi.ctl.output import Listing, key
from botapi.ctl.paging import show_pages

AUDIT = Listing("audit", (key("at"), key("actor"), key("verb"), key("target"), key("reason")))


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@client_command
def audit(call: Invocation, limit: int) -> int:
    """List what people changed, newest first."""
    return show_pages(call, AUDIT, "/audit", [], limit)
