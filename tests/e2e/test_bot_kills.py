"""kill -9 of each process of a bot during a task: one final state soon, and nothing left."""

import sys

import pytest

from tests.e2e.fleet import kill, running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-bots")]

BOUND_S = 30.0
"""From the kill to the task's final state."""

TASK = """\
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("bot-kills")) as fleet:
        yield fleet


@pytest.fixture
def busy(fleet, request):
    """A bot with a running task that has a child of its own."""
    bot_id = f"bot-{abs(hash(request.node.name)) % 10**6}"
    (bot,) = fleet.add_bots(bot_id)
    dimensions = {"pool": ["default"], "id": [bot_id]}
    command = [sys.executable, "-c", TASK]
    task = fleet.api.submit(*command, dimensions=dimensions, grace_period_s=2)
    fleet.api.until(task["task_id"], "RUNNING")
    wait_until("the task works", lambda: sleeping(bot))
    yield bot, task["task_id"], dimensions
    bot.end()
    del fleet.bots[bot_id]


def sleeping(bot):
    """Processes of the task."""
    return [pid for pid, line in bot.running().items() if "sleep" in line]


def works(fleet, bot, dimensions):
    """It polls again, and runs a task."""
    fleet.api.until_idle(bot.bot_id)
    task = fleet.api.submit("echo", "back", dimensions=dimensions)
    return fleet.api.until(task["task_id"])["exit_code"] == 0


def test_task_dies_and_bot_is_back_when_the_supervisor_is_killed(fleet, busy):
    bot, task_id, dimensions = busy
    starter = bot.starter
    kill(bot.supervisor)
    task = fleet.api.until(task_id, limit_s=BOUND_S)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    wait_until("nothing left of the task", lambda: not sleeping(bot))
    assert works(fleet, bot, dimensions)
    assert bot.starter == starter
    assert bot.zombies() == []
    (error,) = fleet.api.events(bot.bot_id, "bot_error")
    assert "the previous bot process ended unexpectedly: -9" in error["message"]


def test_task_dies_and_bot_goes_on_when_the_runner_is_killed(fleet, busy):
    bot, task_id, dimensions = busy
    pids = bot.pids()
    kill(bot.runner)
    task = fleet.api.until(task_id, limit_s=BOUND_S)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    wait_until("nothing left of the task", lambda: not sleeping(bot))
    assert works(fleet, bot, dimensions)
    assert bot.pids() == pids
    assert bot.zombies() == []


def test_task_dies_and_nothing_is_left_when_the_starter_is_killed(fleet, busy):
    bot, task_id, dimensions = busy
    kill(bot.starter)
    task = fleet.api.until(task_id, limit_s=BOUND_S)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    wait_until("no process of the bot", lambda: not bot.running())
    bot.restart()
    assert works(fleet, bot, dimensions)


def test_task_dies_when_all_processes_of_the_bot_are_killed_and_it_is_started_again(fleet, busy):
    bot, task_id, dimensions = busy
    left = sleeping(bot)
    for pid in (bot.starter, bot.runner, bot.supervisor):
        kill(pid)
    bot.restart()
    task = fleet.api.until(task_id, limit_s=BOUND_S)
    assert (task["state"], task["cause"]) == ("BOT_DIED", "infrastructure")
    wait_until("nothing left of the task", lambda: not set(left) & set(bot.running()))
    assert works(fleet, bot, dimensions)


def test_task_ends_with_its_signal_when_the_command_is_killed(fleet, busy):
    bot, task_id, dimensions = busy
    lines = bot.running()
    # A child that is just being started has its parent's command line for a moment.
    kill(min(pid for pid, line in lines.items() if " -c import os, sub" in line))
    task = fleet.api.until(task_id, limit_s=BOUND_S)
    assert (task["state"], task["exit_code"]) == ("COMPLETED", -9)
    assert b"killed by SIGKILL" in fleet.api.output(task_id)
    wait_until("nothing left of the task", lambda: not sleeping(bot))
    assert works(fleet, bot, dimensions)


def test_second_bot_in_one_folder_ends_at_once_and_leaves_the_first_alone(fleet, busy):
    bot, task_id, _dimensions = busy
    pids = bot.pids()
    second = bot.shell("exec python3 swarming_bot.zip")
    assert second.wait(20) == 75
    assert bot.pids() == pids
    assert fleet.api.task(task_id)["state"] == "RUNNING"
    assert f"pid {pids[0]}" in bot.log.read_text()
