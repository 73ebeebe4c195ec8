"""Releases reach the fleet ring by ring, and a bad one is taken back by itself."""

import json
import zipfile

import pytest

from tests.e2e.fleet import Api, Refused, running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-rollout")]

EARLY, LATE = ("bot1", "bot2"), ("bot4", "bot5")
"""Bots with channel numbers 6 and 45, and 78 and 65."""
BOTS = (*EARLY, *LATE)
PIN = """\
bot_group {{
  bot_id_prefix: "{bot_id}"
  auth {{ require_enrolled_secret: true }}
  dimensions: "pool:default"
  bot_archive_pin: "{release}"
}}
"""


@pytest.fixture
def fleet(tmp_path):
    """Two servers on one data folder; each has an early bot and a late one."""
    with running_fleet(tmp_path, EARLY[0], LATE[0]) as fleet:
        other = fleet.add_server()
        other.start()
        fleet.add_bots(EARLY[1], LATE[1], server=other)
        yield fleet


def make_zip(fleet, name, **changes):
    """The bot's sources with some members changed, as a file; the path."""
    path = fleet.folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for source in sorted(fleet.archive.rglob("*.py")):
            member = f"bot_client/{source.relative_to(fleet.archive).as_posix()}"
            text = source.read_text()
            old, new = changes.get(source.stem, ("", ""))
            assert old in text
            archive.writestr(member, text.replace(old, new, 1))
        archive.writestr("__main__.py", (fleet.archive / "zip_main.py").read_text())
    return path


def upload(fleet, name, **changes):
    """The id of a new release."""
    done = fleet.cli("archive", "upload", str(make_zip(fleet, name, **changes)))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def good(fleet):
    return upload(fleet, "good.zip", __init__=('"""', '"""(A new release.) '))


