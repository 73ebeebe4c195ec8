"""A whole bot: enrolment, refusals, broken replies, interpreters, subcommands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bot_client import archive
from tests.bot_client.conftest import BotProcess
from tests.fakes.scripted_server import Fault, ScriptedServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def find_interpreters() -> list[str]:
    """``SKEP_TEST_PYTHONS`` (split at colons), else what PATH and pyenv have; 3.9 and later."""
    wanted = os.environ.get("SKEP_TEST_PYTHONS")
    if wanted:
        return wanted.split(os.pathsep)
    found = []
    for minor in range(9, 16):
        name = f"python3.{minor}"
        places = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        path = str(places[-1]) if places else shutil.which(name)
        if path is not None and subprocess.run([path, "-c", ""], check=False).returncode == 0:
            found.append(path)
    return found or [sys.executable]


INTERPRETERS = find_interpreters()


@pytest.mark.parametrize("python", INTERPRETERS, ids=[Path(p).name for p in INTERPRETERS])
def test_archive_works_isolated_and_without_site_packages(
    bot: BotProcess, server: ScriptedServer, python: str
) -> None:
    sys.stdout.write(f"interpreter: {python}\n")
    bot.install()
    bot.start(python)
    server.wait_idle()
    task = server.wait_lease_done(server.submit(["/bin/sh", "-c", "echo hi; exit 3"]))
    assert (bytes(task.output), task.final["exit_code"]) == (b"hi\n", 3)
    bot.signal()
    assert bot.wait() == 0
    assert bot.console() == ""


def test_python_too_old_is_told_in_one_line(bot: BotProcess) -> None:
    old = sorted(Path.home().glob(".pyenv/versions/3.[678].*/bin/python3.[678]"))
    if not old:
        pytest.skip("no interpreter older than 3.9 here")
    bot.install()
    done = subprocess.run([old[0], str(bot.zip)], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("skep bot: Python 3.9 or later is needed")


def test_bot_enrols_with_the_zip_comment_and_forgets_it(
    bot: BotProcess, server: ScriptedServer
) -> None:
    server.tokens["token-1"] = "host-secret"
    server.secret_needed = "host-secret"
    bot.env["SWARMING_BOT_ID"] = "host7--3"
    bot.start_idle(comment=b"token-1")
    asked = server.named("enroll")[0].body
    assert (asked["bot_id"], asked["token"]) == ("host7--3", "token-1")
    assert len(asked["secret"]) >= 43
    kept = bot.dir / "enrolled.json"
    assert json.loads(kept.read_text()) == {
        "server": server.url,
        "host_id": "host7",
        "secret": "host-secret",
    }
    assert kept.stat().st_mode & 0o777 == 0o600
    assert archive.read_comment(str(bot.zip)) == ""
    bot.signal()
    bot.wait()
    bot.start()
    server.wait_idle()
    assert len(server.named("enroll")) == 1


def test_refused_enrolment_ends_with_code_3_and_a_clear_line(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.install()
    bot.env["SKEP_BOOTSTRAP_TOKEN"] = "wrong"
    bot.start()
    assert bot.wait() == 3
    assert "enrolment of bot1 was refused" in bot.console()
    assert "wrong" not in bot.console()


@pytest.mark.spec("A.4.1.1")
def test_refused_handshake_is_tried_again(bot: BotProcess, server: ScriptedServer) -> None:
    server.fault("handshake", Fault(status=401), Fault(status=403))
    bot.start_idle()
    assert len(server.named("handshake")) == 3
    assert bot.console().count("does not let this bot in") == 2


@pytest.mark.parametrize(
    "extra",
    [{"bot_group_cfg": {"x": 1}}, {"rbe": {"instance": "a"}}, {"rbe": 3}],
    ids=["group without dimensions", "rbe without hybrid_mode", "rbe no object"],
)
def test_malformed_handshake_is_tried_again(
    bot: BotProcess, server: ScriptedServer, extra: dict
) -> None:
    server.handshake_extra = extra
    bot.install()
    bot.start()
    server.wait_calls("handshake", 2)
    server.handshake_extra = {}
    server.wait_idle()


FAULTS = {
    "400": Fault(status=400),
    "401": Fault(status=401),
    "403": Fault(status=403),
    "404 text": Fault(status=404),
    "404 json": Fault(status=404, headers={"Content-Type": "application/json"}),
    "429": Fault(status=429),
    "500": Fault(status=500),
    "302": Fault(status=302, headers={"Location": "/elsewhere"}),
    "empty": Fault(status=200, body=b""),
    "html": Fault(status=200, body=b"<html>"),
    "null": Fault(status=200, body=b"null"),
    "no content": Fault(status=200, body=b"{}"),
    "error": Fault(status=200, body=b'{"error": "x"}'),
    "reset": Fault(drop=True),
}


@pytest.mark.parametrize("name", ["poll", "rbe/session/create", "rbe/session/update"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_fault_on_an_idle_call_is_survived(
    bot: BotProcess, server: ScriptedServer, name: str, fault: Fault
) -> None:
    server.fault(name, fault)
    bot.start_idle()
    if name == "poll":
        first, second = (c.body["request_uuid"] for c in server.named("poll")[:2])
        assert first == second


@pytest.mark.parametrize("name", ["poll", "rbe/session/update"])
def test_idle_call_that_is_turned_away_comes_back_when_it_was_told_to(
    bot: BotProcess, server: ScriptedServer, name: str
) -> None:
    server.fault(name, Fault(status=429, headers={"Retry-After": "1"}))
    bot.start_idle()
    first, second = (call.at for call in server.named(name)[:2])
    assert second - first >= 1.0


def test_attributes_and_friends_need_no_server(bot: BotProcess, server: ScriptedServer) -> None:
    version = bot.install()

    def ask(*words: str) -> str:
        command = [sys.executable, "-I", "-S", str(bot.zip), *words]
        return subprocess.run(
            command, env=bot.env, capture_output=True, text=True, check=True
        ).stdout

    assert ask("version") == f"{version}\n"
    assert ask("server") == f"{server.url}\n"
    found = json.loads(ask("attributes"))
    assert (found["dimensions"]["id"], "pool" in found["dimensions"]) == (["bot1"], False)
    assert found["version"] == version
    assert found["state"]["client"]["name"] == "skep"
    manifest = {
        "task_id": "11",
        "bot_id": "bot1",
        "dimensions": {},
        "bot_dimensions": {},
        "command": ["/bin/echo", "out"],
        "hard_timeout": 5,
        "io_timeout": None,
        "grace_period": 1,
    }
    (bot.dir / "m.json").write_text(json.dumps(manifest))
    assert ask("run_manifest", str(bot.dir / "m.json")) == "out\n"
    assert server.calls == []
    assert "server" in ask("doctor")


@pytest.mark.parametrize(
    ("words", "code"), [(["dance"], 2), (["start", "--x"], 2), (["run_manifest"], 2)]
)
def test_usage_errors_exit_2(bot: BotProcess, words: list[str], code: int) -> None:
    bot.install()
    bot.start(sys.executable, *words)
    assert bot.wait() == code


def test_bad_bot_id_and_bad_config_exit_78(bot: BotProcess) -> None:
    bot.install()
    bot.env["SWARMING_BOT_ID"] = "Not An Id"
    bot.start()
    assert bot.wait() == 78
    bot.env["SWARMING_BOT_ID"] = "bot1"
    from tests.fakes import bot_zip

    bot_zip.write(bot.zip, bot_zip.members("http://127.0.0.1:1/"))
    bot.start()
    assert bot.wait() == 78


HOOKS = """
def get_dimensions(bot):
    return {"id": [bot.id], "shelf": ["7"]}
