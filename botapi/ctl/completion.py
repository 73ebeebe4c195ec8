"""`skep completion`: the script that completes verbs, options, bot ids and dimension keys.

What the server knows is asked for within `LIMIT_S` and kept for `KEEP_S` in the user's cache
folder; a server that does not answer only means that nothing is offered.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from botapi import settings as knobs
from botapi.ctl import contexts
from botapi.ctl.errors import CtlError, Invalid
from botapi.ctl.http import Client
from botapi.settings import Settings, SettingsError

Json = dict[str, Any]

LIMIT_S = 2.0
KEEP_S = 60.0
MAX_BOTS = 1000
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_SKEP_COMPLETE"
PROGRAM = "skep"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \\b
    bash: eval "$(skep completion bash)" in ~/.bashrc
    zsh:  eval "$(skep completion zsh)" in ~/.zshrc
    fish: skep completion fish > ~/.config/fish/completions/skep.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise Invalid(shell, "no such shell", f"there are: {', '.join(SHELLS)}")
    script = found(context.find_root().command, {}, PROGRAM, VARIABLE)
    click.echo(f"# {PROGRAM} completion for {shell}")
    click.echo(script.source_template % script.source_vars())


def bot_ids(
    context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    """Ids of bots that begin so."""
    return _items(known(context)["bot_ids"], start)


def dimension_keys(
    context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    """`key=` of every dimension key that begins so."""
    return _items([f"{key}=" for key in known(context)["dimension_keys"]], start)


def context_names(
    _context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    """Names of contexts that begin so."""
    with contextlib.suppress(CtlError):
        return _items(sorted(contexts.read().named), start)
    return []


def _items(texts: list[str], start: str) -> list[CompletionItem]:
    return [CompletionItem(text) for text in texts if text.startswith(start)]


def known(context: click.Context, read: Callable[[Settings], Json] | None = None) -> Json:
    """What the server knows, from the cache when that is young; empty lists on any trouble."""
    nothing: Json = {"bot_ids": [], "dimension_keys": []}
    root = context.find_root().params
    given = {"server": root.get("server"), "context": root.get("context")}
    try:
        saved = contexts.saved(os.environ, given)
        settings = knobs.load(os.environ, given | {"timeout_s": f"{LIMIT_S}"}, saved)
    except (SettingsError, CtlError):
        return nothing
    file = _cache_file(settings)
    with contextlib.suppress(OSError, ValueError):
        age_s = time.time() - file.stat().st_mtime  # noqa: TID251 - of a file, in a client
        if 0 <= age_s < KEEP_S:
            found: Json = json.loads(file.read_text(encoding="utf-8"))
            return found
    try:
        found = (read or ask)(settings)
    except CtlError:
        return nothing
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    return found


def ask(settings: Settings) -> Json:
    """Ids and dimension keys of the first bots, in one call without a repeat."""
    with Client(settings, retries=0) as client:
        bots = client.get("bots", "/bots", [("limit", MAX_BOTS)])["items"]
    keys = {key for bot in bots for key in bot["dimensions"]}
    return {"bot_ids": [bot["bot_id"] for bot in bots], "dimension_keys": sorted(keys)}


def _cache_file(settings: Settings) -> Path:
    """One for each server and key."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(f"{settings.server}\n{settings.token}".encode()).hexdigest()[:32]
    return root / "skep" / f"completion-{name}.json"
