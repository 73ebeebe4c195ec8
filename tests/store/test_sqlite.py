"""The SQLite engine, plain and wrapped, passes the suite."""

from contextlib import closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.sqlite import SqliteStore
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance


@pytest.fixture
def sqlite(tmp_path):
    with closing(SqliteStore(tmp_path / "data", Threads(), SystemClock())) as store:
        yield store


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return sqlite


class TestSqliteStoreTwice(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return TwiceStore(sqlite)


class TestSqliteStoreFaulty(StoreConformance):
    @pytest.fixture
    def store(self, sqlite):
        return FaultyStore(sqlite, seed=1, before=0.1)
