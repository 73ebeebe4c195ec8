"""Exactly once with four server processes on one store: no task twice, none left, few skipped."""

import pytest

from bench.claims import measure

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

TASKS, BOTS = 400, 16
EMULATOR_TASKS, EMULATOR_BOTS = 60, 8


def holds(outcome):
    print(outcome.line())  # noqa: T201 - a measurement
    assert outcome.wrong() == []


def test_each_task_is_claimed_once_by_four_servers_on_one_folder(tmp_path):
    holds(measure("sqlite", tmp_path, TASKS, BOTS))


def test_each_task_is_claimed_once_by_four_servers_on_postgres(tmp_path, postgres_dsn):
    holds(measure(postgres_dsn, tmp_path, TASKS, BOTS))


def test_each_task_is_claimed_once_by_four_servers_on_the_emulator(tmp_path, emulator):
    holds(measure(emulator.new_address(), tmp_path, EMULATOR_TASKS, EMULATOR_BOTS))
