"""An independent bot, written from the protocol page alone, against a real server.

It ends with exit code 3 and the row at the first reply that an unmodified upstream bot could
not work with, so that every test here holds the shape of every reply it meets.
"""

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.e2e import ground_truth
from tests.e2e.fleet import FINAL, REPOSITORY, clean_environ, kill_group, running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-strict-bot")]

BOTS_CFG = """\
trusted_dimensions: "pool"
bot_group {
  bot_id_prefix: "sim"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:sim"
}
bot_group {
  bot_id_prefix: "keep"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:keep"
  bot_archive: "keep"
}
bot_group {
  bot_id_prefix: "robot"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:robot"
  system_service_account: "robot@example.com"
}
"""
PACE = [
    *("--poll", "0.4", "0.6", "--ping", "0.3", "0.5"),
    *("--stream", "0.2", "0.4", "--restart-pause", "0.2"),
]
SETTINGS_CFG = 'id_token_audience: "https://a"\n'
HOOKS = "def get_dimensions(bot):\n  return {}\n"
FOREIGN = "f0" * 32
"""A version that no server of ours ever made."""


class StrictBot:
    """One simulated bot process; `with` ends it whatever happens."""

    def __init__(self, fleet, bot_id, *words):
        self.fleet = fleet
        self.bot_id = bot_id
        self.folder = fleet.folder / "strict" / bot_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self.words = words
        self.process = None

    def __enter__(self):
        command = [sys.executable, "-m", "tests.strict_bot", self.fleet.server.url, *PACE]
        command += ["--bot-id", self.bot_id, "--folder", str(self.folder), *self.words]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=clean_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_exc):
        kill_group(self.process.pid)
        self.process.wait()

    def until_idle(self):
        """It was answered a poll, and is idle."""
        wait_until(f"{self.bot_id} to be idle", self._is_idle)

    def _is_idle(self):
        assert self.process.poll() is None, self.log()
        return self.commands() and self.fleet.api.bot(self.bot_id)["status"] == "idle"

    def log(self):
        return (self.folder / "log").read_text()

    def leave(self):
        """SIGTERM; it must end well."""
        self.process.terminate()
        assert self.process.wait(40) == 0, self.log()

    def lines(self):
        path = self.folder / "transcript.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def replies(self, name):
        """The bodies of the replies to that call."""
        found = [line for line in self.lines() if line.get("call") == name]
        return [line["response"]["body"] for line in found if "response" in line]

    def requests(self, name):
        found = [line for line in self.lines() if line.get("call") == name]
        return [line["request"]["body"] for line in found]

    def commands(self):
        """What its polls were answered."""
        return [reply["cmd"] for reply in self.replies("poll")]

    def assert_never_refused(self):
        """Nothing it sent was answered with anything but success."""
        assert [line for line in self.lines() if "error" in line] == []
        answers = [line["response"] for line in self.lines() if "response" in line]
        assert {answer["status"] for answer in answers} <= {200, 302}

    def submit(self, *command, **more):
        dimensions = {"pool": [self.bot_id.partition("-")[0]], "id": [self.bot_id]}
        return self.fleet.api.submit(*command, dimensions=dimensions, **more)["task_id"]

    def runs(self, *command, **more):
        """The final state of a task, and its output."""
        task_id = self.submit(*command, **more)
        wait_until(f"{command} to end", lambda: self._is_over(task_id))
        return self.fleet.api.task(task_id), self.fleet.api.output(task_id)

    def _is_over(self, task_id):
        assert self.process.poll() is None, self.log()
        return self.fleet.api.task(task_id)["state"] in FINAL


@pytest.fixture
def fleet(tmp_path):
    with running_fleet(tmp_path, SKEP_HOLD_MIN_S="1", SKEP_HOLD_MAX_S="1.5") as fleet:
        fleet.server.bots_cfg.with_name("settings.cfg").write_text(SETTINGS_CFG)
        configure(fleet, BOTS_CFG)
        way = f"{fleet.server.url}/bot_code?tok={fleet.api.token()}"
        wait_until("there is an archive", lambda: urllib.request.urlopen(way).close() is None)
        yield fleet


