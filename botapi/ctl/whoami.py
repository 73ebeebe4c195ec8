"""`skep whoami`: who the server thinks you are."""

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command


@click.command()
@client_command
def whoami(call: Invocation) -> None:
    """Print who you are, what was granted to you, and the scope of your API key."""
    found = call.client.get("whoami", "/whoami")
    output.show_item(call.form, "actor", found["actor"], found)
