"""kill -9 of the server: at every named point of a task's life, and at random.

Nothing acknowledged is lost, nothing runs twice, output is exact to the byte, every event is
there once, and the bots go on as if nothing had been.
"""

import os
import random
import threading
from collections import Counter

import pytest

from tests.e2e import ground_truth
from tests.e2e.fleet import Connection, kill, running_fleet, tell, wait_until
from tests.fakes.sim_bot import SimBot

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = int(os.environ.get("SKEP_TEST_KILLS", "30"))
AHEAD = 8
"""Tasks that wait or run while the server is killed at random."""
SIDES = ("before_commit", "after_commit")
LIFE = ("create_task", "offer_leases", "update_task")
"""What every task passes. Bots claim themselves on PostgreSQL: `test_kills_on_postgres.py`."""
START = (
    "create_bootstrap_token",
    "enrol_bot",
    "update_bot.bot_connected",
    "update_bot.bot_polling",
    "open_lease_session",
)
"""What every bot passes."""
QUIET = {"SKEP_HOLD_MIN_S": "2", "SKEP_HOLD_MAX_S": "3"}


class Job:
    """Tasks with a ground truth, submitted until they are acknowledged."""

    def __init__(self, fleet, name):
        self.fleet = fleet
        self.name = name
        self.truth = fleet.folder / f"truth-{name}"
        self.tasks = {}
        self.lines = 20

    def submit(self, count, lines=20, pause_s=0.02):
        """One after the other; returns when all are acknowledged."""
        self.lines = lines
        for _ in range(count):
            key = f"{self.name}-{len(self.tasks)}"
            command = ground_truth.command(self.truth, key, lines, pause_s)
            task = self.fleet.api.submit(*command, key=key, tags=[f"job:{self.name}"])
            self.tasks[key] = task["task_id"]

    def unfinished(self):
        return [t for t in self.listed() if t["completed_at"] is None]

    def ended(self):
        """How many of the children say that they are through."""
        return sum(n for (what, *_), n in ground_truth.told(self.truth).items() if what == "end")

    def listed(self):
        return self.fleet.api.pages(f"/tasks?tag=job:{self.name}")

    def check(self, limit_s=60):
        """Wait for the end, then compare what the server says with what the children did."""
        wait_until("all tasks are final", lambda: not self.unfinished(), limit_s)
        listed = self.listed()
        assert sorted(t["task_id"] for t in listed) == sorted(self.tasks.values())
        ended = [(t["state"], t["exit_code"], t["missing_bytes"]) for t in listed]
        assert set(ended) == {("COMPLETED", 0, 0)}, [t for t in listed if t["exit_code"] != 0]
        runs = {t["task_id"]: t["run_id"] for t in listed}
        once = [
            (what, key, runs[task_id])
            for key, task_id in self.tasks.items()
            for what in ("start", "end")
        ]
        assert ground_truth.told(self.truth) == Counter(once)
        for key, task_id in self.tasks.items():
            assert self.fleet.api.output(task_id) == ground_truth.output(key, self.lines), key
        self.check_events(listed)

    def check_events(self, listed):
        """Each task was taken once and completed once, on the bot that ran it."""
        expected = Counter()
        found = Counter()
        for task in listed:
            expected[task["bot_id"], "request_task", task["task_id"]] += 1
            expected[task["bot_id"], "task_completed", task["task_id"]] += 1
        ours = set(self.tasks.values())
        for bot_id in {task["bot_id"] for task in listed}:
            for event in self.fleet.api.events(bot_id):
                if event["task_id"] in ours:
                    found[bot_id, event["event"], event["task_id"]] += 1
        assert found == expected


def untouched(fleet):
    """What must be the same before and after: the bots' processes, and how often they began."""
    return {
        bot_id: (bot.pids(), len(fleet.api.events(bot_id, "bot_connected")))
        for bot_id, bot in fleet.bots.items()
        if bot_id in {"bot1", "bot2"}
    }


