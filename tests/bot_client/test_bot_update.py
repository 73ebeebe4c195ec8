"""A whole bot: self-update, the ways it fails, and how the fleet gets its old version back."""

from pathlib import Path

import pytest

from bot_client import archive
from tests.bot_client.conftest import BotProcess
from tests.fakes import bot_zip
from tests.fakes.scripted_server import Fault, ScriptedServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def publish(server: ScriptedServer, folder: Path, **changes: bytes | None) -> str:
    """Put a new version on the server; members named with ``__`` for a slash are replaced."""
    content = bot_zip.members(server.url)
    content["bot_client/zz_release.py"] = b'"""Makes this another version."""\n'
    for name, data in changes.items():
        content[name.replace("__", "/") + ".py"] = data or b""
    path = folder / "new.zip"
    version = bot_zip.write(path, content)
    server.archives[version] = path.read_bytes()
    return version


def tell(server: ScriptedServer, version: str, times: int = 1) -> None:
    for _ in range(times):
        server.poll_replies.append({"cmd": "update", "version": version})
    server.poll_now = True
    server.notify()


def errors(server: ScriptedServer) -> list[str]:
    return [c.body["message"] for c in server.named("event") if c.body["event"] == "bot_error"]


@pytest.mark.spec(
    "8.6.1.1",
    "8.6.1.2",
    "8.6.1.3",
    "8.6.1.4",
    "8.6.1.5",
    "8.6.1.6",
    "8.6.1.7",
    "3.3.1.5",
    "A.1.1.1",
)
def test_good_update_is_taken_and_becomes_the_last_known_good(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path
) -> None:
    server.tokens["used-token"] = "secret-1"
    bot.start_idle(comment=b"used-token")
    assert archive.content_digest(str(bot.dir / "swarming_bot.1.zip")) == bot.version
    version = publish(server, tmp_path)
    tell(server, version)
    second = server.wait_calls("handshake", 2)[1]
    assert second.body["version"] == version
    assert second.body["session_id"] != server.named("handshake")[0].body["session_id"]
    shutdown = server.named("event")[0].body
    assert shutdown["message"] == f"About to restart: Updating to {version}"
    assert "HOST_REBOOTING" in [c.body["status"] for c in server.named("rbe/session/update")]
    server.wait_idle()
    task = server.wait_lease_done(server.submit(["/bin/true"]))
    assert task.final["exit_code"] == 0
    assert archive.content_digest(str(bot.zip)) == version
    assert archive.read_comment(str(bot.dir / "swarming_bot.2.zip")) == ""
    bot.signal()
    assert bot.wait() == 0
    newer = bot.install(hooks="# newly fetched by hand\n")
    bot.start()
    assert server.wait_calls("handshake", 3)[2].body["version"] == newer


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"print('hello')", "no archive"), (None, "asked for")],
    ids=["not a zip", "wrong digest"],
)
def test_update_that_is_not_what_was_asked_for_is_refused(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path, data: bytes | None, word: str
) -> None:
    bot.start_idle()
    good = publish(server, tmp_path)
    asked = "ab" * 32
    server.archives[asked] = data if data is not None else server.archives[good]
    tell(server, asked)
    server.wait_calls("event")
    assert word in errors(server)[0]
    state = server.wait_calls("poll", 3)[-1].body["state"]
    assert state["quarantined"] == "Failed to self-update the bot"
    server.wait_idle()
    tell(server, good)
    assert server.wait_calls("handshake", 2)[1].body["version"] == good