def roll_out(fleet, release, *words):
    done = fleet.cli("archive", "rollout", "start", release, *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rollout(fleet):
    return fleet.api.get("/rollout")["rollout"]


def releases(fleet, *bot_ids):
    """The releases that bots run."""
    found = {bot_id: fleet.api.bot(bot_id) for bot_id in bot_ids}
    return {bot_id: bot["version"] for bot_id, bot in found.items()}


def run_new(fleet, before, *bot_ids):
    """Do all of these run something else than before, and wait for work?"""
    bots = [fleet.api.bot(bot_id) for bot_id in bot_ids]
    return all(b["version"] != before[b["bot_id"]] and b["status"] == "idle" for b in bots)


def works(fleet, *bot_ids):
    """Each of these bots runs a task."""
    for bot_id in bot_ids:
        dimensions = {"pool": ["default"], "id": [bot_id]}
        task = fleet.api.submit("echo", bot_id, dimensions=dimensions)
        final = fleet.api.until(task["task_id"])
        assert (final["state"], final["exit_code"]) == ("COMPLETED", 0)


def test_release_goes_ring_by_ring_through_both_servers_and_back_with_one_command(fleet):
    before = releases(fleet, *BOTS)
    first = fleet.api.get("/rollout")["stable"]
    release = good(fleet)
    roll_out(fleet, release, "--rings", "50", "--soak", "1h")
    wait_until("the ring runs it", lambda: run_new(fleet, before, *EARLY))
    wait_until("it is seen", lambda: rollout(fleet)["bots"]["healthy"] == 2)
    assert releases(fleet, *LATE) == {bot_id: before[bot_id] for bot_id in LATE}
    works(fleet, *BOTS)
    assert fleet.cli("archive", "rollout", "halt", "--reason", "tea").returncode == 0
    assert rollout(fleet)["stage"] == "halted"
    fleet.cli("archive", "rollback")
    wait_until("all are back", lambda: releases(fleet, *BOTS) == before)
    fleet.api.until_idle(*BOTS)
    roll_out(fleet, release, "--rings", "50", "--soak", "1s")
    wait_until("every bot runs it", lambda: run_new(fleet, before, *BOTS), 60)
    wait_until("it is stable", lambda: fleet.api.get("/rollout")["stable"] == release)
    other = fleet.servers[1].url
    seen = Api(other, fleet.api.key).get("/rollout")
    assert (seen["stable"], seen["former"]) == (release, first)
    works(fleet, *BOTS)
    actors = {e["actor"] for e in fleet.api.pages("/audit") if e["verb"] == "rollout.advance"}
    assert actors == {"rollout"}


def events_with(fleet, bot_id, text):
    return [e for e in fleet.api.events(bot_id, "bot_error") if text in e["message"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loop": ("import", "this is no Python\nimport")}, "New bot code is bad: proc exit"),
        (
            {
                "supervisor": (
                    "import",
                    "import sys\nif sys.argv[1] == 'start_slave': sys.exit(7)\nimport",
                )
            },
            "died on probation: exit status 7",
        ),
    ],
    ids=["fails its self-test", "dies at start"],
)
@pytest.mark.control("archive.rollout")
def test_bad_release_is_taken_back_by_itself_while_the_rest_works_on(fleet, changes, said):
    before = releases(fleet, *BOTS)
    starters = {bot_id: bot.starter for bot_id, bot in fleet.bots.items()}
    release = upload(fleet, "bad.zip", **changes)
    roll_out(fleet, release, "--rings", "50", "--soak", "0")
    works(fleet, *LATE)
    wait_until("it is taken back", lambda: rollout(fleet)["stage"] == "rolled_back", 60)
    ended = rollout(fleet)
    assert (ended["percent"], ended["failures"] != []) == (50, True)
    assert all(line.startswith(EARLY) for line in ended["failures"])
    assert any(events_with(fleet, bot_id, said) for bot_id in EARLY)
    fleet.api.until_idle(*BOTS, limit_s=90)
    assert releases(fleet, *BOTS) == before
    assert {fleet.api.bot(bot_id)["quarantine_reason"] for bot_id in BOTS} <= {"", None}
    works(fleet, *BOTS)
    assert {bot_id: bot.starter for bot_id, bot in fleet.bots.items()} == starters
    for bot_id in LATE:
        assert fleet.api.events(bot_id, "request_update") == []
    with pytest.raises(Refused, match="409"):
        fleet.api.post("/rollout/halt", {})


def test_canary_percent_and_pin_decide_for_the_bots_they_name(fleet):
    before = releases(fleet, *BOTS)
    release = good(fleet)
    done = fleet.cli("archive", "canary", release, "--percent", "50")
    assert done.returncode == 0, done.stderr
    wait_until("the canaries run it", lambda: run_new(fleet, before, *EARLY))
    path = fleet.server.bots_cfg
    path.write_text(path.read_text() + PIN.format(bot_id=LATE[0], release=release))
    wait_until("the pinned bot runs it", lambda: run_new(fleet, before, LATE[0]))
    fleet.cli("archive", "canary", release, "--percent", "0")
    unpinned = (*EARLY, LATE[1])
    wait_until(
        "the canaries are back",
        lambda: releases(fleet, *unpinned) == {bot_id: before[bot_id] for bot_id in unpinned},
    )
    fleet.api.until_idle(*BOTS)
    assert run_new(fleet, before, LATE[0])
    works(fleet, *BOTS)


def test_changed_sources_of_the_server_begin_a_rollout_and_a_bad_one_quarantines_few(fleet):
    rule = "rollout { ring_percent: 50 soak_secs: 3600 max_failed_percent: 10 }"
    (fleet.server.bots_cfg.parent / "settings.cfg").write_text(rule)
    wait_until(
        "the rule is in force", lambda: rule in str(fleet.api.get("/config")["files"].values())
    )
    before = releases(fleet, *BOTS)
    path = fleet.archive / "errors.py"
    path.write_text(path.read_text() + "\nraise ImportError('on purpose')\n")
    wait_until("a rollout began", lambda: rollout(fleet))
    wait_until("it is taken back", lambda: rollout(fleet)["stage"] == "rolled_back", 60)
    assert rollout(fleet)["started_by"] == "rollout"
    fleet.api.until_idle(*BOTS, limit_s=90)
    assert releases(fleet, *BOTS) == before
    works(fleet, *BOTS)
