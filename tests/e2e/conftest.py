"""A fleet for each module that does not build its own; a PostgreSQL for those that share one."""

import os

import pytest

from tests.e2e.fleet import running_fleet
from tests.engines.postgres import Absent, Postgres


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One server and two idle bots, shared by the tests of a module."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), "bot1", "bot2") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def own_postgres():
    """A PostgreSQL that only one module uses, which may kill and halt it."""
    try:
        server = Postgres()
    except Absent as error:
        if os.environ.get("CI"):
            pytest.fail(f"PostgreSQL is absent: {error}")
        pytest.skip(f"PostgreSQL is absent: {error}")
    yield server
    server.end()
