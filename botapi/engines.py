"""Which store the settings name, opened: the only place that knows an engine.

`sqlite` is the file in the data directory; `postgresql://…` and `datastore://…` name a
database that many servers share (docs/stores.md).
"""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.settings import Settings
from botapi.store.breaker import Breaker
from botapi.store.copying import is_unfinished
from botapi.store.failpoints import FailingStore, parse
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Store, StoreError, UnfitAddress
from botapi.store.sqlite import SqliteStore
from botapi.store.sqlite_copy import damage, quick_damage
from botapi.store.sqlite_files import DATABASE

START_CHECK_S = 5.0
"""Longest that a server reads its SQLite database for damage before it serves it."""
DAMAGED = "skep.db.damaged"
"""What the daily check found, beside the database."""


class Absent(StoreError):
    """An engine whose library is not installed; says how to get it."""


def open_store(settings: Settings, concurrency: Concurrency, clock: Clock, rng: Rng) -> Store:
    """The store that the settings name, behind a breaker. Raises StoreError in one line."""
    opened = open_address(settings.store, settings, concurrency, clock, rng)
    if is_unfinished(opened):
        opened.close()
        raise StoreError("the store holds a copy that broke off: skep store copy --resume ends it")
    store = Breaker(opened, clock)
    return FailingStore(store, parse(settings.fault)) if settings.fault else store


def damage_at_start(settings: Settings, clock: Clock) -> str:
    """Why the SQLite database must not be served, as far as a short check finds; or empty.

    What the daily check has found holds until the database is another one.
    """
    path, note = settings.data_dir / DATABASE, settings.data_dir / DAMAGED
    if settings.store != "sqlite" or not path.exists():
        return ""
    found = note.read_text(encoding="utf-8").splitlines() if note.exists() else []
    lines = found or quick_damage(path, clock.monotonic() + START_CHECK_S, clock)
    return _damaged(path, lines)


def daily_damage(settings: Settings) -> str:
    """The same by a check of the whole database, on the thread of the caller; it is noted."""
    path = settings.data_dir / DATABASE
    lines = damage(path) if settings.store == "sqlite" else []
    if lines:
        note = settings.data_dir / DAMAGED
        note.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _damaged(path, lines)


def _damaged(path: Path, lines: list[str]) -> str:
    if not lines:
        return ""
    return (
        f"{path} is damaged: {lines[0]}; restore a backup into a new folder (docs/backup.md), "
        f"or remove {path.with_name(DAMAGED)} when it was mended"
    )


def open_address(
    address: str, settings: Settings, concurrency: Concurrency, clock: Clock, rng: Rng
) -> Store:
    """The store at `sqlite`, `sqlite:FOLDER`, `postgresql://…` or `datastore://…`."""
    scheme, _, rest = address.partition(":")
    if scheme == "sqlite":
        return SqliteStore(Path(rest) if rest else settings.data_dir, concurrency, clock, rng)
    if scheme == "datastore":
        return _datastore(address, concurrency, clock, rng)
    return _postgres(address, concurrency, clock, rng)


def memory_store(concurrency: Concurrency, clock: Clock, rng: Rng) -> Store:
    """A store that forgets everything at the end: tests and trials."""
    return MemoryStore(concurrency, clock, rng)


def _postgres(dsn: str, concurrency: Concurrency, clock: Clock, rng: Rng) -> Store:
    try:
        from botapi.store.postgres import PostgresStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Absent("postgresql:// needs psycopg: pip install 'skep[postgresql]'") from error
    return PostgresStore(dsn, concurrency, clock, rng)


def _datastore(address: str, concurrency: Concurrency, clock: Clock, rng: Rng) -> Store:
    project, database, namespace = _datastore_parts(address)
    try:
        from botapi.store.datastore import DatastoreStore  # noqa: PLC0415 - an extra
        from botapi.store.datastore_entities import Place  # noqa: PLC0415
    except ImportError as error:
        raise Absent(
            "datastore:// needs google-cloud-datastore: pip install 'skep[datastore]'"
        ) from error
    return DatastoreStore(Place(project, database, namespace), concurrency, clock, rng)


def _datastore_parts(address: str) -> tuple[str, str, str]:
    """Project, database and namespace of `datastore://project[/database][?namespace=x]`.

    The default database and namespace are empty. Raises UnfitAddress in one line.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that do not match
        raise UnfitAddress(f"{address!r} is not like datastore://project/database") from None
    database = parts.path.removeprefix("/").removeprefix("(default)")
    if not re.fullmatch(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{3,61}[a-z0-9]", parts.netloc):
        raise UnfitAddress(f"{parts.netloc!r} is not the id of a Google Cloud project")
    if not re.fullmatch(r"([a-z][a-z0-9-]{2,61}[a-z0-9])?", database):
        raise UnfitAddress(f"{database!r} is not the id of a Datastore database")
    try:
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        query = {"": []}
    if parts.fragment or set(query) - {"namespace"} or len(query.get("namespace", [""])) > 1:
        raise UnfitAddress("behind datastore://project/database stands nothing but ?namespace=x")
    (namespace,) = query.get("namespace", [""])
    if not re.fullmatch(r"(?!__)[0-9A-Za-z._-]{0,100}", namespace):
        raise UnfitAddress(f"{namespace!r} is not a namespace: up to 100 letters, digits, . _ -")
    return parts.netloc, database, namespace
