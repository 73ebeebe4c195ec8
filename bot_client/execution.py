"""One command from start to last left-over: limits, the ladder of signals, what stays behind.

The ladder: SIGTERM to the command's whole process group, the grace period, SIGKILL to the group
and to every other descendant.  All times are the monotonic clock's.
"""

import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Optional

from bot_client import processes, task_env
from bot_client.clock import Clock
from bot_client.task_env import Folders, TaskFailure

Json = dict[str, Any]

READ_BYTES = 65536
SWEEP_LIMIT_S = 10.0
DRAIN_LIMIT_BYTES = 4 * 1024 * 1024
LEASH_GRACE_S = 10.0


class Execution:
    """A started command.  ``pid`` is also the number of its process group and session."""

    def __init__(
        self, spec: Json, folders: Folders, base_env: Mapping[str, str], clock: Clock
    ) -> None:
        """Prepare and start.  TaskFailure when the task itself is to blame; OSError otherwise."""
        self._clock = clock
        self.spec = spec
        env = task_env.build_environment(base_env, spec, folders)
        env.update(task_env.write_secrets(spec.get("secrets") or {}, folders))
        cwd = task_env.working_folder(spec["relative_cwd"], folders)
        words = [task_env.substitute(word, spec["task_id"], folders) for word in spec["command"]]
        argv = task_env.resolve_command(words, env, cwd)
        task_env.write_context(spec, folders, clock.wall())
        self._process = _start(argv, cwd, env)
        stdout = self._process.stdout
        if stdout is None:
            raise OSError("the command has no output pipe")
        self.pid = self._process.pid
        self.output_fd = stdout.fileno()
        os.set_blocking(self.output_fd, False)
        self._stdout = stdout
        self.started_at = self.last_output_at = clock.now()
        self.ended_at = self.started_at
        self.exit_code: Optional[int] = None
        self.hard_timeout = False
        self.io_timeout = False
        self._kill_at: Optional[float] = None
        self._killed = False
        self._paused = False

    def next_deadline(self) -> Optional[float]:
        """When `check_limits` has to be called next; None when nothing is limited."""
        times = [] if self._kill_at is None or self._killed else [self._kill_at]
        if self._kill_at is None:
            if self.spec["hard_timeout"]:
                times.append(self.started_at + self.spec["hard_timeout"])
            if self.spec["io_timeout"] and not self._paused:
                times.append(self.last_output_at + self.spec["io_timeout"])
        return min(times) if times else None

    def check_limits(self) -> None:
        """Step onto or along the ladder when a limit has passed."""
        now = self._clock.now()
        if self._kill_at is not None:
            if now >= self._kill_at and not self._killed:
                self.kill()
            return
        hard, silence = self.spec["hard_timeout"], self.spec["io_timeout"]
        if hard and now >= self.started_at + hard:
            self.hard_timeout = True
        elif silence and not self._paused and now >= self.last_output_at + silence:
            self.io_timeout = True
        else:
            return
        self.stop(self.spec["grace_period"])

    def stop(self, grace_s: float) -> None:
        """First step of the ladder; later calls can only shorten the grace."""
        kill_at = self._clock.now() + grace_s
        if self._kill_at is None:
            self._kill_at = kill_at
            processes.signal_group(self.pid, signal.SIGTERM)
        self._kill_at = min(self._kill_at, kill_at)

    def kill(self) -> None:
        """Last step of the ladder: everything that descends from the command."""
        self._killed = True
        self._kill_at = self._clock.now() if self._kill_at is None else self._kill_at
        processes.signal_group(self.pid, processes.SIGKILL)
        for child in processes.children_of(os.getpid()):
            processes.signal_process(child, processes.SIGKILL)

    def read(self) -> Optional[bytes]:
        """Output that is there now; b"" at end of file, None when there is nothing yet."""
        with suppress(BlockingIOError):
            data = os.read(self.output_fd, READ_BYTES)
            self.last_output_at = self._clock.now()
            return data
        return None

    def pause_silence(self, *, paused: bool) -> None:
        """While the reader, not the command, is the slow one, silence does not count."""
        if paused or self._paused:
            self.last_output_at = self._clock.now()
        self._paused = paused

    def has_ended(self, ended: list[tuple[int, int]]) -> bool:
        """Look for the command among reaped children; true once it is found."""
        for pid, code in ended:
            if pid == self.pid:
                self.exit_code = self._process.returncode = code
                self.ended_at = self._clock.now()
        return self.exit_code is not None

    def sweep(self, child_fd: int) -> tuple[list[str], list[str]]:
        """Kill what the command left behind; (killed, still alive), each "name(pid)".

        ``child_fd`` becomes readable on SIGCHLD.  As the runner is a subreaper, every descendant
        of the command ends up as a child of this process; no child means nothing is left.
        """
        killed: dict[int, str] = {}
        give_up_at = self._clock.now() + SWEEP_LIMIT_S
        while left := self._left_over():
            if self._clock.now() >= give_up_at:
                return list(killed.values()), [_label(pid) for pid in left]
            for pid in processes.descendants_of(os.getpid()):
                killed.setdefault(pid, _label(pid))  # by name, as long as it has one
            processes.signal_group(self.pid, processes.SIGKILL)
            for pid in left:
                processes.signal_process(pid, processes.SIGKILL)
            select.select([child_fd], [], [], 0.05)
            with suppress(BlockingIOError):
                os.read(child_fd, 4096)
            processes.reap()
        return list(killed.values()), []

    def _left_over(self) -> list[int]:
        processes.reap()
        if processes.has_children():
            return processes.children_of(os.getpid())
        return []

    def drain(self) -> bytes:
        """What is in the pipe after the end; never waits for whoever still holds it open."""
        pieces = []
        taken = 0
        while taken < DRAIN_LIMIT_BYTES:
            data = self.read()
            if not data:
                break
            pieces.append(data)
            taken += len(data)
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the output pipe."""
        self._stdout.close()

    def was_killed_from_outside(self) -> bool:
        """Did somebody else send the SIGKILL that ended the command?"""
        return self.exit_code == -9 and not self._killed


def _start(argv: list[str], cwd: str, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - running the task's command is the purpose
            argv,
            cwd=cwd,
            env=env,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise TaskFailure(f"{argv[0]} cannot be run: {reason}") from failure


def _label(pid: int) -> str:
    return f"{processes.name_of(pid)}({pid})"
