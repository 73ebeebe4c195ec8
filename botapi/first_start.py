"""`skep init`, and what `skep serve` makes when it is missing: folders, keys, first documents."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from botapi import app as composition
from botapi import engines, settings
from botapi.auth.access import KIND as API_KEYS
from botapi.auth.access import new_api_key
from botapi.cfg import first_bots_cfg
from botapi.cfg.bundle import Source
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.domain.permissions import Role
from botapi.secrets.by_name import SecretError, resolved
from botapi.secrets.key_file import KeyFileError, make_key_file
from botapi.secrets.vault import NAMED
from botapi.settings import Settings, SettingsError
from botapi.store import codec
from botapi.store.protocol import Store, StoreError, UnfitAddress
from botapi.store.walk import END
from botapi.transactions.create_api_key import create_api_key
from botapi.transactions.push_config import push_config

USAGE = 2
FAILED = 3

log = logging.getLogger(__name__)


def folder_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where everything is."""
    for name, text in (
        ("--data-dir", "database, output, keys (SKEP_DATA_DIR)"),
        ("--config-dir", "the folder of bots.cfg and scripts/ (SKEP_CONFIG_DIR)"),
    ):
        command = click.option(name, metavar="DIR", help=text)(command)
    return command


def load_settings(options: dict[str, Any]) -> Settings:
    """Settings from options and environment; a bad one ends the command with one line."""
    given = {name: str(value) for name, value in options.items() if value not in {None, False}}
    folder = (
        given.get("data_dir") or os.environ.get("SKEP_DATA_DIR") or settings.Settings().data_dir
    )
    try:
        return settings.load(resolved(os.environ, Path(folder)), given)
    except SettingsError as error:
        fail(str(error), USAGE)
    except SecretError as error:
        fail(str(error), FAILED)


def fail(text: str, code: int) -> NoReturn:
    """End the command with one line."""
    click.echo(f"error: {text}", err=True)
    sys.exit(code)


@click.command()
@folder_options
@click.option("--new-admin-key", is_flag=True, help="make another API key, if the first is lost")
def init(*, new_admin_key: bool, **options: str | None) -> None:
    """Make a data folder with a first bots.cfg and an admin API key, shown once.

    With a SKEP_STORE that servers share: once, from anywhere, before the first of them.
    """
    chosen = load_settings(dict(options))
    key = prepare(chosen, is_init=True, new_admin_key=new_admin_key)
    click.echo(f"data folder: {chosen.data_dir.resolve()}")
    if chosen.is_shared:
        click.echo("configuration: in the store; skep config show --file bots.cfg prints it")
    else:
        click.echo(f"bots.cfg: {(chosen.config_dir / 'bots.cfg').resolve()}")
    show_key(key)


def show_key(key: str) -> None:
    """Print a new key, this once; or that there is one."""
    if key:
        click.echo(f"admin API key: {key}")
        click.echo("It is shown this once. Keep it: export SKEP_TOKEN=<the key>", err=True)
    else:
        click.echo("there is an API key already; --new-admin-key makes another", err=True)


def prepare(chosen: Settings, *, is_init: bool = False, new_admin_key: bool = False) -> str:
    """Make what is missing; the clear text of a new admin key, or empty.

    A store that servers share is prepared by `skep init` alone: each of them would make a
    key file of its own, and show the API key to a log that others read.
    """
    clock, rng = SystemClock(), SystemRng()
    is_first = is_init or not chosen.is_shared
    try:
        chosen.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen.is_shared:
            _first_files(chosen)
        problem = engines.damage_at_start(chosen, clock)
        if problem:
            fail(problem, FAILED)
        store = engines.open_store(chosen, Threads(), clock, rng)
    except OSError as error:
        fail(f"{error.filename or chosen.data_dir}: {error.strerror}", FAILED)
    except StoreError as error:
        fail(str(error), USAGE if isinstance(error, UnfitAddress) else FAILED)
    try:
        if is_first:
            _key_file(composition.open_vault(chosen, rng).path, store, rng)
        problem = "" if is_init else composition.other_blobs(chosen, store, clock, rng)
        if problem:
            fail(problem, FAILED)
        return _first_documents(chosen, store, is_first=is_first, new_admin_key=new_admin_key)
    except (StoreError, KeyFileError) as error:
        fail(str(error), FAILED)
    finally:
        store.close()


def _key_file(path: Path, store: Store, rng: SystemRng) -> None:
    """Make the first key file of the secrets; never one beside secrets that it cannot open."""
    if not path.exists() and store.scan_keys(NAMED, "", END, limit=1):
        fail(
            f"{path}: there is no key file, and the database holds secrets that one seals: "
            "set SKEP_SECRETS_KEYS right, or bring the file back from its backup",
            FAILED,
        )
    make_key_file(path, rng)


def _first_documents(chosen: Settings, store: Store, *, is_first: bool, new_admin_key: bool) -> str:
    """Write what every store begins with; the clear text of a new admin key, or empty."""
    now_ms = SystemClock().now_ms()
    has_key = bool(store.scan_keys(API_KEYS, "", END, limit=1))
    if not is_first:
        if not has_key:
            log.warning("there is no API key yet: skep init with this SKEP_STORE makes one")
        return ""
    if chosen.is_shared:
        _first_config(store, now_ms)
    return "" if has_key and not new_admin_key else _admin_key(store, now_ms, SystemRng())


def _first_files(chosen: Settings) -> None:
    (chosen.config_dir / "scripts").mkdir(parents=True, exist_ok=True)
    bots_cfg = chosen.config_dir / "bots.cfg"
    if not bots_cfg.exists():
        bots_cfg.write_text(first_bots_cfg.TEXT, encoding="utf-8")


def _first_config(store: Store, now_ms: int) -> None:
    """Put the first bots.cfg in force, unless another one is: its parent is none at all."""
    push_config(
        store,
        Source(first_bots_cfg.TEXT, {}),
        parent="",
        author="skep init",
        now_ms=now_ms,
        reason="the first configuration",
    )


def _admin_key(store: Store, now_ms: int, rng: SystemRng) -> str:
    text, key = new_api_key("admin", Role.ADMIN, rng, now_ms=now_ms)
    entry = codec.audit_doc(
        at_ms=now_ms,
        entry_id=f"apikey-{key.key_id}",
        actor="skep init",
        verb="apikey.create",
        target=f"apikey {key.key_id}",
        reason="an admin key was asked for on the server's machine",
        before="",
        after=Role.ADMIN,
    )
    create_api_key(store, key, also=lambda txn: txn.put(codec.AUDIT, entry))
    return text