def tidy(fleet):
    """Nothing but what belongs there, in the bots' folders and in the server's."""
    known = {
        *("swarming_bot.zip", "swarming_bot.1.zip", "swarming_bot.2.zip", "swarming.lck"),
        *("slots.json", "enrolled.json", "logs", "tmp", ".skep-bot-directory", "next"),
    }
    for bot in fleet.bots.values():
        assert {path.name for path in bot.home.iterdir()} <= known
        left = {path.name for path in bot.home.glob("next/**/*")}
        assert left <= {"ir", "io", "it", "bot_file.json"}, "the next task's folders are empty"
        tmp = bot.home / "tmp"
        assert not tmp.exists() or list(tmp.iterdir()) == []
        assert bot.zombies() == []
    data = {path.name for path in fleet.server.data.iterdir()}
    expected = {
        "skep.db",
        "skep.db-wal",
        "skep.db-shm",
        "write.lock",
        "wake",
        "config",
        "secrets.keys",
        "blobs",
    }
    assert data <= expected | {"server.url"}, data
    fleet.api.until(fleet.api.submit("true")["task_id"], "COMPLETED")  # says something to all
    sockets = list((fleet.server.data / "wake").iterdir())
    assert len(sockets) == len(fleet.server.workers()), sockets


@pytest.fixture
def sound(fleet):
    """The bots are idle before, and the same processes afterwards; nothing is left over."""
    fleet.api.until_idle("bot1", "bot2")
    before = untouched(fleet)
    yield fleet
    if "SKEP_FAULT" in fleet.server.settings:
        restart(fleet)
    fleet.api.until_idle("bot1", "bot2")
    assert untouched(fleet) == before
    tidy(fleet)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("kills"), "bot1", "bot2", **QUIET) as fleet:
        yield fleet


def restart(fleet):
    """kill -9 to all its processes, then a new start."""
    fleet.server.kill_all()
    fleet.server.start()


def restart_with_fault(fleet, fault):
    """An orderly stop, so that no duty is left to a process that is gone."""
    fleet.server.terminate()
    fleet.server.start(SKEP_FAULT=fault)


def when_it_kills(fleet, act, count=1):
    """Act beside a server with a fault until it has killed so many workers."""
    before = fleet.server.kills()
    errors = []

    def run():
        try:
            act()
        except BaseException as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until("the fault kills", lambda: errors or fleet.server.kills() >= before + count, 20)
    assert errors == []
    return thread


points = pytest.mark.xdist_group("e2e-points")


@points
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("label", LIFE)
def test_no_task_is_lost_or_run_twice_when_the_whole_server_dies_at(sound, label, side):
    fleet = sound
    job = Job(fleet, f"all-{label}-{side}")
    restart_with_fault(fleet, f"{label}.{side}:kill@1")
    submitting = when_it_kills(fleet, lambda: job.submit(2, lines=5))
    restart(fleet)
    submitting.join(60)
    job.check()


@points
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("label", LIFE)
def test_no_task_is_lost_or_run_twice_when_workers_die_again_and_again_at(sound, label, side):
    fleet = sound
    job = Job(fleet, f"worker-{label}-{side}")
    restart_with_fault(fleet, f"{label}.{side}:kill@2")
    submitting = when_it_kills(fleet, lambda: job.submit(4, lines=5))
    submitting.join(60)
    job.check()


@points
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("label", START)
def test_bot_is_enrolled_and_works_when_the_server_dies_while_it_starts_at(sound, label, side):
    fleet = sound
    bot = fleet.add_bot(f"new-{label}-{side}".replace("_", "-").replace(".", "-"))

    def begin():
        token = wait_until("a token", fleet.api.token)
        bot.install(fleet.server.url, token)

    try:
        restart_with_fault(fleet, f"{label}.{side}:kill@1")
        starting = when_it_kills(fleet, begin)
        restart(fleet)
        starting.join(60)
        fleet.api.until_idle(bot.bot_id)
        dimensions = {"pool": ["default"], "id": [bot.bot_id]}
        task = fleet.api.submit("echo", "hello", dimensions=dimensions)
        assert fleet.api.until(task["task_id"])["exit_code"] == 0
        assert len(fleet.api.events(bot.bot_id, "bot_connected")) == 1
        assert fleet.api.events(bot.bot_id, "bot_error") == []
    finally:
        bot.end()
        del fleet.bots[bot.bot_id]