@pytest.mark.parametrize(
    "member",
    [{"bot_client__loop": b"def broken(:\n"}, {"__main__": b"raise SystemExit(9)\n"}],
    ids=["syntax error", "fails its self-test"],
)
def test_update_that_cannot_start_never_takes_over(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path, member: dict
) -> None:
    bot.start_idle()
    changes = {("__main__" if k == "__main__" else k): v for k, v in member.items()}
    content = bot_zip.members(server.url)
    for name, data in changes.items():
        content["__main__.py" if name == "__main__" else name.replace("__", "/") + ".py"] = data
    path = tmp_path / "bad.zip"
    version = bot_zip.write(path, content)
    server.archives[version] = path.read_bytes()
    tell(server, version)
    server.wait_calls("event")
    assert "New bot code is bad: proc exit" in errors(server)[0]
    server.wait_idle()
    assert len(server.named("handshake")) == 1


@pytest.mark.spec("8.6.1.3", "8.6.1.4")
def test_bot_is_well_again_when_the_bad_update_is_taken_back(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path
) -> None:
    bot.start_idle()
    version = publish(server, tmp_path, bot_client__loop=b"def broken(:\n")
    server.poll_replies.append({"cmd": "update", "version": version})
    server.poll_replies.append({"cmd": "sleep", "duration": 200})
    server.poll_now = True
    server.notify()
    _, _, told, well = [call.body["state"] for call in server.wait_calls("poll", 4)][:4]
    assert told["quarantined"] == "Failed to self-update the bot"
    assert told["update"]["failed_version"] == version
    assert "quarantined" not in well
    assert "failed_version" not in well["update"]
    server.wait_idle()


@pytest.mark.spec("8.6.1.7")
def test_update_that_dies_at_start_is_taken_back_and_reported(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path
) -> None:
    bot.start_idle()
    source = (bot_zip.SOURCE / "zip_main.py").read_bytes()
    dies = b"import sys\nif 'start_slave' in sys.argv:\n    sys.exit(9)\n" + source
    content = bot_zip.members(server.url)
    content["__main__.py"] = dies
    path = tmp_path / "bad.zip"
    version = bot_zip.write(path, content)
    server.archives[version] = path.read_bytes()
    tell(server, version)
    second = server.wait_calls("handshake", 2)[1]
    assert second.body["version"] == bot.version
    server.wait_calls("event", 2)
    server.wait_idle()
    assert [text for text in errors(server) if version in text and "exit status 9" in text]


def test_missing_version_is_final_and_outages_are_retried(
    bot: BotProcess, server: ScriptedServer, tmp_path: Path
) -> None:
    bot.start_idle()
    tell(server, "cd" * 32)
    server.wait_calls("event")
    assert "Unable to download" in errors(server)[0]
    assert len(server.named("bot_code")) == 1
    server.wait_idle()
    server.fault("bot_code", Fault(status=503), Fault(status=503))
    version = publish(server, tmp_path)
    tell(server, version)
    assert server.wait_calls("handshake", 2)[1].body["version"] == version
    assert len(server.named("bot_code")) == 4


def test_failed_version_is_not_fetched_again_at_once_and_the_bot_works_on(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    tell(server, "cd" * 32, times=2)
    server.wait_for(lambda: not server.poll_replies)
    server.wait_idle()
    assert len(server.named("bot_code")) == 1


@pytest.mark.spec("3.3.1.6")
def test_restart_command_starts_the_same_version_again(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    server.poll_replies.append({"cmd": "bot_restart", "message": "new hooks"})
    server.poll_now = True
    server.notify()
    second = server.wait_calls("handshake", 2)[1]
    assert second.body["version"] == bot.version
    assert server.named("event")[0].body["message"] == "About to restart: new hooks"


@pytest.mark.spec("3.3.1.7")
def test_reboot_that_is_forbidden_is_said_so(bot: BotProcess, server: ScriptedServer) -> None:
    bot.env["SWARMING_NEVER_REBOOT"] = "1"
    bot.start_idle()
    server.poll_replies.append({"cmd": "host_reboot", "message": "please"})
    server.poll_now = True
    server.notify()
    server.wait_calls("event")
    assert "SWARMING_NEVER_REBOOT" in errors(server)[0]
    server.wait_idle()
