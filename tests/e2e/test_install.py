"""Both lines that make a machine a bot, and what is refused before anything is changed."""

import os
import subprocess

import pytest

from tests.e2e.fleet import clean_environ, running_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-bootstrap")]

LINES = {
    "bootstrap": "curl -sSf '{url}/bootstrap?tok={token}' | python3 -",
    "bot_code": "curl -sSfOJL '{url}/bot_code?tok={token}' && python3 swarming_bot.zip",
}
REFUSED = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def folder(fleet, tmp_path):
    """Runs a line in an empty folder, to its end: exit code and the lines it printed."""

    def run(line, **environ):
        process = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path,
            env=clean_environ(SWARMING_BOT_ID="late", **environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        return process.returncode, process.stdout.decode().splitlines()

    return run


@pytest.mark.parametrize("name", LINES)
def test_curl_line_gives_a_working_bot_in_an_empty_folder(fleet, name):
    bot = fleet.add_bot(f"host-{name}")
    token = fleet.api.token()
    bot.shell(LINES[name].format(url=fleet.server.url, token=token))
    fleet.api.until_idle(bot.bot_id)
    dimensions = {"pool": ["default"], "id": [bot.bot_id]}
    task = fleet.api.submit("echo", "hello", dimensions=dimensions)
    final = fleet.api.until(task["task_id"])
    assert (final["state"], final["exit_code"], final["bot_id"]) == ("COMPLETED", 0, bot.bot_id)
    assert fleet.api.output(task["task_id"]) == b"hello\n"
    enrolled = bot.home / "enrolled.json"
    assert enrolled.stat().st_mode & 0o777 == 0o600
    for archive in bot.home.glob("*.zip"):
        assert archive.stat().st_mode & 0o777 == 0o600
        assert token.encode() not in archive.read_bytes()
    assert token not in bot.logs()
    assert token not in fleet.server.text()


def test_bootstrap_refuses_a_folder_that_is_not_empty(fleet, folder, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    code, lines = folder(LINES["bootstrap"].format(url=fleet.server.url, token=fleet.api.token()))
    assert code != 0
    assert len(lines) == 1
    assert "not empty (precious.txt)" in lines[0]
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_bootstrap_refuses_the_home_directory(fleet, folder, tmp_path):
    line = LINES["bootstrap"].format(url=fleet.server.url, token=fleet.api.token())
    code, lines = folder(line, HOME=str(tmp_path))
    assert code != 0
    assert len(lines) == 1
    assert "home directory" in lines[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", LINES)
def test_curl_line_is_refused_when_the_token_is_used_up(fleet, folder, tmp_path, name):
    token = fleet.api.token()
    fleet.add_bot(f"first-{name}").install(fleet.server.url, token)
    fleet.api.until_idle(f"first-{name}")
    code, lines = folder(LINES[name].format(url=fleet.server.url, token=token))
    assert code != 0
    assert len(lines) == 1
    assert "403" in lines[0]
    assert os.listdir(tmp_path) == []


def test_bot_ends_with_one_line_when_its_token_was_used_up_after_the_download(
    fleet, folder, tmp_path
):
    token = fleet.api.token()
    code, lines = folder(f"curl -sSfOJL '{fleet.server.url}/bot_code?tok={token}'")
    assert (code, lines) == (0, [])
    fleet.add_bot("quicker").install(fleet.server.url, token)
    fleet.api.until_idle("quicker")
    code, lines = folder("exec python3 swarming_bot.zip")
    assert code == REFUSED
    (line,) = [line for line in lines if not line.startswith("2")]
    assert "used up" in line, lines