def configure(fleet, text):
    fleet.server.bots_cfg.write_text(text)
    wait_until("it is in force", lambda: fleet.api.get("/config/bots.cfg")["text"] == text)


@pytest.mark.spec(
    "0.3.1.3",
    "0.3.1.4",
    "0.3.1.9",
    "0.5.2.1",
    "0.5.2.2",
    "0.5.2.9",
    "0.5.2.10",
    "1.2.p1",
    "1.3.3.1",
    "1.3.3.2",
    "1.3.3.3",
    "1.3.3.4",
    "1.3.3.5",
    "1.3.3.6",
    "1.3.3.7",
    "1.3.3.8",
    "1.3.p2",
    "1.11.p2",
    "1.11.3.1",
    "1.11.3.2",
    "1.11.3.3",
    "1.11.4.1",
    "1.11.4.2",
    "1.11.4.3",
    "1.11.5.2",
    "1.11.5.4",
    "1.11.5.5",
    "3.3.1.2",
    "3.3.1.6",
    "4.2.1.3",
    "4.4.p1",
    "4.4.1.1",
    "4.4.1.2",
    "4.4.1.3",
    "4.4.1.4",
    "4.4.1.5",
    "4.4.1.6",
    "4.4.1.7",
    "4.4.1.8",
    "4.4.1.10",
    "5.2.1.1",
    "5.2.1.3",
    "5.2.1.4",
    "5.2.1.5",
    "5.2.1.6",
    "5.7.p1",
    "5.3.1.4",
    "5.3.1.5",
    "5.3.1.6",
    "5.7.1.1",
    "5.7.1.4",
    "5.7.2.5",
    "8.2.p1",
    "8.5.p2",
)
def test_upstream_bot_lives_a_whole_life(fleet):
    token = ["--token", fleet.api.token(), "--break-on", "break"]
    with StrictBot(fleet, "sim-1", *token) as bot:
        bot.until_idle()
        assert fleet.api.bot("sim-1")["version"] == fleet.api.bot("sim-1")["expected_version"]
        task, output = bot.runs("sh", "-c", "echo a; sleep 1; echo $A; sleep 1", env={"A": "b"})
        assert (task["state"], task["exit_code"], output) == ("COMPLETED", 0, b"a\nb\n")
        task, output = bot.runs("sh", "-c", "echo bad; exit 3")
        assert (task["state"], task["exit_code"], output) == ("COMPLETED", 3, b"bad\n")
        task, output = bot.runs("/no/such/command")
        assert (task["state"], task["exit_code"]) == ("COMPLETED", 1)
        assert b"cannot start" in output
        assert ends_killed(fleet, bot)["state"] == "KILLED"
        task, _output = bot.runs("break")
        assert (task["state"], task["error"]) == ("BOT_DIED", "run_isolated internal failure 1")
        big = "import sys; sys.stdout.write('x' * 700000)"
        task, output = bot.runs(sys.executable, "-S", "-c", big)
        assert output == b"x" * 700_000
        told_of_new_hooks(fleet, bot)
        bot.until_idle()
        task, output = bot.runs("echo", "after the restart")
        assert (task["state"], output) == ("COMPLETED", b"after the restart\n")
        bot.leave()
        wait_until("it is gone", lambda: fleet.api.bot("sim-1")["status"] == "dead")
        (last, *_before) = fleet.api.events("sim-1")
        assert (last["event"], last["message"]) == ("bot_shutdown", "Signal was received")
        bot.assert_never_refused()
    version = fleet.api.bot("sim-1")["version"]
    with StrictBot(fleet, "sim-1", "--version", version) as bot:
        bot.until_idle()
        task, output = bot.runs("echo", "again")
        assert (task["state"], output) == ("COMPLETED", b"again\n")
        bot.leave()
        bot.assert_never_refused()
    assert set(bot.commands()) == {"rbe", "bot_restart"}


