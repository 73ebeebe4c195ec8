"""`skep version`: of this command, and of the server when it answers."""

import platform
import sys
import sysconfig

import click

import botapi
from botapi.ctl import output
from botapi.ctl.command import Invocation, client_command


@click.command()
@client_command
def version(call: Invocation) -> None:
    """Print the version of skep, Python and the platform."""
    found = {
        "version": botapi.__version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": sysconfig.get_platform(),
        "server": call.settings.server,
    }
    output.show_item(call.form, "version", botapi.__version__, found)
