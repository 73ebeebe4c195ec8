"""Servers that a person knows by name: `config.toml`, and their API keys in files of their own.

A context is one server with its key, certificates and format. It stands below options and
environment (product 4.6), and it is used whole or not at all: whoever names another server
gets nothing of it, so no key reaches a server that it is not for.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from botapi import settings as knobs
from botapi.ctl.errors import Invalid, NotFound

FIELDS = ("server", "ca_bundle", "format", "user")
"""Settings that a context may have beside its key."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_NO_FILE = (FileNotFoundError, NotADirectoryError, PermissionError)

Environ = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts: settings by name, and which one is used when none is asked for."""

    named: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    current: str = ""

    def of(self, name: str) -> Mapping[str, str]:
        """The settings of one. Raises NotFound."""
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none"
            raise NotFound(f"context {name}", "there is no such context", f"there are: {known}")
        return self.named[name]

    def with_one(self, name: str, settings: Mapping[str, str]) -> Self:
        """One more, or another of that name; it becomes the current one."""
        kept = {one: settings[one] for one in FIELDS if settings.get(one)}
        return replace(self, named={**self.named, name: kept}, current=name)

    def without(self, name: str) -> Self:
        """One less. Raises NotFound."""
        self.of(name)
        named = {known: one for known, one in self.named.items() if known != name}
        return replace(self, named=named, current="" if self.current == name else self.current)


def config_file(environ: Environ = os.environ) -> Path:
    """Where the contexts are."""
    return _folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def key_file(name: str, environ: Environ = os.environ) -> Path:
    """Where the API key of a context is: a file that only its owner reads."""
    return _folder(environ, "XDG_STATE_HOME", ".local/state") / "keys" / name


def _folder(environ: Environ, variable: str, default: str) -> Path:
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or os.devnull)
    return Path(environ.get(variable) or home / default) / "skep"


def saved(environ: Environ, asked: Mapping[str, str | None]) -> dict[str, str]:
    """What the context adds to options and environment; empty where another server is named.

    Raises Invalid for a file that cannot be read, NotFound for a context that is not there.
    """
    wanted = knobs.load(environ, asked)
    found = read(environ)
    name = wanted.context or found.current
    if not name:
        return {}
    context = found.of(name)
    origin = knobs.origins(environ, asked)["server"]
    if origin != "default" and wanted.server != context.get("server"):
        if asked.get("context") and asked.get("server"):
            raise Invalid(
                "--server", f"context {name} is {context.get('server')}: give one of both"
            )
        return {}
    token = key(name, environ)
    return {**context, "context": name} | ({"token": token} if token else {})


def read(environ: Environ = os.environ) -> Contexts:
    """All contexts; none when there is no file, or no home that may be read. Raises Invalid."""
    file = config_file(environ)
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except _NO_FILE:
        return Contexts()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Invalid(str(file), reason, "mend it, or remove it and `skep login` again") from error
    return _meaning(file, found)


def _meaning(file: Path, found: dict[str, Any]) -> Contexts:
    tables, current = found.get("contexts", {}), found.get("current", "")
    hint = 'it is made of current = "NAME" and [contexts.NAME] with ' + ", ".join(FIELDS)
    if not isinstance(tables, dict) or not isinstance(current, str):
        raise Invalid(str(file), "contexts is no table, or current no text", hint)
    for name, one in tables.items():
        is_known = isinstance(one, dict) and set(one) <= set(FIELDS)
        if not NAME.fullmatch(name) or not is_known or not _are_texts(one):
            raise Invalid(str(file), f"contexts.{name} is not understood", hint)
        if not one.get("server"):
            raise Invalid(str(file), f"contexts.{name} has no server", hint)
    return Contexts(tables, current)


def _are_texts(table: Mapping[str, object]) -> bool:
    return all(isinstance(value, str) for value in table.values())


def write(contexts: Contexts, environ: Environ = os.environ) -> None:
    """Replace the file. Raises Invalid."""
    lines = [f"current = {json.dumps(contexts.current)}"]
    for name, one in sorted(contexts.named.items()):
        lines += ["", f'[contexts."{name}"]', *(f"{k} = {json.dumps(v)}" for k, v in one.items())]
    _write(config_file(environ), "\n".join(lines) + "\n", 0o644)


def key(name: str, environ: Environ = os.environ) -> str:
    """The API key of a context, empty for none. Raises Invalid."""
    try:
        return key_file(name, environ).read_text(encoding="utf-8").strip()
    except _NO_FILE:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Invalid(str(key_file(name, environ)), reason) from error


def write_key(name: str, token: str, environ: Environ = os.environ) -> None:
    """Keep the API key of a context. Raises Invalid."""
    _write(key_file(name, environ), token + "\n", 0o600)


def remove_key(name: str, environ: Environ = os.environ) -> bool:
    """Forget it; was there one?"""
    try:
        key_file(name, environ).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Invalid(str(key_file(name, environ)), str(error.strerror)) from error
    return True


def _write(file: Path, text: str, mode: int) -> None:
    """The whole file at once, never readable by more people than it shall be."""
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        part.replace(file)
    except OSError as error:
        raise Invalid(str(file), str(error.strerror)) from error
