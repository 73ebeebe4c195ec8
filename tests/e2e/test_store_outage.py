"""The store goes away under a working fleet: killed, frozen, or out of space.

Callers get a clear 503 in time, nothing acknowledged is lost, whoever waits is answered, and
everything goes on by itself when the store is back.
"""

import http.client
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from botapi.scheduler.readiness import KEEP_S
from tests.e2e.fleet import Connection, Fleet, running_fleet, tell, wait_until
from tests.e2e.submitter import Submitter
from tests.engines.postgres import Absent, Postgres
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
    def task_id(self):
        return json.loads(self.text)["task_id"]

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


@pytest.fixture
def on_emulator(emulator, tmp_path):
    """The same on Google's emulator."""
    if emulator.real:
        pytest.skip("nobody can halt the service")
    with running_fleet(tmp_path, "bot1", SKEP_STORE=emulator.new_address()) as fleet:
        yield fleet


def submit(fleet):
    body = {"command": ["true"], "wait_for_capacity": True}
    return Answer(fleet.server, "POST", "/api/v1/tasks", body, fleet.api.key)


@contextmanager
def held_call(fleet, bot_id, *, beside, goes_on):
    """A bot whose call waits for work at the beginning, as those `beside` it do, and is answered
    by the end."""
    with closing(Connection(fleet.server.url)) as post:
        bot = SimBot(post, bot_id).start()
        replies = []
        thread = threading.Thread(target=lambda: replies.append(bot.update(nonblocking=False)))
        thread.start()
        wait_until("the call is held", lambda: held_calls(fleet) == beside + 1)
        yield
        thread.join(20)
        assert replies[0]["status"] == "OK"
        assert "lease" not in replies[0]
        assert not goes_on or bot.update()["status"] == "OK"


def held_calls(fleet):
    """How many the server holds now."""
    text = Answer(fleet.server, "GET", "/metrics").text
    return float(re.search(r"^skep_held_calls(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE)[1])


def all_is_refused_at_once(fleet):
    """What callers see of a store that refuses connections."""
    answers = [submit(fleet) for _ in range(8)]
    alive = Answer(fleet.server, "GET", "/healthz")
    assert all(answer.is_clear_503 for answer in answers), [a.text for a in answers]
    assert max(answer.seconds for answer in answers[-3:]) < AT_ONCE_S
    assert (alive.status, alive.seconds < AT_ONCE_S) == (200, True)
    ready = lambda: Answer(fleet.server, "GET", "/readyz").status  # noqa: E731
    wait_until("it says that it is not ready", lambda: ready() == 503, 2 * KEEP_S)


def takes_tasks_again(fleet):
    """By itself."""
    began = time.monotonic()
    wait_until("a task is taken", lambda: submit(fleet).status == 201)
    tell(f"acknowledged {time.monotonic() - began:.2f} s after the store was back")


@pytest.mark.xdist_group("e2e-outage")
def test_fleet_goes_through_a_killed_postgres(fleet, own_postgres):
    with goes_through(fleet, 4), held_call(fleet, "sim-killed", beside=0, goes_on=True):
        own_postgres.kill()
        all_is_refused_at_once(fleet)
        own_postgres.start()
        takes_tasks_again(fleet)


def test_callers_are_answered_while_the_emulator_is_gone(on_emulator, emulator):
    """It keeps its documents in memory: the fleet that was in it ends here."""
    with held_call(on_emulator, "sim-killed", beside=1, goes_on=False):
        emulator.kill()
        all_is_refused_at_once(on_emulator)
    emulator.start()


@pytest.mark.xdist_group("e2e-outage")
def test_fleet_goes_through_a_frozen_postgres(fleet, own_postgres):
    goes_through_a_freeze(fleet, own_postgres)


def test_fleet_goes_through_a_frozen_emulator(on_emulator, emulator):
    goes_through_a_freeze(on_emulator, emulator)


def goes_through_a_freeze(fleet, store):
    """Connections stay open and nothing answers: the worst kind of being away."""
    with goes_through(fleet, FROZEN_S):
        store.pause()
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
        store.resume()
        takes_tasks_again(fleet)
    assert all(answer.is_clear_503 for answer in answers), [a.text for a in answers]
    slowest = max(answer.seconds for answer in answers)
    tell(f"frozen: answered after {slowest:.1f} s at most, then after {quick.seconds:.2f} s")
    assert slowest < DEADLINE_S
    assert quick.is_clear_503
    assert quick.seconds < AT_ONCE_S
    assert alive.status == 200
    assert alive.seconds < AT_ONCE_S


@contextmanager
def disk_of(mebibytes):
    """A small file system of its own; making one is the privilege of root."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    disk = Path(tempfile.mkdtemp(prefix="skep-disk-"))
    options = f"size={mebibytes}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


@pytest.fixture
def small_disk():
    """Room for a small database in one file."""
    with disk_of(24) as disk:
        yield disk


@pytest.fixture
def on_small_disk(tmp_path):
    """A front end on a PostgreSQL whose programs and data are on a file system of their own."""
    with disk_of(400) as disk:
        try:
            server = Postgres(within=disk)
        except Absent as error:
            pytest.skip(f"PostgreSQL is absent: {error}")
        fleet = Fleet(tmp_path, SKEP_STORE=server.new_database())
        try:
            fleet.start()
            yield fleet, server, disk
        finally:
            fleet.end()
            server.end()


def big_ones_until_refused(fleet):
    """The answers to large tasks, one after the other; the last one was refused."""
    answers = []

    def is_full():
        body = {"command": ["true", "x" * 30_000], "wait_for_capacity": True}
        answers.append(Answer(fleet.server, "POST", "/api/v1/tasks", body, fleet.api.key))
        return answers[-1].status != 201

    wait_until("the disk is full", is_full, every_s=0.0)
    assert answers[-1].is_clear_503, answers[-1].text
    assert answers[-1].seconds < DEADLINE_S
    return answers


@pytest.mark.xdist_group("e2e-full")
def test_writes_are_refused_and_nothing_is_lost_when_the_disk_of_postgres_is_full(on_small_disk):
    fleet, server, disk = on_small_disk
    ballast = disk / "ballast"
    fill(ballast, left=3_000_000)
    taken = {answer.task_id for answer in big_ones_until_refused(fleet)[:-1]}
    for _ in range(20):
        again = submit(fleet)
        assert again.status == 201 or again.is_clear_503, again.text
        if again.status == 201:
            taken.add(again.task_id)
    assert Answer(fleet.server, "GET", "/healthz").status == 200
    ballast.unlink()

    def is_taken():
        server.start_again()
        return submit(fleet).status == 201

    wait_until("a task is taken", is_taken)
    assert taken <= {task["task_id"] for task in fleet.api.pages("/tasks")}


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
        big_ones_until_refused(fleet)
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


def fill(path, left=300_000):
    """Take all of the file system but so many bytes."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
