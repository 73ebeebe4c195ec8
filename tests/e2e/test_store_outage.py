"""The store goes away under a working fleet: killed, frozen, or out of space.

Callers get a clear 503 in time, nothing acknowledged is lost, whoever waits is answered, and
everything goes on by itself when the store is back.
"""

import http.client
import json
import os
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest

from tests.e2e.fleet import Connection, Fleet, running_fleet, tell, wait_until
from tests.e2e.submitter import Submitter
from tests.fakes.sim_bot import SimBot

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

FROZEN_S = float(os.environ.get("SKEP_TEST_FROZEN_S", "14"))
"""Longer than a call waits for the store, so that the breaker opens; 60 by hand."""
DEADLINE_S = 15.0
"""Every call is answered within the store's own deadline and some more."""
AT_ONCE_S = 1.0


class Answer:
    """Status, the seconds it took, and the answer to one call."""

    def __init__(self, server, method, path, body=None, key=""):
        http_ = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with closing(http_):
            http_.request(method, path, body and json.dumps(body), headers)
            reply = http_.getresponse()
            self.text = reply.read().decode()
            self.status, self.retry_after = reply.status, reply.getheader("Retry-After")
        self.seconds = time.monotonic() - began

    @property
    def is_clear_503(self):
        return (self.status, self.retry_after) == (503, "2") and "store" in self.text


@contextmanager
def goes_through(fleet, away_s):
    """A fleet that works before and after: the same processes and sessions, one long task."""
    fleet.api.until_idle("bot1")
    bot = fleet.bots["bot1"]
    before = bot.pids(), len(fleet.api.events("bot1", "bot_connected"))
    long_one = fleet.api.submit("sh", "-c", f"echo begun; sleep {away_s + 8}; echo ended")[
        "task_id"
    ]
    fleet.api.until(long_one, "RUNNING")
    submitter = Submitter(fleet)
    wait_until("something is acknowledged", lambda: len(submitter.tasks) > 2)
    yield
    task = fleet.api.until(long_one, limit_s=60)
    assert (task["state"], task["exit_code"]) == ("COMPLETED", 0), task
    assert fleet.api.output(long_one) == b"begun\nended\n"
    submitter.check()
    assert (bot.pids(), len(fleet.api.events("bot1", "bot_connected"))) == before


@pytest.fixture(scope="module")
def fleet(own_postgres, tmp_path_factory):
    """One front end and one bot on PostgreSQL."""
    store = own_postgres.new_database()
    with running_fleet(tmp_path_factory.mktemp("outage"), "bot1", SKEP_STORE=store) as fleet:
        yield fleet


def submit(fleet):
    body = {"command": ["true"], "wait_for_capacity": True}
    return Answer(fleet.server, "POST", "/api/v1/tasks", body, fleet.api.key)


@pytest.mark.xdist_group("e2e-outage")
def test_fleet_goes_through_a_killed_postgres(fleet, own_postgres):
    with goes_through(fleet, 4), closing(Connection(fleet.server.url)) as post:
        held = SimBot(post, "sim-killed").start()
        replies = []
        thread = threading.Thread(target=lambda: replies.append(held.update(nonblocking=False)))
        thread.start()
        wait_until("the call is held", lambda: held.status == 200)
        own_postgres.kill()
        answers = [submit(fleet) for _ in range(8)]
        alive = Answer(fleet.server, "GET", "/healthz")
        ready = Answer(fleet.server, "GET", "/readyz")
        thread.join(20)
        own_postgres.start()
        began = time.monotonic()
        wait_until("a task is taken", lambda: submit(fleet).status == 201)
        tell(f"acknowledged {time.monotonic() - began:.2f} s after PostgreSQL was back")
        again = held.update()
    assert all(answer.is_clear_503 for answer in answers), [a.text for a in answers]
    assert max(answer.seconds for answer in answers[-3:]) < AT_ONCE_S
    assert (alive.status, ready.status) == (200, 503)
    assert alive.seconds + ready.seconds < 2 * AT_ONCE_S
    assert replies[0]["status"] == "OK"
    assert "lease" not in replies[0]
    assert again["status"] == "OK"


@pytest.mark.xdist_group("e2e-outage")
def test_fleet_goes_through_a_frozen_postgres(fleet, own_postgres):
    """Connections stay open and nothing answers: the worst kind of being away."""
    with goes_through(fleet, FROZEN_S):
        own_postgres.pause()
        began = time.monotonic()
        answers, threads = [], []
        for _ in range(6):
            thread = threading.Thread(target=lambda: answers.append(submit(fleet)))
            thread.start()
            threads.append(thread)
        alive = Answer(fleet.server, "GET", "/healthz")
        for thread in threads:
            thread.join(60)
        quick = submit(fleet)
        left = FROZEN_S - (time.monotonic() - began)
        threading.Event().wait(max(0.0, left))
        own_postgres.resume()
        began = time.monotonic()
        wait_until("a task is taken", lambda: submit(fleet).status == 201)
        tell(f"acknowledged {time.monotonic() - began:.2f} s after PostgreSQL went on")
    assert all(answer.is_clear_503 for answer in answers), [a.text for a in answers]
    slowest = max(answer.seconds for answer in answers)
    tell(f"frozen: answered after {slowest:.1f} s at most, then after {quick.seconds:.2f} s")
    assert slowest < DEADLINE_S
    assert quick.is_clear_503
    assert quick.seconds < AT_ONCE_S
    assert alive.status == 200
    assert alive.seconds < AT_ONCE_S


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB; making one is the privilege of root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.xdist_group("e2e-full")
def test_reads_go_on_and_writes_are_refused_when_the_disk_of_sqlite_is_full(small_disk, tmp_path):
    fleet = Fleet(tmp_path)
    try:
        fleet.server.data = small_disk / "data"
        fleet.api.key = fleet.server.init()
        fleet.server.start()
        known = fleet.api.submit("true", wait_for_capacity=True)["task_id"]
        ballast = small_disk / "ballast"
        fill(ballast)
        answers = []

        def is_full():
            body = {"command": ["true", "x" * 30_000], "wait_for_capacity": True}
            answers.append(Answer(fleet.server, "POST", "/api/v1/tasks", body, fleet.api.key))
            return answers[-1].status != 201

        wait_until("the disk is full", is_full, every_s=0.0)
        assert answers[-1].is_clear_503, answers[-1].text
        assert answers[-1].seconds < DEADLINE_S
        assert fleet.api.task(known)["state"] == "PENDING"
        for _ in range(20):
            again = submit(fleet)
            assert again.status == 201 or again.is_clear_503
        assert fleet.api.task(known)["state"] == "PENDING"
        before = len(fleet.api.pages("/tasks"))
        ballast.unlink()
        wait_until("a task is taken", lambda: submit(fleet).status == 201, 10)
        assert len(fleet.api.pages("/tasks")) == before + 1
    finally:
        fleet.end()


def fill(path):
    """Write until the file system has 300 kB left."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - 300_000)))
