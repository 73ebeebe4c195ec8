"""A bot from a real archive in a folder of its own, and the server it talks to."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_client import processes
from tests.fakes import bot_zip
from tests.fakes.scripted_server import ScriptedServer

SRC = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], Any], limit_s: float = 15.0) -> Any:
    """For what only the operating system knows; AssertionError after the limit."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {limit_s} s"
        pause.wait(0.01)


class BotProcess:
    """One bot directory and the process started from it."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.dir = folder
        self.server = server
        self.version = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SKEP_", "SWARMING_"))},
            "SWARMING_BOT_ID": "bot1",
            "TMPDIR": str(folder / "tmp"),
        }
        (folder / "tmp").mkdir(parents=True)

    @property
    def zip(self) -> Path:
        return self.dir / "swarming_bot.zip"

    def install(self, hooks: str | None = None, comment: bytes = b"") -> str:
        """Write ``swarming_bot.zip``; returns its version."""
        self.version = bot_zip.write(self.zip, bot_zip.members(self.server.url, hooks), comment)
        return self.version

    def start(self, python: str = sys.executable, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.dir.parent / f"{self.dir.name}.console", "ab") as console:
            self.process = subprocess.Popen(
                [python, "-I", "-S", str(self.zip), *(arguments or ("start",))],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        return self.process

    def start_idle(self, **keys: Any) -> "BotProcess":
        """Install, start, and wait until it waits for work."""
        if not self.zip.exists():
            self.install(**keys)
        self.start()
        self.server.wait_idle()
        return self

    def console(self) -> str:
        return (self.dir.parent / f"{self.dir.name}.console").read_text()

    def log(self) -> str:
        path = self.dir / "logs" / "swarming_bot.log"
        return path.read_text() if path.exists() else ""

    @property
    def starter_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def supervisor_pid(self) -> int:
        return wait_until(lambda: next(iter(processes.children_of(self.starter_pid)), 0))

    def runner_pid(self) -> int:
        supervisor = self.supervisor_pid()
        return wait_until(lambda: next(iter(processes.children_of(supervisor)), 0))

    def task_pids(self) -> list[int]:
        """Everything that runs with this bot's task environment."""
        return processes.pids_with_environment(f"LUCI_CONTEXT={self.dir}/w".encode())

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.starter_pid, number)

    def wait(self, limit_s: float = 15.0) -> int:
        assert self.process is not None
        return self.process.wait(limit_s)

    def destroy(self) -> None:
        if self.process is not None and self.process.poll() is None:
            for pid in [*processes.descendants_of(self.process.pid), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(5)
        for pid in self.task_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def bot(tmp_path: Path, server: ScriptedServer) -> Iterator[BotProcess]:
    made = BotProcess(tmp_path / "bot", server)
    yield made
    made.destroy()
