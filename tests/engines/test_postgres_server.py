"""The server that the tests make: private, without a trace in the clone, gone after a crash."""

import os
from pathlib import Path

import psycopg
import pytest

from tests.engines.postgres import Postgres

pytestmark = pytest.mark.slow


def parents():
    here = Path(__file__).resolve()
    return {str(each): oct(each.stat().st_mode) for each in here.parents}


@pytest.fixture
def server(postgres):
    if postgres._foreign:
        pytest.skip("not ours")
    return postgres


def test_parents_of_the_clone_keep_their_modes_when_a_server_is_made(server):
    before = parents()
    made = Postgres()
    pid = made.pid
    made.end()
    assert parents() == before
    assert not Path(f"/proc/{pid}").exists()
    assert not made._folder.exists()


def test_new_database_is_empty_and_of_its_own(server):
    with server.database() as one, server.database() as other:
        assert one != other
        server.execute("CREATE TABLE thing (k text)", one)
        there = "SELECT to_regclass('thing') IS NOT NULL"
        assert (server.execute(there, one), server.execute(there, other)) == ([(True,)], [(False,)])


@pytest.mark.parametrize("end", ["kill", "immediate_stop", "stop"])
def test_committed_rows_are_there_again_when_the_server_had_ended(server, end):
    with server.database() as dsn:
        server.execute("CREATE TABLE thing AS SELECT 1 AS n", dsn)
        getattr(server, end)()
        with pytest.raises(psycopg.OperationalError):
            server.execute("SELECT 1", dsn)
        server.start()
        assert server.execute("SELECT n FROM thing", dsn) == [(1,)]


def test_halted_server_answers_again_when_it_goes_on(server):
    server.pause()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.admin_dsn, connect_timeout=2)
    server.resume()
    assert server.execute("SELECT 1") == [(1,)]


def test_processes_of_the_server_are_not_run_as_root(server):
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0 or os.geteuid() != 0
