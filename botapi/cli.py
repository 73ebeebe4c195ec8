"""The `skep` command: a table of names; a command's module is imported when it is called.

So `skep run` starts without the web server, and `skep serve` without the HTTP client.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

import botapi
from botapi.ctl.options import CHECK_FOLDER, common_options

INTERRUPTED = 130


class Target(NamedTuple):
    """Where a command lives, and its line in the list of commands."""

    place: str
    help: str


COMMANDS = {
    "init": Target(
        "botapi.first_start:init", "Make a data folder, a first bots.cfg and an API key."
    ),
    "serve": Target("botapi.serve:serve", "Run the server."),
    "backup": Target("botapi.backup:backup", "Save everything while the server goes on."),
    "restore": Target("botapi.backup:restore", "Make a data folder out of a backup."),
    "store": Target("botapi.move:store", "Copy a database to another engine, or check one."),
    "settings": Target("botapi.ctl.settings:settings", "Show the settings and their origin."),
    "run": Target("botapi.ctl.run:run", "Submit a task."),
    "trigger": Target("botapi.ctl.run:run", "The original's name of run."),
    "spawn": Target("botapi.ctl.spawn:spawn", "Submit many tasks from a file."),
    "collect": Target("botapi.ctl.collect:collect", "Wait for tasks and print their results."),
    "tasks": Target("botapi.ctl.tasks:tasks", "List tasks, newest first."),
    "task": Target("botapi.ctl.tasks:task", "Show, follow, cancel or retry one task."),
    "cancel": Target("botapi.ctl.tasks:cancel", "Cancel tasks."),
    "cancel-tasks": Target("botapi.ctl.tasks:cancel_tasks", "Cancel what a filter finds."),
    "reproduce": Target("botapi.ctl.reproduce:reproduce", "Run a task's command on this machine."),
    "bots": Target("botapi.ctl.bots:bots", "List or count bots."),
    "bot": Target("botapi.ctl.bot:bot", "Show bots, keep them from work, have them start over."),
    "terminate": Target("botapi.ctl.bots:terminate", "Ask a bot to exit."),
    "delete-bots": Target("botapi.ctl.bots:delete_bots", "Forget bots that are gone."),
    "bootstrap": Target("botapi.ctl.bootstrap:bootstrap", "Make the line that installs a bot."),
    "config": Target("botapi.ctl.config:config", "Check, apply and roll back the configuration."),
    "cas": Target("botapi.ctl.blobs:cas", "Keep files and folders by their digest."),
    "archive": Target("botapi.ctl.archive:archive", "Keep bot archives, and roll them out."),
    "release": Target("botapi.cfg.release_tool:release", "Sign bot archives; asks no server."),
    "keys": Target("botapi.ctl.keys:keys", "List, rotate and revoke the keys that sign."),
    "secret": Target("botapi.ctl.secret:secret", "Keep the secrets that tasks may name."),
    "audit": Target("botapi.ctl.audit:audit", "List what people changed."),
    "user": Target("botapi.ctl.people:user", "Add people, grant them roles, disable them."),
    "apikey": Target("botapi.ctl.people:apikey", "Make, list and revoke API keys."),
    "login": Target("botapi.ctl.login:login", "Keep a server and your API key by a name."),
    "logout": Target("botapi.ctl.login:logout", "Forget the API key of a server."),
    "context": Target("botapi.ctl.login:context", "List the servers you know, and choose one."),
    "whoami": Target("botapi.ctl.whoami:whoami", "Say who the server thinks you are."),
    "completion": Target("botapi.ctl.completion:completion", "Print a shell's completion script."),
    "version": Target("botapi.ctl.version:version", "Print the version of skep and Python."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = COMMANDS[cmd_name].place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name].place} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands from the table alone, so that --help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:  # noqa: ANN401 - click's signature
        """As click's, except that a command's result is its exit code, and 130 for Ctrl-C."""
        call = super().main
        if not standalone_mode:
            return call(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = call(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except click.Abort:
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except BrokenPipeError:
            _leave_silently()
        sys.exit(code)


def _leave_silently() -> NoReturn:
    """The reader of our output is gone; nothing that is still buffered may raise again."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    sys.exit(1)


def _check_folder(folder: Path) -> dict[str, Any]:
    """The one thing of the server's that a client command does by itself."""
    check: Callable[[Path], dict[str, Any]] = importlib.import_module("botapi.cfg.folder").check
    return check(folder)


def _show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001
    if not asked:
        return
    sysconfig = importlib.import_module("sysconfig")
    python = ".".join(str(part) for part in sys.version_info[:3])
    click.echo(f"skep {botapi.__version__} (python {python}, {sysconfig.get_platform()})")
    context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@common_options
@click.pass_context
def main(context: click.Context, /, **given: object) -> None:
    """A self-hosted control plane for a swarm of bots."""
    context.obj = given
    context.meta[CHECK_FOLDER] = _check_folder


if __name__ == "__main__":
    main()
