"""Every engine that declares so is durable and shared by real processes."""

import sqlite3
from contextlib import closing

import pytest

from tests.store.conformance import SharedConformance

pytestmark = pytest.mark.slow


class TestSharedSqlite(SharedConformance):
    @pytest.fixture
    def address(self, tmp_path):
        yield f"sqlite:{tmp_path / 'data'}"
        with closing(sqlite3.connect(tmp_path / "data" / "skep.db")) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class TestSharedPostgres(SharedConformance):
    @pytest.fixture
    def address(self, postgres_dsn):
        return postgres_dsn


class TestSharedDatastore(SharedConformance):
    patience_s = 0.2
    crowd = 60
    rounds = 5

    @pytest.fixture
    def address(self, emulator):
        return emulator.new_address()
