"""`skep store upgrade`: the last step of an upgrade, refused while it would leave one behind."""

from contextlib import closing
from dataclasses import replace

import pytest
from click.testing import CliRunner

from botapi import engines, move
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store.protocol import SCHEMA_NUMBER
from botapi.transactions.server_presence import Server, announce

NEXT = SCHEMA_NUMBER + 1
ME = Server("a1b2", "host1", "1.0", SCHEMA_NUMBER, "", 0)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The store of a server."""
    monkeypatch.setenv("SKEP_DATA_DIR", str(tmp_path))
    settings = Settings(data_dir=tmp_path)
    with closing(engines.open_store(settings, Threads(), SystemClock(), SystemRng())) as store:
        yield store


def run(*words):
    return CliRunner().invoke(move.store, ["upgrade", *words])


def test_nothing_changes_when_the_number_is_in_force_already(found):
    done = run()
    assert (done.exit_code, done.output) == (0, f"schema {SCHEMA_NUMBER} is in force already\n")
    assert found.scan("audit", "", "~", limit=9) == []


def test_living_process_that_does_not_know_the_number_is_named(found, monkeypatch):
    announce(found, replace(ME, seen_ms=SystemClock().now_ms()))
    monkeypatch.setattr(move, "SCHEMA_NUMBER", NEXT)
    done = run()
    assert done.exit_code == 9
    assert f"do not know schema {NEXT}: a1b2 on host1 (Skep 1.0, schema 1)" in done.stderr
    assert found.schema().active == SCHEMA_NUMBER


def test_number_is_raised_when_every_living_process_knows_it(found, monkeypatch):
    now_ms = SystemClock().now_ms()
    announce(found, replace(ME, seen_ms=now_ms - 61_000))
    announce(found, replace(ME, server_id="new", knows=NEXT, seen_ms=now_ms))
    monkeypatch.setattr(move, "SCHEMA_NUMBER", NEXT)
    done = run("--format", "json")
    assert (done.exit_code, done.stdout) == (0, '{"before": 1, "schema": 2}\n')
    assert found.schema().active == NEXT
    (entry,) = found.scan("audit", "", "~", limit=9)
    assert entry.body["actor"] == "skep store upgrade"


def test_missing_database_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SKEP_DATA_DIR", str(tmp_path / "none"))
    done = run()
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'none' / 'skep.db'}: there is no database: "
        "give the data folder of a server"
    ]
