"""An empty store of each kind for one run of a benchmark: a private server, ended with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines.emulator import Emulator
from tests.engines.postgres import Postgres

ENGINES = ("sqlite", "postgres", "emulator")


@contextmanager
def engine(name: str, folder: Path) -> Iterator[str]:
    """What SKEP_STORE names: an engine of this run's own."""
    if name == "sqlite":
        yield "sqlite"
        return
    if name == "postgres":
        server = Postgres()
        try:
            yield server.new_database()
        finally:
            server.end()
        return
    (folder / "emulator").mkdir(parents=True)
    service = Emulator(folder / "emulator")
    os.environ.update(service.environ)
    try:
        yield service.new_address()
    finally:
        service.end()
