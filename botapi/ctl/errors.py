"""What can go wrong for a client command: one line, a hint, and an exit code.

The kinds are what a person or a script acts on, not what HTTP calls them.
"""

import json
import traceback
from collections.abc import Mapping
from typing import IO, Any

import click

from botapi.ctl.exits import Exit


def plain(text: str) -> str:
    """Text from elsewhere on one line, control characters written out: safe on a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class CtlError(click.ClickException):
    """`error: what: why`, then the hint.

    `problem` is the server's problem object, `request_id` names the refused request.
    """

    exit_code = Exit.SERVER
    default_hint = ""

    def __init__(
        self,
        what: str,
        why: str,
        hint: str = "",
        problem: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{plain(what)}: {plain(why)}")
        self.hint = hint or self.default_hint
        self.problem = problem
        self.request_id = request_id
        self.debug = False
        self.as_json = False

    def as_problem(self) -> dict[str, Any]:
        """The problem object: the server's own, or one of the same shape."""
        made = {"type": "about:blank", "title": type(self).__name__, "detail": self.message}
        return dict(self.problem) if self.problem else made | {"code": Exit(self.exit_code).name}

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on stderr, as text or as a problem object."""
        if self.as_json:
            click.echo(json.dumps(self.as_problem()), file=file, err=True)
            return
        click.echo(f"error: {self.message}", file=file, err=True)
        if self.hint:
            click.echo(f"hint: {self.hint}", file=file, err=True)
        if self.debug:
            self._show_trace(file)

    def _show_trace(self, file: IO[Any] | None) -> None:
        click.echo(f"request id: {plain(self.request_id) or 'none'}", file=file, err=True)
        click.echo("".join(traceback.format_exception(self)), file=file, err=True, nl=False)


class Invalid(CtlError):
    """What was asked is not acceptable; asking again the same way will not help."""

    exit_code = Exit.USAGE
    default_hint = "skep COMMAND --help lists what is accepted"


class Unreachable(CtlError):
    """No answer after retries; whether the server acted is not known."""

    exit_code = Exit.SERVER
    default_hint = "is it running? the address comes from --server or SKEP_SERVER"


class ServerFault(CtlError):
    """The server answered and could not do it, or it is no Skep server."""

    exit_code = Exit.SERVER
    default_hint = "the server's log has the request id that --debug prints"


class Denied(CtlError):
    """Not authenticated, or not allowed."""

    exit_code = Exit.DENIED
    default_hint = (
        "give an API key with --token-file or SKEP_TOKEN_FILE; skep whoami tells who you are"
    )


class NotFound(CtlError):
    """The named thing does not exist."""

    exit_code = Exit.NOT_FOUND
    default_hint = "skep tasks, bots, config history, archive list and keys list show what exists"


class Conflict(CtlError):
    """Somebody else was faster, or a precondition does not hold."""

    exit_code = Exit.CONFLICT
    default_hint = "look at its present state, then decide again"


class Failed(CtlError):
    """It was done, and some of those that it was done to failed."""

    exit_code = Exit.FAILED
    default_hint = "the results name them and say why"


class NoCapacity(CtlError):
    """No bot that is known could do it; nothing was queued."""

    exit_code = Exit.INFRASTRUCTURE
    default_hint = "skep bots lists what there is; --wait-for-capacity submits it all the same"


class TimedOut(CtlError):
    """The wait is over; the work goes on."""

    exit_code = Exit.TIMED_OUT
