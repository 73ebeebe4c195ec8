"""SQLite and PostgreSQL outlive a process, and several processes have them open."""

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
