"""The runner process by its pipes: the rows of 'what the user sees', the ladder, left-overs."""

import json
import multiprocessing
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_client import frames, processes
from bot_client.clock import Clock
from bot_client.manifest import parse
from bot_client.runner_link import RunnerGone, RunnerLink
from bot_client.task import run_message
from tests.bot_client.conftest import wait_until
from tests.fakes import bot_zip

pytestmark = pytest.mark.slow

SH = "/bin/sh"


class Harness:
    """A runner in a folder, driven as the supervisor drives it."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        archive = folder / "bot.zip"
        bot_zip.write(archive, bot_zip.members("http://127.0.0.1:1"))
        command = [sys.executable, "-I", "-S", str(archive)]
        self.link = RunnerLink(command, str(folder), str(folder / "runner.log"), Clock())
        self.output = b""

    def start(self, *command: str, **keys: Any) -> None:
        manifest = {
            "task_id": "abc1",
            "bot_id": "bot1",
            "dimensions": {},
            "bot_dimensions": {},
            "hard_timeout": 20,
            "io_timeout": 0,
            "grace_period": 5,
            "command": list(command),
        }
        manifest.update(keys)
        self.output = b""
        self.link.ensure()
        self.link.run(run_message(parse(manifest), "http://s"))

    def until_output(self, text: bytes) -> None:
        while text not in self.output:
            report = self._read()
            assert report is None, (report, self.output)

    def finish(self) -> dict[str, Any]:
        while True:
            report = self._read()
            if report is not None:
                return report

    def _read(self) -> dict[str, Any] | None:
        ready, _, _ = select.select([self.link.fileno()], [], [], 15)
        assert ready, f"nothing from the runner; output so far: {self.output!r}"
        for kind, payload in self.link.read():
            if kind == frames.OUTPUT:
                self.output += payload
            elif kind == frames.DONE:
                return json.loads(payload)
        return None

    def run(self, *command: str, **keys: Any) -> tuple[int, dict[str, Any]]:
        self.start(*command, **keys)
        report = self.finish()
        return report["exit_code"], report

    def await_next(self) -> Path:
        """The run folder that the runner has made ahead."""
        made = self.dir / "next"
        wait_until((made / "bot_file.json").exists)
        return made / "ir"

    def left(self) -> list[int]:
        return processes.pids_with_environment(f"LUCI_CONTEXT={self.dir}/w".encode())


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.link.dismiss()
    assert harness.left() == []


def test_normal_exit_and_signal_codes(runner: Harness) -> None:
    assert runner.run(SH, "-c", "echo out; echo err >&2; exit 3")[0] == 3
    assert runner.output == b"out\nerr\n"
    assert runner.run(SH, "-c", "kill -USR1 $$")[0] == -10


def test_one_runner_serves_many_tasks_and_leaves_no_folder(runner: Harness) -> None:
    runner.run(SH, "-c", "echo x > f; mkdir -p a/b")
    first = runner.link.pid
    assert not (runner.dir / "w").exists()
    assert runner.run(SH, "-c", "ls")[0] == 0
    assert (runner.output, runner.link.pid) == (b"", first)


def test_folder_is_made_before_the_task_comes_and_gone_with_the_runner(runner: Harness) -> None:
    runner.run("/bin/true")
    number = runner.await_next().stat().st_ino
    command = "stat -c %i .; stat -c %a . .. $TMPDIR; cat ${SWARMING_BOT_FILE}"
    assert runner.run(SH, "-c", command)[0] == 0
    assert runner.output.decode().split() == [str(number), "700", "700", "700", "{}"]
    runner.link.dismiss()
    assert not (runner.dir / "next").exists()
    assert not (runner.dir / "w").exists()


@pytest.mark.parametrize("part", ["next", "next/it"])
def test_folder_made_ahead_may_be_gone_when_the_task_comes(runner: Harness, part: str) -> None:
    runner.run("/bin/true")
    runner.await_next()
    shutil.rmtree(runner.dir / part)
    assert runner.run(SH, "-c", "ls -d $PWD $TMPDIR")[0] == 0, runner.output


def test_sigkill_from_outside_is_explained(runner: Harness) -> None:
    assert runner.run(SH, "-c", "kill -9 $$")[0] == -9
    assert b"may have run out of memory" in runner.output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no/such/file"], b"cannot be run: No such file"),
        (["no-such-word"], b"cannot be run: No such file"),
        (["/etc/passwd"], b"cannot be run: Permission denied"),
        ([], b"the command is empty"),
    ],
)
def test_command_that_cannot_run_is_exit_1_with_the_reason(
    runner: Harness, command: list[str], words: bytes
) -> None:
    assert runner.run(*command)[0] == 1
    assert words in runner.output
    assert runner.run("/bin/true")[0] == 0


def test_working_folder_outside_is_exit_1(runner: Harness) -> None:
    assert runner.run("/bin/true", relative_cwd="../..")[0] == 1
    assert b"leaves the run folder" in runner.output


def test_hard_timeout_lets_the_command_choose_its_code(runner: Harness) -> None:
    script = "trap 'exit 3' TERM; while :; do sleep 0.02; done"
    code, report = runner.run(SH, "-c", script, hard_timeout=0.3)
    assert (code, report["hard_timeout"], report["io_timeout"]) == (3, True, False)
    assert report["duration"] < 2


def test_hard_timeout_kills_who_ignores_it_with_the_whole_group(runner: Harness) -> None:
    script = (
        "trap '' TERM; (trap '' TERM; while :; do sleep 0.02; done) & while :; do sleep 0.02; done"
    )
    code, report = runner.run(SH, "-c", script, hard_timeout=0.2, grace_period=0.3)
    assert (code, report["hard_timeout"]) == (-9, True)
    assert b"out of memory" not in runner.output
    assert 0.4 < report["duration"] < 3
    assert runner.left() == []


def test_io_timeout_counts_from_the_last_byte(runner: Harness) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done; exec sleep 100"
    code, report = runner.run(SH, "-c", script, io_timeout=0.5)
    assert (code, report["io_timeout"], report["hard_timeout"]) == (-15, True, False)
    assert runner.output == b"1\n2\n3\n4\n5\n"
    assert report["duration"] > 1.2


def test_stop_and_kill_end_the_command(runner: Harness) -> None:
    runner.start(SH, "-c", "echo up; exec sleep 100")
    runner.until_output(b"up")
    runner.link.stop(5)
    assert runner.finish()["exit_code"] == -15
    runner.start(SH, "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done")
    runner.until_output(b"up")
    runner.link.stop(60)
    runner.link.kill()
    assert runner.finish()["exit_code"] == -9


def test_background_child_is_gone_after_the_task(runner: Harness) -> None:
    code, report = runner.run(SH, "-c", "sleep 1000 & echo started")
    assert (code, report["duration"] < 2) == (0, True)
    assert b"killed left-over processes: s" in runner.output
    assert runner.left() == []


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        print("daemon", os.getpid(), flush=True)
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
os.wait()
time.sleep(0.1)
"""