def get_state(bot):
    return {"mine": 1}
def on_before_poll(bot):
    raise RuntimeError("hook trouble")
"""
INJECTED = """
def get_dimensions(bot):
    return {"id": [bot.id], "shelf": ["8"]}
"""


@pytest.mark.spec("A.1.1.4", "A.2.1.1")
def test_hooks_of_archive_and_handshake_are_obeyed(bot: BotProcess, server: ScriptedServer) -> None:
    server.handshake_extra = {"bot_config": INJECTED, "bot_config_name": "shelf.py"}
    bot.start_idle(hooks=HOOKS)
    assert server.named("handshake")[0].body["dimensions"] == {"id": ["bot1"], "shelf": ["7"]}
    dimensions = server.named("poll")[-1].body["dimensions"]
    assert dimensions == {
        "id": ["bot1"],
        "shelf": ["8"],
        "pool": ["default"],
        "bot_config": ["shelf.py"],
    }
    texts = [call.body["message"] for call in server.named("event")]
    assert len([text for text in texts if "on_before_poll" in text]) == 1


@pytest.mark.spec("6.6.p1")
def test_broken_injected_hooks_quarantine(bot: BotProcess, server: ScriptedServer) -> None:
    server.handshake_extra = {"bot_config": "def x(:"}
    bot.start_idle()
    state = server.named("poll")[-1].body["state"]
    assert state["quarantined"].startswith("handshake returned invalid injected bot_config.py")