@points
@pytest.mark.parametrize("side", SIDES)
def test_task_is_killed_once_when_the_server_dies_while_it_is_canceled(sound, side):
    fleet = sound
    script = "while :; do echo working; sleep 0.2; done"
    task_id = fleet.api.submit("sh", "-c", script, grace_period_s=1)["task_id"]
    fleet.api.until(task_id, "RUNNING")
    restart_with_fault(fleet, f"cancel_task.{side}:kill@1")
    body = {"kill_running": True, "reason": "enough"}
    canceling = when_it_kills(
        fleet,
        lambda: wait_until("cancel", lambda: fleet.api.post(f"/tasks/{task_id}/cancel", body)),
    )
    restart(fleet)
    canceling.join(60)
    assert fleet.api.until(task_id)["state"] == "KILLED"
    said = [entry["verb"] for entry in fleet.api.pages("/audit") if task_id in entry["target"]]
    assert said.count("task.kill") == 1


@points
@pytest.mark.parametrize("side", SIDES)
def test_task_ends_once_when_the_server_dies_while_the_bot_reports_its_own_failure(sound, side):
    fleet = sound
    task_id = fleet.api.submit("sleep", "600")["task_id"]
    task = fleet.api.until(task_id, "RUNNING")
    restart_with_fault(fleet, f"task_error.{side}:kill@1")
    bot = fleet.bots[task["bot_id"]]
    when_it_kills(fleet, lambda: kill(bot.runner))
    restart(fleet)
    assert fleet.api.until(task_id)["state"] == "BOT_DIED"
    errors = [e for e in fleet.api.events(bot.bot_id, "task_error") if e["task_id"] == task_id]
    assert len(errors) == 1


@points
@pytest.mark.parametrize("side", SIDES)
def test_offer_goes_back_when_the_server_dies_while_it_returns_it(sound, side, request):
    """A bot that never claims what it was offered; another one then gets the task."""
    fleet = sound
    dimensions = {"pool": ["sim"], "id": [f"sim-{side}".replace("_", "-")]}
    post = Connection(fleet.server.url)
    request.addfinalizer(post.close)
    bot = SimBot(post, dimensions["id"][0])
    restart_with_fault(fleet, f"return_offer.{side}:kill@1")
    bot.start()
    task_id = fleet.api.submit("true", dimensions=dimensions)["task_id"]
    first = bot.update(nonblocking=False)
    assert first["lease"]["payload"]["task_id"] == task_id
    when_it_kills(fleet, lambda: None)
    restart(fleet)
    lease = wait_until("the offer again", lambda: bot.update().get("lease"))
    bot.work(lease)
    assert fleet.api.until(task_id)["state"] == "COMPLETED"


@pytest.mark.xdist_group("e2e-random")
def test_no_task_is_lost_or_run_twice_when_the_server_dies_at_random(tmp_path):
    seed = int(os.environ.get("SKEP_TEST_SEED", random.SystemRandom().randrange(10**6)))
    tell(f"SKEP_TEST_SEED={seed} SKEP_TEST_KILLS={KILLS}")
    chance = random.Random(seed)
    over = threading.Event()
    with running_fleet(tmp_path, "bot1", "bot2", **QUIET) as fleet:
        before = untouched(fleet)
        job = Job(fleet, "random")

        def submit():
            while not over.is_set():
                if len(job.tasks) < job.ended() + AHEAD:
                    job.submit(1, lines=25, pause_s=0.02)
                over.wait(0.05)

        submitting = threading.Thread(target=submit, daemon=True)
        submitting.start()
        for number in range(KILLS):
            over.wait(chance.uniform(0.0, 1.5))
            if chance.random() < 0.5:
                tell(f"kill {number}: the worker; {len(job.tasks)} tasks so far")
                fleet.server.kill_worker()
                wait_until("another worker", fleet.server.workers)
            else:
                tell(f"kill {number}: master and worker; {len(job.tasks)} tasks so far")
                restart(fleet)
        over.set()
        submitting.join(60)
        job.check(90)
        fleet.api.until_idle("bot1", "bot2")
        assert untouched(fleet) == before
        tidy(fleet)
    assert len(job.tasks) >= KILLS / 2
