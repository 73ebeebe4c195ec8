"""`python -m tests.sim --seeds N [--start S] [--mutant NAME] [--jobs 2] [--engine NAME]`."""

# ruff: noqa: T201

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.engines.emulator import Emulator
from tests.engines.postgres import Postgres
from tests.sim.campaign import campaign
from tests.sim.mutants import MUTANTS

ENGINES = ("memory", "sqlite", "postgres", "emulator")


def main():
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the server first")
    parser.add_argument("--engine", choices=ENGINES, default="memory", help="below the servers")
    given = parser.parse_args()
    with running(given.engine) as address:
        total = campaign(
            given.start,
            given.seeds,
            jobs=given.jobs,
            mutant=given.mutant or "",
            address=address,
        )
    print(total.report())
    for found in total.found:
        print(found)
    return 1 if total.found else 0


@contextmanager
def running(name):
    """The address below which every seed gets a database of its own."""
    with tempfile.TemporaryDirectory(prefix="skep-sim-engine-") as folder:
        if name == "postgres":
            server = Postgres(fsync=False)
            try:
                yield server.new_database()
            finally:
                server.end()
        elif name == "emulator":
            service = Emulator(Path(folder))
            os.environ.update(service.environ)
            try:
                yield service.new_address()
            finally:
                service.end()
        else:
            yield f"sqlite:{folder}" if name == "sqlite" else ""


if __name__ == "__main__":
    sys.exit(main())
