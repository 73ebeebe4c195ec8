"""kill -9 of a front end, and of PostgreSQL itself, around the commits of a task's life.

The same promises as on SQLite (`test_server_kills.py`, which has every point and more rounds).
"""

import os
import random

import pytest

from tests.e2e.fleet import running_fleet, tell, wait_until
from tests.e2e.submitter import Submitter
from tests.e2e.test_server_kills import QUIET, Job, restart, restart_with_fault, when_it_kills

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("e2e-kills-postgres"),
]

POINTS = (
    *("create_task.after_commit", "offer_leases.before_commit", "claim_slice.before_commit"),
    *("claim_slice.after_commit", "update_task.after_commit"),
)
KILLS = int(os.environ.get("SKEP_TEST_KILLS", "4"))


@pytest.fixture(scope="module")
def fleet(own_postgres, tmp_path_factory):
    """One front end and two bots."""
    store = own_postgres.new_database()
    folder = tmp_path_factory.mktemp("kills")
    with running_fleet(folder, "bot1", "bot2", SKEP_STORE=store, **QUIET) as fleet:
        yield fleet


def untouched(fleet):
    return {
        bot_id: (bot.pids(), len(fleet.api.events(bot_id, "bot_connected")))
        for bot_id, bot in fleet.bots.items()
    }


@pytest.mark.parametrize("point", POINTS)
def test_no_task_is_lost_or_run_twice_when_the_front_end_dies_at(fleet, point):
    fleet.api.until_idle("bot1", "bot2")
    before = untouched(fleet)
    job = Job(fleet, "pg-" + point.replace(".", "-"))
    restart_with_fault(fleet, f"{point}:kill@1")
    submitting = when_it_kills(fleet, lambda: job.submit(2, lines=5))
    restart(fleet)
    submitting.join(60)
    job.check()
    assert untouched(fleet) == before


def test_no_task_is_lost_or_run_twice_when_postgres_and_front_end_die_at_random(
    fleet, own_postgres
):
    seed = int(os.environ.get("SKEP_TEST_SEED", random.SystemRandom().randrange(10**6)))
    tell(f"SKEP_TEST_SEED={seed} SKEP_TEST_KILLS={KILLS}")
    chance = random.Random(seed)
    fleet.api.until_idle("bot1", "bot2")
    before = untouched(fleet)
    submitter = Submitter(fleet)
    for number in range(KILLS):
        wanted = submitter.ended() + chance.randrange(1, 4)
        wait_until("more tasks end", lambda wanted=wanted: submitter.ended() >= wanted, 60)
        if number % 2:
            restart(fleet)
        else:
            own_postgres.kill()
            own_postgres.start()
    submitter.check()
    fleet.api.until_idle("bot1", "bot2")
    assert untouched(fleet) == before
