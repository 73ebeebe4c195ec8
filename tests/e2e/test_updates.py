"""The fleet follows the archive and bots.cfg, and a bad one never takes over."""

import contextlib
import zipfile

import pytest

from tests.e2e import ground_truth
from tests.e2e.fleet import running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-updates")]

BOTS = ("bot1", "bot2")


@pytest.fixture
def fleet(tmp_path):
    with running_fleet(tmp_path, *BOTS) as fleet:
        yield fleet


def versions(fleet):
    return {fleet.api.bot(bot_id)["version"] for bot_id in BOTS}


def expected(fleet):
    return fleet.api.bot(BOTS[0])["expected_version"]


def all_run(fleet, version):
    """Every bot runs that version and is idle."""
    found = [fleet.api.bot(bot_id) for bot_id in BOTS]
    return all(bot["version"] == version and bot["status"] == "idle" for bot in found)


def works(fleet):
    """Every bot runs a task."""
    for bot_id in BOTS:
        dimensions = {"pool": ["default"], "id": [bot_id]}
        task = fleet.api.submit("echo", bot_id, dimensions=dimensions)
        final = fleet.api.until(task["task_id"])
        assert (final["state"], final["exit_code"]) == ("COMPLETED", 0)
    return True


def edit(path, old, new):
    """Change a source file of the bot, at once."""
    text = path.read_text()
    assert old in text
    part = path.with_suffix(".part")
    part.write_text(text.replace(old, new, 1))
    part.replace(path)


def test_every_bot_runs_a_new_archive_soon_and_a_running_task_is_not_lost(fleet):
    before = expected(fleet)
    truth = fleet.folder / "truth"
    on = {"pool": ["default"], "id": ["bot1"]}
    command = ground_truth.command(truth, "long", 100, 0.05)
    task_id = fleet.api.submit(*command, dimensions=on)["task_id"]
    wait_until("the task runs", lambda: ground_truth.told(truth))
    edit(fleet.archive / "__init__.py", '"""', '"""(A new release.) ')
    after = wait_until("the server sees it", lambda: expected(fleet) != before and expected(fleet))
    wait_until("bot2 runs it", lambda: fleet.api.bot("bot2")["version"] == after)
    assert fleet.api.bot("bot1")["version"] == before
    assert fleet.api.task(task_id)["state"] == "RUNNING"
    task = fleet.api.until(task_id)
    assert (task["state"], task["exit_code"]) == ("COMPLETED", 0)
    assert fleet.api.output(task_id) == ground_truth.output("long", 100)
    assert sorted(ground_truth.told(truth).values()) == [1, 1]
    wait_until("every bot runs it", lambda: all_run(fleet, after))
    assert works(fleet)
    for bot in fleet.bots.values():
        assert bot.zombies() == []
        shutdowns = fleet.api.events(bot.bot_id, "bot_shutdown")
        assert [e["message"] for e in shutdowns] == [f"About to restart: Updating to {after}"]
        assert fleet.api.events(bot.bot_id, "bot_error") == []
        last_good = bot.home / "swarming_bot.zip"
        with zipfile.ZipFile(last_good) as archive:
            assert b"(A new release.)" in archive.read("bot_client/__init__.py")


def test_server_keeps_the_last_good_archive_when_a_source_does_not_parse(fleet):
    before = expected(fleet)
    edit(fleet.archive / "loop.py", "import", "this is no Python\nimport")
    wait_until("the server tells", lambda: "bot_archive" in readyz(fleet))
    assert works(fleet)
    assert (versions(fleet), expected(fleet)) == ({before}, before)
    edit(fleet.archive / "loop.py", "this is no Python\n", "")
    wait_until("the server is content", lambda: readyz(fleet) == "ready\n")


def readyz(fleet):
    return fleet.api.send("GET", "/readyz")[0].decode()


def zipped(fleet, member, old, new):
    """An archive made elsewhere, with one member changed: nobody checks its syntax."""
    path = fleet.folder / "made.zip.part"
    with zipfile.ZipFile(path, "w") as archive:
        for source in sorted(fleet.archive.rglob("*.py")):
            name = f"bot_client/{source.relative_to(fleet.archive).as_posix()}"
            text = source.read_text()
            if name == member:
                assert old in text
                text = text.replace(old, new, 1)
            archive.writestr(name, text)
            if name == "bot_client/zip_main.py":
                archive.writestr("__main__.py", text)
    path.replace(fleet.folder / "made.zip")