def ends_killed(fleet, bot):
    """A task that is killed while it runs."""
    task_id = bot.submit("sh", "-c", "echo begun; exec sleep 600", grace_period_s=1)
    fleet.api.until(task_id, "RUNNING")
    wait_until("it prints", lambda: fleet.api.output(task_id) == b"begun\n")
    fleet.api.post(f"/tasks/{task_id}/cancel", {"kill_running": True, "reason": "enough"})
    task = fleet.api.until(task_id)
    stops = [reply for reply in bot.replies("task_update") if reply["must_stop"]]
    assert stops
    assert bot.requests("task_update")[-1]["exit_code"] == -15
    return task


def told_of_new_hooks(fleet, bot):
    """The group gets a hooks script and a dimension: one restart, a new session."""
    sessions = len(bot.requests("handshake"))
    scripts = fleet.server.bots_cfg.parent / "scripts"
    scripts.mkdir(exist_ok=True)
    (scripts / "hooks.py").write_text(HOOKS)
    more = '"pool:sim"\n  dimensions: "zone:eu"\n  bot_config_script: "hooks.py"'
    configure(fleet, BOTS_CFG.replace('"pool:sim"', more))
    wait_until("a new session", lambda: len(bot.requests("handshake")) == sessions + 1)
    wait_until("it was told", lambda: fleet.api.bot("sim-1")["dimensions"].get("zone") == ["eu"])
    assert bot.commands().count("bot_restart") == 1
    assert bot.replies("handshake")[-1]["bot_config"] == HOOKS
    assert bot.replies("handshake")[-1]["bot_config_name"] == "hooks.py"
    assert fleet.api.bot("sim-1")["dimensions"]["bot_config"] == ["hooks.py"]
    restarts = fleet.api.events("sim-1", "request_restart")
    assert [event["message"] for event in restarts] == ["new bots.cfg config"]


@pytest.mark.spec("3.3.1.5", "8.6.1.1", "8.6.1.3", "8.6.1.5", "8.2.p1")
def test_foreign_bots_are_never_told_to_update_and_ours_become_the_new_archive(fleet):
    with (
        StrictBot(fleet, "sim-known", "--token", fleet.api.token()) as known,
        StrictBot(fleet, "sim-foreign", "--version", FOREIGN) as foreign,
        StrictBot(fleet, "keep-1", "--token", fleet.api.token()) as kept,
    ):
        bots = (known, foreign, kept)
        for bot in bots:
            bot.until_idle()
        before = fleet.api.bot("sim-known")["expected_version"]
        source = fleet.archive / "__init__.py"
        source.write_text(source.read_text() + "# A new release.\n")
        after = wait_until("the server sees it", lambda: newer(fleet, before))
        wait_until(
            "the known bot became it", lambda: fleet.api.bot("sim-known")["version"] == after
        )
        polls = {bot: len(bot.commands()) for bot in bots}
        wait_until(
            "the others polled on",
            lambda: all(len(bot.commands()) >= polls[bot] + 3 for bot in bots),
        )
        for bot in bots:
            bot.until_idle()
            task, output = bot.runs("echo", bot.bot_id)
            assert (task["state"], output) == ("COMPLETED", f"{bot.bot_id}\n".encode())
        assert known.commands().count("update") == 1
        assert set(foreign.commands()) == {"rbe"}
        assert set(kept.commands()) == {"rbe"}
        assert fleet.api.bot("sim-foreign")["version"] == FOREIGN
        assert fleet.api.bot("keep-1")["version"] == before
        shutdowns = fleet.api.events("sim-known", "bot_shutdown")
        assert [e["message"] for e in shutdowns] == [f"About to restart: Updating to {after}"]
        for bot in bots:
            bot.leave()
            bot.assert_never_refused()


def newer(fleet, before):
    version = fleet.api.bot("sim-known")["expected_version"]
    return version if version != before else ""


