"""Asking before something is lost: what will be touched is said first, then the question."""

import sys

import click

from botapi.ctl.command import Invocation
from botapi.ctl.errors import Invalid


def is_terminal() -> bool:
    """Is there somebody to be asked?"""
    return sys.stdin.isatty()


def confirm(call: Invocation, touches: str, question: str, *, yes: bool) -> None:
    """Say what will be touched and ask; Invalid when the answer is no, or nobody is there."""
    call.note(touches)
    if yes:
        return
    if not is_terminal():
        raise Invalid("--yes", "nobody is there to be asked", "give --yes to go on")
    if not click.confirm(question, err=True):
        raise Invalid(question.rstrip("?"), "answered no; nothing was done")