@pytest.fixture
def fleet_of_a_zip(tmp_path):
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(running_fleet(tmp_path))
        zipped(fleet, "bot_client/loop.py", "import", "import")
        fleet.server.environ["SKEP_BOT_ARCHIVE"] = str(tmp_path / "made.zip")
        fleet.server.terminate()
        fleet.server.start()
        fleet.add_bots(*BOTS)
        yield fleet


def test_archive_that_cannot_start_is_never_run_and_an_event_names_the_reason(fleet_of_a_zip):
    fleet = fleet_of_a_zip
    good = expected(fleet)
    pids = [bot.pids() for bot in fleet.bots.values()]
    zipped(fleet, "bot_client/loop.py", "import", "this is no Python\nimport")
    for bot_id in BOTS:
        wait_until(
            f"{bot_id} tells", lambda i=bot_id: errors(fleet, i, "New bot code is bad: proc exit")
        )
        (text,) = errors(fleet, bot_id, "")
        assert "this is no Python" in text
        wait_until(f"{bot_id} is out", lambda i=bot_id: quarantined(fleet, i))
    assert expected(fleet) != good
    assert versions(fleet) == {good}
    repair(fleet)
    assert [bot.starter for bot in fleet.bots.values()] == [starter for starter, _ in pids]


def quarantined(fleet, bot_id):
    return "Failed to self-update the bot" in str(fleet.api.bot(bot_id)["quarantine_reason"])


def test_archive_that_dies_at_start_is_taken_back_and_the_bots_work_on(fleet_of_a_zip):
    fleet = fleet_of_a_zip
    good = expected(fleet)
    starters = [bot.starter for bot in fleet.bots.values()]
    dies = "import sys\nif sys.argv[1] == 'start_slave': sys.exit(7)\nimport"
    zipped(fleet, "bot_client/supervisor.py", "import", dies)
    bad = wait_until("the server sees it", lambda: expected(fleet) != good and expected(fleet))
    reason = f"version {bad} died on probation: exit status 7"
    for bot_id in BOTS:
        wait_until(f"{bot_id} tells", lambda i=bot_id: errors(fleet, i, reason))
    assert works(fleet)
    assert versions(fleet) == {good}
    assert [bot.starter for bot in fleet.bots.values()] == starters
    repair(fleet)


def repair(fleet):
    """A good archive again: every bot takes it, and works."""
    before = expected(fleet)
    zipped(fleet, "bot_client/loop.py", "import", "# repaired\nimport")
    after = wait_until("the server sees it", lambda: expected(fleet) != before and expected(fleet))
    wait_until("every bot runs it", lambda: all_run(fleet, after), 60)
    assert works(fleet)


def errors(fleet, bot_id, text):
    found = [event["message"] for event in fleet.api.events(bot_id, "bot_error")]
    return [message for message in found if text in message]


def test_new_dimension_arrives_when_bots_cfg_changes(fleet):
    starters = [bot.starter for bot in fleet.bots.values()]
    edit(fleet.server.bots_cfg, '"pool:default"', '"pool:default"\n  dimensions: "zone:eu"')
    for bot_id in BOTS:
        wait_until(f"{bot_id} has it", lambda i=bot_id: dimension(fleet, i, "zone") == ["eu"])
    fleet.api.until_idle(*BOTS)
    task = fleet.api.submit("true", dimensions={"pool": ["default"], "zone": ["eu"]})
    assert fleet.api.until(task["task_id"])["exit_code"] == 0
    for bot_id in BOTS:
        restarts = fleet.api.events(bot_id, "request_restart")
        assert [event["message"] for event in restarts] == ["new bots.cfg config"]
    assert [bot.starter for bot in fleet.bots.values()] == starters


def dimension(fleet, bot_id, key):
    return fleet.api.bot(bot_id)["dimensions"].get(key)


def test_last_good_bots_cfg_stays_and_the_mistake_is_shown_when_it_does_not_parse(fleet):
    path = fleet.server.bots_cfg
    good = path.read_text()
    path.write_text(good + "bot_group {\n  dimensions 7\n}\n")
    line = len(good.splitlines()) + 2
    config = wait_until("the mistake is shown", lambda: refused(fleet))
    assert config["text"] == good
    assert f"{line}:" in config["error"]
    assert f"bots.cfg:{line}:" in fleet.server.text()
    assert works(fleet)
    path.write_text(good)
    wait_until("the mistake is gone", lambda: refused(fleet) is None)


def refused(fleet):
    config = fleet.api.get("/config/bots.cfg")
    return config if config["error"] else None
