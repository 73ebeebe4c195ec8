"""The configuration over its life, with real processes: applied, taken back, kept, overtaken."""

import contextlib
import json

import pytest

from tests.e2e.fleet import BOTS_CFG, Connection, running_fleet, wait_until
from tests.fakes.sim_bot import SimBot

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-config")]

SIMS = 20
RACKED = BOTS_CFG.replace('"pool:default"', '"pool:default" dimensions: "rack:7"')
LOCKED = BOTS_CFG.replace(
    'auth { ip_whitelist: "loopback" }', "auth { require_enrolled_secret: true }"
)


@pytest.fixture
def fleet(tmp_path):
    """One server, one real bot, for one test: what is applied stays in force."""
    with running_fleet(tmp_path, "bot1") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Somebody's working copy, elsewhere than the server's folder."""
    return tmp_path_factory.mktemp("copy")


def config(fleet, *words, code=0):
    """`skep config ...`; its stdout."""
    done = fleet.cli("config", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    return (done.stdout + done.stderr).decode() if code else done.stdout.decode()


def apply(fleet, folder, text, *words, code=0):
    (folder / "bots.cfg").write_text(text)
    return config(fleet, "apply", str(folder), "--reason", "a test", "--yes", *words, code=code)


def connections(fleet):
    return len(fleet.api.events("bot1", "bot_connected"))


def has_rack(fleet):
    return fleet.api.bot("bot1")["dimensions"].get("rack") == ["7"]


def after_restart(fleet, before):
    wait_until("bot1 to restart", lambda: connections(fleet) > before)
    fleet.api.until_idle("bot1")


@pytest.mark.spec("7.5.1.3")
def test_running_bot_restarts_into_what_is_applied_and_back(fleet, folder):
    before, pids = connections(fleet), fleet.bots["bot1"].pids()
    (folder / "bots.cfg").write_text(RACKED)
    told = json.loads(config(fleet, "preview", str(folder), "-o", "json"))
    assert [(bot["bot_id"], bot["restarts"]) for bot in told["bots"]] == [("bot1", True)]
    assert told["bots"][0]["dimensions_added"] == ["rack:7"]
    apply(fleet, folder, RACKED)
    after_restart(fleet, before)
    wait_until("it has told its rack", lambda: has_rack(fleet))
    task = fleet.api.submit("true", dimensions={"pool": ["default"], "rack": ["7"]})
    assert fleet.api.until(task["task_id"])["exit_code"] == 0
    before = connections(fleet)
    first = fleet.api.get("/config/revisions")["items"][-1]["rev"]
    config(fleet, "rollback", str(first), "--reason", "no rack", "--yes")
    after_restart(fleet, before)
    wait_until("it has told that it has no rack", lambda: not has_rack(fleet))
    assert fleet.bots["bot1"].pids()[0] == pids[0]
    history = config(fleet, "history").splitlines()
    assert history[0].endswith(f"back to revision {first}: no rack")
    verbs = [entry["verb"] for entry in fleet.api.get("/audit")["items"]]
    assert verbs[:3] == ["config.rollback", "task.create", "config.apply"]


@pytest.mark.spec("7.5.1.5")
def test_bot_that_runs_a_task_restarts_after_it(fleet, folder):
    task = fleet.api.submit("sleep", "4", dimensions={"pool": ["default"]})
    fleet.api.until(task["task_id"], "RUNNING")
    before = connections(fleet)
    apply(fleet, folder, RACKED)
    done = fleet.api.until(task["task_id"], "COMPLETED")
    assert (done["exit_code"], connections(fleet)) == (0, before)
    after_restart(fleet, before)
    wait_until("it has told its rack", lambda: has_rack(fleet))


def test_restart_of_the_server_keeps_what_was_applied_and_a_changed_file_wins(fleet, folder):
    apply(fleet, folder, RACKED)
    applied = fleet.api.get("/config")
    assert applied["on_disk"]["state"] == "differs"
    fleet.server.terminate()
    fleet.server.start()
    fleet.api.until_idle("bot1")
    found = fleet.api.get("/config")
    assert (found["rev"], found["digest"]) == (applied["rev"], applied["digest"])
    assert "differ from what is in force" in fleet.cli("config", "show").stderr.decode()
    fleet.server.bots_cfg.write_text(BOTS_CFG + "# newer\n")
    wait_until("the file", lambda: fleet.api.get("/config")["author"] == "bots.cfg")
    found = fleet.api.get("/config")
    assert (found["rev"], found["on_disk"]["state"]) == (applied["rev"] + 1, "in_force")
    wait_until("bot1 to lose its rack", lambda: not has_rack(fleet))
    fleet.api.until_idle("bot1")


@contextlib.contextmanager
def simulated(fleet):
    """Bots that are let in by their address alone."""
    connection = Connection(fleet.api.url)
    try:
        yield [SimBot(connection, f"sim{n}").start() for n in range(SIMS)]
    finally:
        connection.close()


@pytest.mark.spec("7.5.1.4")
def test_change_that_drops_more_than_five_percent_needs_the_number(fleet, folder):
    fleet.server.bots_cfg.write_text(BOTS_CFG)
    wait_until("the file", lambda: fleet.api.get("/config")["files"]["bots.cfg"] == BOTS_CFG)
    with simulated(fleet) as sims:
        one = LOCKED.replace('bot_id_prefix: "sim"', 'bot_id: "sim0"') + (
            'bot_group {\n  bot_id_prefix: "sim"\n  auth { ip_whitelist: "loopback" }\n'
            '  dimensions: "pool:sim"\n}\n'
        )
        apply(fleet, folder, one)  # 1 of 21
        sims[0].poll()
        sims[1].poll()
        assert [sims[0].status, sims[1].status] == [401, 200]
        apply(fleet, folder, BOTS_CFG)
        said = apply(fleet, folder, LOCKED, code=9)
        assert f"would drop {SIMS} of {SIMS + 1} live bots" in said
        assert f"--drop {SIMS} goes on" in said
        assert "not 3" in apply(fleet, folder, LOCKED, "--drop", "3", code=9)
        fleet.server.bots_cfg.write_text(LOCKED)
        wait_until("refusal", lambda: fleet.api.get("/config")["on_disk"]["state"] == "kept_out")
        on_disk = fleet.api.get("/config")["on_disk"]
        assert f"--drop {SIMS} does it all the same" in on_disk["mistakes"][0]
        sims[1].poll()
        assert sims[1].status == 200
        place = str(fleet.server.bots_cfg.parent)
        words = ("--reason", "so be it", "--yes", "--drop", str(SIMS))
        config(fleet, "apply", place, *words)
        sims[1].poll()
        assert sims[1].status == 401
        assert fleet.api.get("/config")["on_disk"]["state"] == "in_force"
        fleet.api.until_idle("bot1")


@pytest.mark.spec("7.5.1.2", "2.7.p1")
def test_second_server_knows_at_once_what_the_first_was_told(fleet, folder):
    """A bot goes from one server to the other and never meets the older configuration."""
    fleet.server.bots_cfg.write_text(BOTS_CFG + "# two\n")
    wait_until("the file", lambda: "# two" in fleet.api.get("/config")["files"]["bots.cfg"])
    other = fleet.add_server()
    other.start()
    first, second = Connection(fleet.api.url), Connection(other.url)
    try:
        version = SimBot(second, "sim-one").handshake()["bot_version"]  # each URL has its own
        bot = SimBot(first, "sim-two")
        texts = [BOTS_CFG.replace('"pool:sim"', f'"pool:sim{n}"') for n in range(10)]
        for n, text in enumerate(texts):
            apply(fleet, folder, text)
            bot.post = first
            bot.session_id = f"sim-two/{n}"
            bot.handshake()
            bot.post, bot.version = second, version
            assert (bot.poll().get("cmd"), bot.dims["pool"]) == ("rbe", [f"sim{n}"]), bot.text
    finally:
        first.close()
        second.close()
        other.terminate()
