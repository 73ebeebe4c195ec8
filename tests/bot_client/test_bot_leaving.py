"""A whole bot: drain, second and third signal, one bot per directory."""

import signal
import threading
import time

import pytest

from tests.bot_client.conftest import BotProcess, wait_until
from tests.fakes.scripted_server import Fault, ScriptedServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STUBBORN_TASK = "trap '' TERM; echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_bot_leaves_well_under_a_second(
    bot: BotProcess, server: ScriptedServer, number: int
) -> None:
    bot.start_idle()
    started = time.monotonic()
    bot.signal(number)
    assert bot.wait() == 0
    assert time.monotonic() - started < 1.0
    events = [call.body for call in server.named("event")]
    assert [(e["event"], e["message"]) for e in events] == [("bot_shutdown", "Signal was received")]
    assert server.named("rbe/session/update")[-1].body["status"] == "BOT_TERMINATING"


def test_idle_bot_leaves_without_its_server(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    server.stop_listening()
    bot.signal()
    _second_signal(bot)
    assert bot.wait(3) == 0


def test_bot_that_waits_for_its_handshake_leaves_at_once(
    bot: BotProcess, server: ScriptedServer
) -> None:
    server.fault("handshake", *[Fault(status=503) for _ in range(50)])
    bot.install()
    bot.start()
    server.wait_calls("handshake")
    bot.signal()
    assert bot.wait(5) == 0
    assert server.named("event") == []


def test_first_signal_lets_the_task_end(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    script = "echo up; while [ ! -e ../../go ]; do sleep 0.02; done; echo end"
    task_id = server.submit(["/bin/sh", "-c", script])
    server.wait_for(lambda: server.tasks[task_id].output)
    bot.signal()
    (bot.dir / "go").touch()
    assert bot.wait() == 0
    task = server.tasks[task_id]
    assert (bytes(task.output), task.final["exit_code"]) == (b"up\nend\n", 0)
    assert task.lease_done == {}
    assert [c.body["event"] for c in server.named("event")] == ["bot_shutdown"]


def test_second_signal_stops_the_task_by_the_ladder(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    task_id = server.submit(["/bin/sh", "-c", STUBBORN_TASK], grace_period=1)
    server.wait_for(lambda: server.tasks[task_id].output)
    bot.signal()
    started = time.monotonic()
    _second_signal(bot)
    assert bot.wait() == 0
    assert 0.9 < time.monotonic() - started < 4.0
    assert server.tasks[task_id].errors == ["the task was stopped: the bot was told to shut down"]
    assert bot.task_pids() == []


def _second_signal(bot: BotProcess) -> None:
    """A signal apart from the first: two that come together are one for the kernel."""
    threading.Event().wait(0.2)
    bot.signal()


def test_third_signal_kills(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    task_id = server.submit(["/bin/sh", "-c", STUBBORN_TASK], grace_period=60)
    server.wait_for(lambda: server.tasks[task_id].output)
    bot.signal()
    _second_signal(bot)
    _second_signal(bot)
    assert bot.wait(5) == 1
    wait_until(lambda: not bot.task_pids())


def test_drain_limit_stops_the_task_in_time(bot: BotProcess, server: ScriptedServer) -> None:
    bot.env["SWARMING_DRAIN_SECS"] = "4"
    bot.start_idle()
    task_id = server.submit(["/bin/sh", "-c", "echo up; sleep 1000"], grace_period=1)
    server.wait_for(lambda: server.tasks[task_id].output)
    started = time.monotonic()
    bot.signal()
    assert bot.wait() == 0
    assert time.monotonic() - started < 4
    assert len(server.tasks[task_id].errors) == 1


def test_usr1_dumps_stacks_and_the_bot_goes_on(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    bot.signal(signal.SIGUSR1)
    stacks = bot.dir / "logs" / "stacks.log"
    wait_until(lambda: "Current thread" in stacks.read_text())
    server.wait_lease_done(server.submit(["/bin/true"]))


def test_second_bot_in_a_directory_exits_75_and_names_the_first(
    bot: BotProcess, server: ScriptedServer
) -> None:
    first = bot.start_idle().process
    second = bot.start()
    assert second.wait(10) == 75
    bot.process = first
    assert f"pid {first.pid}" in bot.console()
    server.wait_lease_done(server.submit(["/bin/true"]))


def test_kept_files_and_foreign_files_survive_but_marked_leftovers_do_not(
    bot: BotProcess, server: ScriptedServer
) -> None:
    (bot.dir / "precious.txt").write_text("mine")
    for round_number in range(1, 5):
        bot.start() if bot.zip.exists() else bot.start_idle()
        server.wait_calls("handshake", round_number)
        server.wait_idle()
        bot.signal()
        bot.wait()
        if round_number == 1:
            assert (bot.dir / "precious.txt").exists()
            (bot.dir / "precious.txt").unlink()
            (bot.dir / "w").mkdir()
        elif round_number == 2:
            assert not (bot.dir / "w").exists()
            (bot.dir / "leftover").write_text("x")
        else:
            assert not (bot.dir / "leftover").exists()