@pytest.mark.spec("3.3.1.1", "0.3.1.11")
def test_quarantined_upstream_bot_is_told_to_sleep_and_gets_no_lease(fleet):
    words = ["--version", FOREIGN, "--dimension", "quarantined:no disk", "--longest-sleep", "0.2"]
    with StrictBot(fleet, "sim-1", *words) as bot:
        wait_until("it slept", lambda: len(bot.commands()) >= 3)
        assert fleet.api.bot("sim-1")["status"] == "quarantined"
        assert set(bot.commands()) == {"sleep"}
        assert all(60 <= reply["duration"] < 240 for reply in bot.replies("poll"))
        bot.leave()
        assert bot.requests("claim") == []
        bot.assert_never_refused()


@pytest.mark.spec("1.9.2.1", "1.9.2.2", "1.9.2.3", "1.9.3.1", "1.9.p1", "A.4.1.9")
def test_token_calls_are_answered_as_an_upstream_bot_reads_them(fleet):
    words = ["--version", FOREIGN, "--mint", "oauth_token", "--mint", "id_token"]
    with StrictBot(fleet, "sim-1", *words) as poor, StrictBot(fleet, "robot-1", *words) as rich:
        poor.until_idle()
        rich.until_idle()
        assert poor.replies("oauth_token") == [{"service_account": "none"}]
        assert poor.replies("id_token") == [{"service_account": "none"}]
        (token,) = rich.replies("id_token")
        assert token["service_account"] == "robot@example.com"
        assert token["expiry"] > time.time() + 300
        (refused,) = [line for line in rich.lines() if line.get("call") == "oauth_token"]
        assert refused["response"]["status"] == 400
        fatal = [line["text"] for line in rich.lines() if line.get("note") == "fatal mint"]
        assert fatal == [refused["response"]["body"]["error"]]
        poor.leave()
        rich.leave()
        poor.assert_never_refused()


def test_four_upstream_bots_run_forty_tasks_once_each(fleet):
    names = [f"sim-{number}" for number in range(4)]
    truth = fleet.folder / "truth"
    bots = [StrictBot(fleet, name, "--version", FOREIGN) for name in names]
    with bots[0], bots[1], bots[2], bots[3]:
        for bot in bots:
            bot.until_idle()
        keys = [f"task{number}" for number in range(40)]
        tasks = {key: submit(fleet, truth, key) for key in keys}
        ends = {key: fleet.api.until(task_id) for key, task_id in tasks.items()}
        assert {(task["state"], task["exit_code"]) for task in ends.values()} == {("COMPLETED", 0)}
        for key, task_id in tasks.items():
            assert fleet.api.output(task_id) == ground_truth.output(key)
        told = ground_truth.told(truth)
        assert set(told.values()) == {1}
        assert len(told) == 80
        claims = [reply["cmd"] for bot in bots for reply in bot.replies("claim")]
        assert claims.count("run") == 40
        assert {task["bot_id"] for task in ends.values()} == set(names)
        for bot in bots:
            bot.leave()
            bot.assert_never_refused()


def submit(fleet, truth, key):
    command = ground_truth.command(truth, key)
    return fleet.api.submit(*command, dimensions={"pool": ["sim"]})["task_id"]


@pytest.mark.spec("0.5.2.8", "A.4.1.2")
def test_upstream_bots_work_on_when_the_server_was_killed(fleet):
    truth = fleet.folder / "truth"
    bots = [StrictBot(fleet, f"sim-{number}", "--version", FOREIGN) for number in range(2)]
    with bots[0], bots[1]:
        for bot in bots:
            bot.until_idle()
        tasks = {key: submit(fleet, truth, key) for key in map(str, range(6))}
        wait_until("they run", lambda: len(ground_truth.told(truth)) >= 3)
        fleet.server.kill_all()
        fleet.server.start()
        for key, task_id in tasks.items():
            assert fleet.api.until(task_id)["state"] == "COMPLETED"
            assert fleet.api.output(task_id) == ground_truth.output(key)
        assert set(ground_truth.told(truth).values()) == {1}
        for bot in bots:
            bot.until_idle()
            bot.leave()
