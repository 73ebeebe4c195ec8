"""The supervisor's end of the pipes to the runner process."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Optional

from bot_client import frames, processes, task_env
from bot_client.clock import Clock

Json = dict[str, Any]

TASKS_PER_RUNNER = 1000
FAREWELL_S = 15.0


class RunnerGone(Exception):
    """The runner process has ended although it was not asked to."""


class RunnerLink:
    """One runner process, started ahead of need and replaced when it is worn or broken."""

    def __init__(self, command: list[str], bot_dir: str, log_path: str, clock: Clock) -> None:
        """``command`` starts the bot's archive; the subcommand is added here."""
        self._command = [*command, "runner", bot_dir]
        self._bot_dir = bot_dir
        self._log_path = log_path
        self._clock = clock
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._frames = frames.FrameReader()
        self._tasks = 0
        self.task_pid: Optional[int] = None

    def ensure(self) -> None:
        """Have a fresh enough runner standing by."""
        process = self._process
        if process is not None and process.poll() is None and self._tasks < TASKS_PER_RUNNER:
            return
        self.dismiss()
        with open(self._log_path, "ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own archive
                self._command,
                cwd=self._bot_dir,
                env=task_env.clean_environment(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        self._frames = frames.FrameReader()
        self._tasks = 0

    @property
    def pid(self) -> Optional[int]:
        """The runner's process id, None when there is none."""
        return None if self._process is None else self._process.pid

    def fileno(self) -> int:
        """Readable when the runner has something to say."""
        process = self._process
        if process is None or process.stdout is None:
            raise RunnerGone("no runner")
        return process.stdout.fileno()

    def run(self, spec: Json) -> None:
        """Hand over one task."""
        self._tasks += 1
        self.task_pid = None
        self._write(frames.pack_json(frames.RUN, spec))

    def stop(self, grace_s: float) -> None:
        """Ask for the ladder."""
        self._write(frames.pack_json(frames.STOP, {"grace_s": grace_s}))

    def kill(self) -> None:
        """Ask for SIGKILL at once."""
        self._write(frames.pack(frames.KILL))

    def _write(self, data: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise RunnerGone("no runner")
        view = memoryview(data)
        try:
            while view:
                view = view[process.stdin.write(view) :]
        except OSError as failure:
            raise RunnerGone(self._obituary()) from failure

    def read(self) -> list[tuple[bytes, bytes]]:
        """The messages that are there; RunnerGone at end of file."""
        data = os.read(self.fileno(), 262144)
        if not data:
            raise RunnerGone(self._obituary())
        messages = list(self._frames.feed(data))
        for kind, payload in messages:
            if kind == frames.STARTED:
                self.task_pid = int(json.loads(payload)["pid"])
        return messages

    def _obituary(self) -> str:
        code: Optional[int] = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(2.0)
        return f"the runner process died ({code})"

    def bury(self, rescue: Callable[[], object]) -> None:
        """After an abnormal end: nothing that the runner started may go on, or lie about.

        ``rescue`` is called when nothing runs any more and everything still lies there.
        """
        self.dismiss(0.0)
        if self.task_pid is not None:
            processes.signal_group(self.task_pid, processes.SIGKILL)
        processes.kill_descendants(self._clock)
        rescue()
        task_env.remove_tree(os.path.join(self._bot_dir, "w"))

    def dismiss(self, limit_s: float = FAREWELL_S) -> None:
        """Let go of the leash and wait for the end; killed when that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def abandon(self) -> None:
        """Signal handlers' way out: the pipes close with this process; hurry the runner up."""
        if self.task_pid is not None:
            processes.signal_group(self.task_pid, signal.SIGTERM)
            processes.signal_group(self.task_pid, processes.SIGKILL)
