"""A task from the command line to its end: output, exit codes, time limits, kills."""

import sys
import threading
import time

import pytest

from tests.e2e.fleet import command_line, is_running, kill_group, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-tasks")]

STUBBORN = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("told to stop", flush=True))
while True:
    print("working", flush=True)
    time.sleep(0.2)
"""
LEAVES_CHILDREN = """\
import os, subprocess, sys, time
plain = subprocess.Popen(["sleep", "600"])
daemon = subprocess.Popen(["sleep", "601"], start_new_session=True)
begun, held = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "602"])
    os._exit(0)
os.wait()
os.close(held)
os.read(begun, 1)  # ends when the last of them has become what it is
"""

NOBODY = {"dimensions": {"moon": ["full"]}, "wait_for_capacity": True}
"""What no bot has: the task stays pending."""


@pytest.fixture(autouse=True)
def _nothing_is_left(fleet):
    """After each task only the three processes of each bot and its shell are there."""
    yield
    for bot in fleet.bots.values():
        wait_until(f"nothing left on {bot.bot_id}", lambda bot=bot: only_the_bot(bot))
        assert bot.zombies() == []
        assert not (bot.home / "w").exists()


def only_the_bot(bot):
    return all("swarming_bot" in line or "bootstrap" in line for line in bot.running().values())


def python(script):
    return ["--", sys.executable, "-u", "-c", script]


@pytest.mark.parametrize(
    ("options", "script", "code"),
    [
        ([], "print('done')", 0),
        ([], "raise SystemExit(3)", 1),
        (["--exit-code", "task"], "raise SystemExit(3)", 3),
        (["--exit-code", "task"], "import os; os.kill(os.getpid(), 9)", 125),
    ],
)
def test_run_exits_as_documented_when_the_task_has_ended(fleet, options, script, code):
    done = fleet.cli("run", "--wait", *options, *python(script))
    assert done.returncode == code, done
    task = fleet.api.task(done.stdout.decode().strip())
    assert task["state"] == "COMPLETED"


def test_run_tells_a_command_that_does_not_exist(fleet):
    done = fleet.cli("run", "--follow", "--", "/no/such/command")
    assert done.returncode == 1
    assert b"/no/such/command" in done.stdout


def test_run_follows_bytes_while_the_task_goes_on(fleet, tmp_path):
    gate = tmp_path / "gate"
    first, last = bytes(range(256)) * 4, b"\xff\xfe last line without an end"
    script = f"""
import os, time
os.write(1, {first!r})
while not os.path.exists({str(gate)!r}):
    time.sleep(0.05)
