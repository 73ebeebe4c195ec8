"""What only time ends: a bot that never comes back, and a task that nobody could take."""

import contextlib

import pytest

from tests.e2e.fleet import kill, running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-silence")]

SILENCE = {"SKEP_BOT_DEATH_S": "1", "SKEP_CONTACT_S": "1", "SKEP_SEEN_FLUSH_S": "0"}
DEATH_S = 1 + 30 + 60
"""Contact, the longest usual grace and the margin: no setting makes a bot die sooner."""
EXPIRATION_S = 30
"""The shortest there is."""
SIDES = ("before_commit", "after_commit")


@pytest.fixture(scope="module")
def waits(tmp_path_factory):
    """Everything that takes its time, begun at once: a lost bot, and two expiring tasks."""
    with contextlib.ExitStack() as stack:
        lost = stack.enter_context(
            running_fleet(tmp_path_factory.mktemp("lost"), "lost", **SILENCE)
        )
        lost.task_id = lost.api.submit("sleep", "600", grace_period_s=1)["task_id"]
        lost.api.until(lost.task_id, "RUNNING")
        bot = lost.bots["lost"]
        for pid in (bot.starter, bot.runner, bot.supervisor):
            kill(pid)
        found = {"lost": lost}
        for side in SIDES:
            fleet = stack.enter_context(running_fleet(tmp_path_factory.mktemp("expire")))
            fleet.server.terminate()
            fleet.server.start(SKEP_FAULT=f"expire_slice.{side}:kill@1")
            wait = {"expiration_s": EXPIRATION_S, "wait_for_capacity": True}
            fleet.task_id = fleet.api.submit("true", **wait)["task_id"]
            found[side] = fleet
        yield found


@pytest.mark.parametrize("side", SIDES)
def test_task_expires_once_when_the_server_dies_at_that_moment(waits, side):
    fleet = waits[side]
    wait_until("the fault kills", lambda: fleet.server.kills() >= 1, EXPIRATION_S + 30)
    fleet.server.kill_all()
    fleet.server.start()
    task = fleet.api.until(fleet.task_id, limit_s=45)
    assert (task["state"], task["started_at"]) == ("EXPIRED", None)


def test_task_of_a_bot_that_never_comes_back_ends_in_bounded_time(waits):
    fleet = waits["lost"]
    task = fleet.api.until(fleet.task_id, limit_s=DEATH_S + 20)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    assert fleet.api.bot("lost")["status"] == "dead"
    (missing,) = fleet.api.events("lost", "bot_missing")
    assert "not heard of for" in missing["message"]
