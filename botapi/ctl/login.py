"""`skep login|logout|context`: several servers by name, each with its API key."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import click

from botapi.ctl import contexts, output
from botapi.ctl.asking import is_terminal
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.completion import context_names
from botapi.ctl.contexts import Contexts
from botapi.ctl.errors import Invalid, NotFound
from botapi.ctl.http import Client
from botapi.ctl.output import Listing, key

MAX_KEY = 4096

LISTED = Listing(
    "context", (key("name"), key("current"), key("server"), key("key"), key("user"), key("format"))
)

_some = click.argument("name", required=False, shell_complete=context_names)
_one = click.argument("name", shell_complete=context_names)


@click.command()
@click.option("--name", default="", help="Name of the context; the host of the server when empty.")
@client_command
def login(call: Invocation, name: str) -> None:
    """Keep --server and an API key by a name, and use them from now on.

    The key comes from --token-file, SKEP_TOKEN, or stdin; on a terminal it is asked for, unseen.
    It is tried first, and nothing is kept of one that the server does not take.
    """
    server = call.settings.server
    name = _checked(name or _host(server))
    found = contexts.read()
    token = _given_key(call) or _asked_key(server)
    with Client(replace(call.settings, token=token)) as client:
        actor = client.get("login", "/whoami")["actor"]
    if server.startswith("http://") and urlsplit(server).hostname not in {"127.0.0.1", "localhost"}:
        call.note("warning: http: others on the network can read the key; use https")
    contexts.write_key(name, token)
    chosen = call.settings
    of_it = {"server": server, "ca_bundle": str(chosen.ca_bundle or ""), "user": chosen.user}
    contexts.write(found.with_one(name, of_it))
    call.note(f"context {name}: {actor} at {server}")


def _given_key(call: Invocation) -> str:
    """From option or environment: a key that is kept already is not asked for by logging in."""
    given, context = call.settings.token, call.settings.context
    return "" if context and given == contexts.key(context) else given


def _asked_key(server: str) -> str:
    if is_terminal():
        text: str = click.prompt(f"API key of {server}", hide_input=True, err=True)
    else:
        text = sys.stdin.read(MAX_KEY + 1)
    text = text.strip()
    if not text or len(text) > MAX_KEY or not text.isprintable():
        raise Invalid("login", "no API key was given", "skep apikey new makes one on the server")
    return text


def _host(server: str) -> str:
    parts = urlsplit(server)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", parts.hostname or "").lstrip("._-")
    return f"{host}-{parts.port}" if parts.port else host


def _checked(name: str) -> str:
    if not contexts.NAME.fullmatch(name):
        raise Invalid("--name", f"{name!r} is no name", "letters, digits, . _ - and at most 63")
    return name


@click.command()
@_some
@client_command
def logout(call: Invocation, name: str | None) -> None:
    """Forget the API key of NAME, or of the context in use; its server stays known.

    The key itself goes on to work: `skep apikey revoke` ends it.
    """
    chosen = name or call.settings.context
    if not chosen:
        raise NotFound("logout", "no context is in use", "skep context list shows what there is")
    contexts.read().of(chosen)
    had = contexts.remove_key(chosen)
    call.note(f"context {chosen}: " + ("the key is forgotten" if had else "there was no key"))


@click.group()
def context() -> None:
    """List the servers that `skep login` keeps, and choose one."""


@context.command("list")
@client_command
def list_(call: Invocation) -> None:
    """List all contexts; never a key."""
    found = contexts.read()
    rows = [_row(found, name) for name in sorted(found.named)]
    output.show_list(call.form, LISTED, rows, {"items": rows})


@context.command()
@_some
@client_command
def show(call: Invocation, name: str | None) -> None:
    """Show NAME, or the context in use; `skep settings show --origin` tells what it sets."""
    chosen = name or call.settings.context
    if not chosen:
        raise NotFound("context", "none is in use", "skep context list shows what there is")
    row = _row(contexts.read(), chosen)
    output.show_item(call.form, "context", chosen, row)


@context.command()
@_one
@client_command
def use(call: Invocation, name: str) -> None:
    """Use NAME from now on where neither --context nor SKEP_CONTEXT says otherwise."""
    found = contexts.read()
    server = found.of(name)["server"]
    contexts.write(replace(found, current=name))
    call.note(f"context {name}: {server}")


@context.command("rm")
@_one
@client_command
def remove(call: Invocation, name: str) -> None:
    """Forget NAME and its API key."""
    left = contexts.read().without(name)
    contexts.remove_key(name)
    contexts.write(left)
    call.note(f"context {name} is forgotten")


def _row(found: Contexts, name: str) -> Mapping[str, object]:
    return {
        "name": name,
        "current": name == found.current,
        "key": contexts.key_file(name).exists(),
        **found.of(name),
    }