os.write(1, {last!r})
"""
    running = fleet.begin_cli("run", "--follow", *python(script))
    try:
        wait_until("the first output", lambda: fleet.cli_output(running) == first, 10)
        assert running.poll() is None
        gate.touch()
        assert running.wait(20) == 0
    finally:
        kill_group(running.pid)
        running.wait()
    assert fleet.cli_output(running) == first + last


def test_task_log_gives_all_bytes_also_when_followed(fleet):
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 8192)"
    task = fleet.api.submit(sys.executable, "-c", script)
    followed = fleet.cli("task", "log", "--follow", task["task_id"])
    assert (followed.returncode, followed.stdout) == (0, bytes(range(256)) * 8192)
    assert fleet.cli("task", "log", task["task_id"]).stdout == followed.stdout
    assert fleet.api.task(task["task_id"])["output_bytes"] == 256 * 8192


@pytest.mark.parametrize(
    ("options", "script"),
    [
        (["--hard-timeout", "1s"], "import time\nwhile True: print('x'); time.sleep(0.1)"),
        (["--io-timeout", "1s"], "import time; print('x'); time.sleep(600)"),
    ],
)
def test_task_is_timed_out_when_it_runs_or_is_silent_for_too_long(fleet, options, script):
    began = time.monotonic()
    done = fleet.cli("run", "--wait", *options, "--grace-period", "5s", *python(script))
    assert time.monotonic() - began < 8
    task = fleet.api.task(done.stdout.decode().strip())
    assert done.returncode == 1
    assert (task["state"], task["exit_code"], task["cause"]) == ("TIMED_OUT", -15, "policy")
    assert fleet.api.output(task["task_id"]).startswith(b"x\n")


def test_task_is_killed_when_it_does_not_end_within_its_grace(fleet):
    running = fleet.begin_cli("run", "--wait", "--grace-period", "2s", *python(STUBBORN))
    try:
        task_id = wait_until("the id", lambda: fleet.cli_output(running).decode().strip())
        fleet.api.until(task_id, "RUNNING")
        wait_until("output", lambda: fleet.api.output(task_id))
        canceled = fleet.cli("cancel", "--kill-running", "--reason", "enough", task_id)
        assert canceled.returncode == 0, canceled
        assert running.wait(30) == 10
    finally:
        kill_group(running.pid)
        running.wait()
    task = fleet.api.task(task_id)
    assert (task["state"], task["exit_code"], task["cause"]) == ("KILLED", -9, "operator")
    output = fleet.api.output(task_id)
    assert output.count(b"told to stop\n") == 1
    after = output.partition(b"told to stop\n")[2]
    assert 5 <= after.count(b"working\n") <= 15, "it had about two seconds of grace"


def test_running_task_goes_on_when_it_is_canceled_without_kill(fleet, tmp_path):
    gate = tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    task_id = fleet.api.submit(sys.executable, "-c", wait)["task_id"]
    fleet.api.until(task_id, "RUNNING")
    fleet.cli("cancel", task_id)
    assert fleet.api.task(task_id)["state"] == "RUNNING"
    gate.touch()
    assert fleet.api.until(task_id)["state"] == "COMPLETED"


def test_pending_task_never_runs_when_it_is_canceled(fleet):
    refused = fleet.cli("run", "--wait", "-d", "moon=full", "--", "true")
    assert refused.returncode == 11
    assert b"no known bot has moon:full" in refused.stderr
    task_id = fleet.api.submit("true", **NOBODY)["task_id"]
    waiting = fleet.begin_cli("collect", task_id)
    try:
        assert fleet.cli("cancel", task_id).returncode == 0
        assert waiting.wait(20) == 10
    finally:
        kill_group(waiting.pid)
        waiting.wait()
    task = fleet.api.task(task_id)
    assert (task["state"], task["started_at"]) == ("CANCELED", None)


def test_nothing_is_left_running_when_a_task_leaves_children_behind(fleet):
    task_id = fleet.api.submit(sys.executable, "-c", LEAVES_CHILDREN)["task_id"]
    task = fleet.api.until(task_id)
    assert (task["state"], task["exit_code"]) == ("COMPLETED", 0)
    note = fleet.api.output(task_id).decode()
    assert note.startswith("skep: killed left-over processes: ")
    assert note.count("sleep(") == 3
    pids = [int(word.partition("(")[2].rstrip("),\n")) for word in note.split() if "sleep(" in word]
    assert [pid for pid in pids if is_running(pid) and "sleep" in command_line(pid)] == []


def test_many_tasks_at_once_all_end_and_share_the_bots(fleet):
    ids = [fleet.api.submit("sh", "-c", f"echo {n}")["task_id"] for n in range(30)]
    found = fleet.cli("collect", "--timeout", "60s", *ids)
    assert found.returncode == 0
    assert [fleet.api.output(i) for i in ids] == [f"{n}\n".encode() for n in range(30)]
    assert {fleet.api.task(i)["bot_id"] for i in ids} == {"bot1", "bot2"}


def test_held_calls_do_not_slow_others_down(fleet):
    """Twenty readers wait for a task that never starts; another one is done at once."""
    stuck = fleet.api.submit("true", **NOBODY)["task_id"]
    waiting = [
        threading.Thread(target=fleet.api.get, args=(f"/tasks/{stuck}?wait=20",), daemon=True)
        for _ in range(20)
    ]
    for thread in waiting:
        thread.start()
    began = time.monotonic()
    task = fleet.api.submit("true")
    fleet.api.until(task["task_id"], "COMPLETED")
    assert time.monotonic() - began < 2
    fleet.api.post(f"/tasks/{stuck}/cancel", {"kill_running": False, "reason": ""})
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()


def test_task_sees_its_own_environment_and_no_secret(fleet):
    task_id = fleet.api.submit("env", env={"COLOR": "red"})["task_id"]
    task = fleet.api.until(task_id)
    seen = dict(
        line.split("=", 1)
        for line in fleet.api.output(task_id).decode().splitlines()
        if "=" in line
    )
    assert seen["COLOR"] == "red"
    assert seen["SWARMING_BOT_ID"] == task["bot_id"]
    assert seen["SWARMING_TASK_ID"] == task["run_id"]
    home = fleet.bots[task["bot_id"]].home
    secret = (home / "enrolled.json").read_text().split('"secret": "')[1][:20]
    assert secret not in fleet.api.output(task_id).decode()
    assert secret not in fleet.bots[task["bot_id"]].logs()
    assert not any(name.startswith("SKEP_") for name in seen)
