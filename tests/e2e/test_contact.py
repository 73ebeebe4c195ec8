"""The contact rule: a bot whose server is away stops its task, and comes back by itself."""

import sys
import time

import pytest

from tests.e2e import ground_truth
from tests.e2e.fleet import running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-contact")]

CONTACT_S = 4.0
STOPPABLE = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopping"))
time.sleep(600)
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    settings = {"SKEP_CONTACT_S": f"{CONTACT_S:g}", "SKEP_HOLD_MIN_S": "1", "SKEP_HOLD_MAX_S": "2"}
    with running_fleet(tmp_path_factory.mktemp("contact"), "bot1", "bot2", **settings) as fleet:
        yield fleet


def test_task_is_stopped_and_fleet_recovers_when_the_server_is_away_too_long(fleet):
    pids = [bot.pids() for bot in fleet.bots.values()]
    command = [sys.executable, "-c", STOPPABLE]
    task_id = fleet.api.submit(*command, grace_period_s=2)["task_id"]
    bot = fleet.bots[fleet.api.until(task_id, "RUNNING")["bot_id"]]
    wait_until("the task works", lambda: working(bot))
    fleet.server.kill_all()
    away = time.monotonic()
    wait_until("the task was stopped", lambda: not working(bot), CONTACT_S + 15)
    assert time.monotonic() - away < CONTACT_S + 12
    fleet.server.start()
    task = fleet.api.until(task_id)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    assert "no contact with the server for 4 s" in str(task["error"])
    assert fleet.api.output(task_id) == b"stopping\n"
    fleet.api.until_idle("bot1", "bot2")
    assert [bot.pids() for bot in fleet.bots.values()] == pids
    again = fleet.api.submit("echo", "back")
    assert fleet.api.until(again["task_id"])["exit_code"] == 0


def test_task_goes_on_and_output_is_exact_when_the_server_is_away_for_a_while(fleet):
    """Shorter than the contact rule allows."""
    truth = fleet.folder / "truth"
    lines = 200
    command = ground_truth.command(truth, "away", lines, 0.02)
    task_id = fleet.api.submit(*command)["task_id"]
    wait_until("it started", lambda: ground_truth.told(truth))
    fleet.server.kill_all()
    fleet.server.start()
    task = fleet.api.until(task_id)
    assert (task["state"], task["exit_code"]) == ("COMPLETED", 0)
    assert fleet.api.output(task_id) == ground_truth.output("away", lines)
    assert sorted(ground_truth.told(truth).values()) == [1, 1]


def working(bot):
    return [pid for pid, line in bot.running().items() if "stopping" in line]