def test_daemonised_orphan_is_found_and_killed(runner: Harness) -> None:
    assert runner.run(sys.executable, "-c", DAEMON)[0] == 0
    pid = int(runner.output.split()[1])
    assert f"sleep({pid})".encode() in runner.output
    assert not os.path.exists(f"/proc/{pid}")


def test_runner_is_patient_with_a_slow_reader(runner: Harness) -> None:
    size = 3_000_000
    runner.start(sys.executable, "-c", f"print('x' * {size}, end='')", io_timeout=0.7)
    threading.Event().wait(1.0)
    assert runner.finish()["exit_code"] == 0
    assert len(runner.output) == size


def test_broken_leash_ends_the_command(runner: Harness) -> None:
    runner.start(SH, "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done", grace_period=0)
    runner.until_output(b"up")
    runner.link.dismiss()
    assert runner.left() == []


def test_killed_runner_is_noticed_and_buried(tmp_path: Path) -> None:
    burial = multiprocessing.get_context("spawn").Process(
        target=_bury_a_killed_runner, args=[tmp_path]
    )
    burial.start()
    burial.join(30)
    assert burial.exitcode == 0


def _bury_a_killed_runner(folder: Path) -> None:
    """In a process of its own, as the supervisor is: a burial ends every child of its process."""
    processes.become_subreaper()
    runner = Harness(folder)
    runner.start(SH, "-c", "echo up; exec sleep 1000")
    runner.until_output(b"up")
    pid = runner.link.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunnerGone, match="-9"):
        runner.finish()
    runner.link.bury(lambda: None)
    assert runner.left() == []
    assert runner.run("/bin/true")[0] == 0
    runner.link.dismiss()


def test_task_has_no_input_and_its_own_folders(runner: Harness) -> None:
    script = "cat; pwd; echo $TMPDIR; ls -d $TMPDIR; echo $SWARMING_TASK_ID; ls -l $LUCI_CONTEXT"
    runner.run(SH, "-c", script, relative_cwd="a/b", env={"TMPDIR": "/nowhere"})
    lines = runner.output.decode().splitlines()
    work = f"{runner.dir}/w"
    assert lines[:4] == [f"{work}/ir/a/b", f"{work}/it", f"{work}/it", "abc1"]
    assert lines[4].startswith("-rw-------")


def test_task_cannot_gain_privileges(runner: Harness) -> None:
    runner.run("/bin/grep", "NoNewPrivs", "/proc/self/status")
    assert runner.output.split() == [b"NoNewPrivs:", b"1"]


def test_folder_without_permissions_does_not_spoil_the_next_task(runner: Harness) -> None:
    runner.run(SH, "-c", "mkdir -p d/e; touch d/e/f; chmod 0 d/e d .")
    assert runner.run("/bin/true")[0] == 0
    assert not (runner.dir / "w").exists()
