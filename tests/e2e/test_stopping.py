"""The end of a server: told to stop it answers whoever waits; without its master it goes."""

import contextlib
import signal
import threading
import time

import pytest

from tests.e2e.fleet import Connection, is_running, kill, running_fleet, tell, wait_until
from tests.fakes.sim_bot import SimBot

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-stopping")]

WAITING = 20
LONG_HOLD = {"SKEP_HOLD_MIN_S": "40", "SKEP_HOLD_MAX_S": "45"}


@pytest.fixture
def fleet(tmp_path):
    with running_fleet(tmp_path, **LONG_HOLD) as fleet:
        yield fleet


class Held:
    """A simulated bot whose call is held; `reply` and `seconds` are there once it ended."""

    def __init__(self, url, number):
        self.bot = SimBot(Connection(url), f"sim-{number}").start()
        self.reply = None
        self.error = None
        self.ended_at = 0.0
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self):
        try:
            self.reply = self.bot.update(nonblocking=False)
        except OSError as error:
            self.error = error
        self.ended_at = time.monotonic()
        self.bot.post.close()


def hold(fleet):
    """Twenty held calls; the last word from each bot was a call that is not answered."""
    held = [Held(fleet.server.url, number) for number in range(WAITING)]
    wait_until("all calls are held", lambda: connected(fleet) >= WAITING)
    assert [one.reply for one in held] == [None] * WAITING
    return held


def connected(fleet):
    """Established connections that the worker has, from the kernel's table."""
    port = f":{fleet.server.port:04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return sum(1 for row in rows if row[1].endswith(port) and row[3] == "01")


def test_held_calls_are_answered_within_a_second_when_the_server_is_told_to_stop(fleet):
    held = hold(fleet)
    began = time.monotonic()
    seconds = fleet.server.terminate()
    for one in held:
        one.thread.join(5)
    assert [one.error for one in held] == [None] * WAITING
    assert {one.reply["status"] for one in held} == {"OK"}
    assert not any("lease" in one.reply for one in held)
    slowest = max(one.ended_at for one in held) - began
    tell(f"{WAITING} held calls answered within {slowest:.2f} s, ended after {seconds:.2f} s")
    assert slowest < 1.0
    assert seconds < 5.0
    assert fleet.server.process.returncode == 0
    assert "Traceback" not in fleet.server.text()


def test_workers_end_and_the_port_is_free_when_the_master_is_killed(fleet):
    held = hold(fleet)
    workers = fleet.server.workers()
    began = time.monotonic()
    kill(fleet.server.pid, signal.SIGKILL)
    fleet.server.process.wait()
    wait_until("no worker", lambda: not any(map(is_running, workers)), 5)
    tell(f"workers ended {time.monotonic() - began:.2f} s after their master")
    for one in held:
        one.thread.join(5)
        assert not one.thread.is_alive()
    fleet.server.start()
    with contextlib.closing(Connection(fleet.server.url)) as post:
        assert SimBot(post, "sim-new").start().status == 200


def test_server_ends_in_time_when_told_to_stop_while_a_worker_starts(fleet):
    before = set(fleet.server.workers())
    fleet.server.kill_worker()
    wait_until("another worker starts", lambda: set(fleet.server.workers()) - before)
    fleet.server.terminate()
    assert fleet.server.process.returncode == 0
    assert "Traceback" not in fleet.server.text()
