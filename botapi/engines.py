"""Which store the settings name, opened: the only place that knows an engine.

`sqlite` is the file in the data directory; `postgresql://…` and `datastore://…` name a
database that many servers share (docs/stores.md).
"""

from pathlib import Path
from urllib.parse import urlsplit

from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.settings import Settings
from botapi.store.breaker import Breaker
from botapi.store.copying import is_unfinished
from botapi.store.failpoints import FailingStore, parse
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Store, StoreError
from botapi.store.sqlite import SqliteStore


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
    raise Absent(f"this Skep cannot open {urlsplit(address).scheme} yet")
