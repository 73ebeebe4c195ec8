"""The PostgreSQL engine, plain and wrapped, passes the suite."""

from contextlib import closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.postgres import PostgresStore
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(postgres_dsn):
    with closing(PostgresStore(postgres_dsn, Threads(), SystemClock())) as store:
        yield store


@pytest.fixture(scope="class")
def dsn_of_class(_postgres_server):
    with _postgres_server.database() as dsn:
        yield dsn


@pytest.fixture
def emptied(dsn_of_class, postgres):
    """A store whose tables are there already: making them is half the time of a test."""
    postgres.empty(dsn_of_class)
    with closing(PostgresStore(dsn_of_class, Threads(), SystemClock())) as store:
        yield store


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self, opened):
        return opened


class TestPostgresStoreTwice(StoreConformance):
    @pytest.fixture
    def store(self, emptied):
        return TwiceStore(emptied)


class TestPostgresStoreFaulty(StoreConformance):
    @pytest.fixture
    def store(self, emptied):
        return FaultyStore(emptied, seed=1, before=0.1)
