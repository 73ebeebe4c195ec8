"""The PostgreSQL engine, plain and wrapped, passes the suite."""

from contextlib import closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.postgres import PostgresStore
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import SharedConformance, StoreConformance

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(postgres_dsn):
    with closing(PostgresStore(postgres_dsn, Threads(), SystemClock())) as store:
        yield store


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self, opened):
        return opened


class TestPostgresStoreTwice(StoreConformance):
    @pytest.fixture
    def store(self, opened):
        return TwiceStore(opened)


class TestPostgresStoreFaulty(StoreConformance):
    @pytest.fixture
    def store(self, opened):
        return FaultyStore(opened, seed=1, before=0.1)


class TestPostgresProcesses(SharedConformance):
    @pytest.fixture
    def address(self, postgres_dsn):
        return postgres_dsn
