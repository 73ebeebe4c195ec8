"""What every client command starts from: the settings, a client, and a place for notes."""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from botapi import settings as knobs
from botapi.ctl import contexts, options, output
from botapi.ctl.errors import CtlError, Invalid, plain
from botapi.ctl.http import Client
from botapi.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a client command."""

    settings: Settings
    client: Client
    quiet: bool
    asked: Mapping[str, str | None] = field(default_factory=dict)
    """Options that stand for a setting, by its name; None is "not given"."""

    @property
    def form(self) -> str:
        """Format of the results."""
        return self.settings.format

    def note(self, text: str) -> None:
        """One line for a person on stderr; none with --quiet."""
        if not self.quiet:
            click.echo(plain(text), err=True)


def client_command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command its `Invocation` as first argument, and the common options.

    The command returns its exit code; None is success.
    Options after the command's name go before those in front of it.
    """

    @options.common_options
    @click.pass_context
    @functools.wraps(function)
    def command(context: click.Context, /, **given: Any) -> int | None:
        before = context.find_object(dict) or {}
        common = {name: given.pop(name) for name in options.NAMES}
        common = {name: before.get(name) if v is None else v for name, v in common.items()}
        try:
            return _call(function, common, given)
        except CtlError as error:
            error.debug = bool(common["debug"])
            error.as_json = _asked_for_json(common["format"])
            raise

    return command


def _call(
    function: Callable[..., int | None], common: dict[str, Any], given: dict[str, Any]
) -> int | None:
    to_stdout = common.get("json_output") == "-"
    asked = _asked_settings(common | ({"format": "json"} if to_stdout else {}))
    settings = _load(asked)
    output.LOOK.set(_look(common))
    with Client(settings) as client:
        return function(Invocation(settings, client, bool(common["quiet"]), asked), **given)


def _asked_settings(common: dict[str, Any]) -> dict[str, str | None]:
    asked = {name: common.get(name) for name in ("server", "context", "format")}
    if common.get("token_file"):
        asked["token"] = _read_token(common["token_file"])
    return asked


def _load(asked: Mapping[str, str | None]) -> Settings:
    """Settings with those of the options on top; Invalid when one is not accepted."""
    try:
        return knobs.load(os.environ, asked, contexts.saved(os.environ, asked))
    except SettingsError as error:
        raise Invalid(
            "settings", str(error), "config/README.md has the table of settings"
        ) from error


def _look(common: dict[str, Any]) -> output.Look:
    """How results are shown, from the common options."""
    file = common.get("json_output")
    cols = tuple(name.strip() for name in (common.get("cols") or "").split(","))
    return output.Look(
        cols=tuple(filter(None, cols)),
        has_header=not common.get("no_header"),
        is_wide=bool(common.get("wide")),
        is_paged=not common.get("no_pager"),
        color=common.get("color"),
        json_file=Path(file) if file and file != "-" else None,
    )


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Invalid("--token-file", f"{path}: {reason}") from error


def _asked_for_json(form: str | None) -> bool:
    return (form or os.environ.get(knobs.variable("format"))) in {"json", "jsonl"}
