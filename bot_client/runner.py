"""The standing runner process: starts one command after another, and nothing else.

It talks to the supervisor by two pipes, never to the server, and never sees a token.  End of
file on its standard input means that the supervisor is gone: the command is stopped by the
ladder and the runner exits.
"""

import json
import os
import select
import signal
import sys
import tempfile
from contextlib import suppress
from typing import Any, Optional

from bot_client import frames, processes, task_env
from bot_client.clock import Clock
from bot_client.execution import LEASH_GRACE_S, Execution
from bot_client.task_env import Folders, TaskFailure

Json = dict[str, Any]

COMMANDS_FD = 0
REPORTS_FD = 1
NEXT = "next"
OUTGOING_LIMIT_BYTES = 256 * 1024


class Runner:
    """One loop over the pipes; no threads, so nothing here is ever half done."""

    def __init__(self, bot_dir: str, clock: Clock, child_fd: int) -> None:
        """``child_fd`` becomes readable on SIGCHLD."""
        self._bot_dir = bot_dir
        self._clock = clock
        self._child_fd = child_fd
        self._frames = frames.FrameReader()
        self._outgoing = bytearray()
        self._task: Optional[Execution] = None
        self._folders: Optional[Folders] = None
        self._next = task_env.folders_below(os.path.join(bot_dir, NEXT))
        self._is_next_ready = False
        self._keeps = False
        self._output_open = False
        self._leash_held = True
        self._base_env = dict(os.environ)

    def serve(self) -> int:
        """Work until the supervisor lets go of the leash."""
        self._send(frames.READY, b"")
        while self._leash_held or self._task is not None:
            if self._task is None and not self._is_next_ready:
                self._prepare_next()
            self._turn()
        task_env.remove_tree(self._next.work)
        return 0

    def _prepare_next(self) -> None:
        """Make the next task's folders before it comes: it need not wait for the disk then.

        When that fails they are made when it comes, and it is told what is wrong.
        """
        with suppress(OSError):
            if not task_env.remove_tree(self._next.work):
                task_env.make_folders(self._next)
                self._is_next_ready = True

    def _turn(self) -> None:
        ready = self._wait()
        if self._child_fd in ready:
            with suppress(BlockingIOError):
                os.read(self._child_fd, 4096)
        if COMMANDS_FD in ready:
            self._read_commands()
        if REPORTS_FD in ready:
            self._flush()
        if self._task is not None:
            self._tend(self._task, ready)

    def _wait(self) -> set[int]:
        poll = select.poll()
        poll.register(self._child_fd, select.POLLIN)
        if self._leash_held:
            poll.register(COMMANDS_FD, select.POLLIN)
            if self._outgoing:
                poll.register(REPORTS_FD, select.POLLOUT)
        task = self._task
        deadline = None
        if task is not None:
            paused = len(self._outgoing) >= OUTGOING_LIMIT_BYTES
            task.pause_silence(paused=paused)
            if self._output_open and not paused:
                poll.register(task.output_fd, select.POLLIN)
            deadline = task.next_deadline()
        timeout = None if deadline is None else max(0.0, deadline - self._clock.now()) * 1000 + 1
        return {fd for fd, _event in poll.poll(timeout)}

    def _read_commands(self) -> None:
        data = os.read(COMMANDS_FD, 65536)
        if not data:
            self._lose_leash()
            return
        for kind, payload in self._frames.feed(data):
            if kind == frames.RUN and self._task is None:
                self._start(json.loads(payload))
            elif kind == frames.STOP and self._task is not None:
                self._task.stop(float(json.loads(payload)["grace_s"]))
            elif kind == frames.KILL and self._task is not None:
                self._task.kill()

    def _lose_leash(self) -> None:
        self._leash_held = False
        self._outgoing.clear()
        if self._task is not None:
            self._task.stop(min(float(self._task.spec["grace_period"]), LEASH_GRACE_S))

    def _start(self, spec: Json) -> None:
        try:
            self._folders = self._fresh_folders()
            self._keeps = bool(spec.get("keeps"))
            if spec.get("stage"):
                os.rmdir(self._folders.run)
                os.rename(spec["stage"], self._folders.run)
            self._task = Execution(spec, self._folders, self._base_env, self._clock)
        except TaskFailure as failure:
            self._send(frames.OUTPUT, f"skep: {failure}\n".encode())
            self._report({"exit_code": 1, "duration": 0.0, **self._clean_up()})
        except OSError as failure:
            self._report({"internal": f"the task could not be prepared: {failure}"})
        else:
            self._output_open = True
            self._send(frames.STARTED, json.dumps({"pid": self._task.pid}).encode())

    def _fresh_folders(self) -> Folders:
        """An empty work folder; another name when the old one cannot be deleted."""
        name = "w"
        if task_env.remove_tree(os.path.join(self._bot_dir, name)):
            name = f"w{self._clock.new_id()[:6]}"
        folders = task_env.folders_below(os.path.join(self._bot_dir, name))
        if not self._take_next(folders):
            task_env.remove_tree(folders.work)
            task_env.make_folders(folders)
        return folders

    def _take_next(self, folders: Folders) -> bool:
        """Rename the folders that were made ahead; False when they are not there, or not whole."""
        is_ready, self._is_next_ready = self._is_next_ready, False
        try:
            if is_ready:
                os.rename(self._next.work, folders.work)
        except OSError:
            return False
        return is_ready and all(map(os.path.isdir, (folders.run, folders.out, folders.tmp)))

    def _tend(self, task: Execution, ready: set[int]) -> None:
        if task.output_fd in ready:
            data = task.read()
            if data:
                self._send(frames.OUTPUT, data)
            self._output_open = data != b""
        if self._child_fd in ready and task.has_ended(processes.reap()):
            self._finish(task)
        else:
            task.check_limits()

    def _finish(self, task: Execution) -> None:
        killed, alive = task.sweep(self._child_fd)
        rest = task.drain()
        if rest:
            self._send(frames.OUTPUT, rest)
        task.close()
        if task.was_killed_from_outside():
            self._note("the command was killed by SIGKILL; the machine may have run out of memory")
        if killed:
            self._note(f"killed left-over processes: {', '.join(killed)}")
        if alive:
            self._note(f"left-over processes that could not be killed: {', '.join(alive)}")
        report: Json = {"exit_code": task.exit_code, "duration": task.ended_at - task.started_at}
        report.update(hard_timeout=task.hard_timeout, io_timeout=task.io_timeout)
        report.update(self._clean_up())
        if report.get("undeleted") and report["exit_code"] == 0:
            report["exit_code"] = 1
        if alive:
            report["survivors"] = alive
        self._task = None
        self._output_open = False
        self._report(report)

    def _clean_up(self) -> Json:
        if self._folders is None:
            return {}
        report = self._hand_over(self._folders)
        failed = task_env.remove_folders(self._folders)
        self._folders = None
        if failed:
            self._note(f"could not be deleted: {', '.join(failed[:20])}")
            report["undeleted"] = failed[:100]
        return report

    def _hand_over(self, folders: Folders) -> Json:
        """Leave run and output folder to the supervisor when something in them is to be kept."""
        try:
            if not self._keeps and not os.listdir(folders.out):
                return {}
            place = tempfile.mkdtemp(prefix="wo", dir=self._bot_dir)
            for folder in (folders.run, folders.out):
                os.rename(folder, os.path.join(place, os.path.basename(folder)))
        except OSError as failure:
            self._note(f"the outputs cannot be kept: {failure}")
            return {"internal": f"the outputs cannot be kept: {failure}"}
        return {"handed_over": place}

    def _note(self, text: str) -> None:
        self._send(frames.OUTPUT, f"skep: {text}\n".encode())

    def _report(self, report: Json) -> None:
        self._send(frames.DONE, json.dumps(report).encode())

    def _send(self, kind: bytes, payload: bytes) -> None:
        if self._leash_held:
            self._outgoing += frames.pack(kind, payload)
            self._flush()

    def _flush(self) -> None:
        """Write what the pipe takes without waiting; a broken pipe is a lost leash."""
        try:
            while self._outgoing:
                written = os.write(REPORTS_FD, self._outgoing[:65536])
                del self._outgoing[:written]
        except BlockingIOError:
            return
        except OSError:
            self._lose_leash()


def _on_signal(_number: int, _frame: object) -> None:
    """Signals to the bot are the supervisor's business; a handler, as children inherit SIG_IGN."""


def main(arguments: list[str]) -> int:
    """``runner BOT_DIR``: internal, started by the supervisor with pipes as 0 and 1."""
    if len(arguments) != 1:
        sys.stderr.write("runner: internal command\n")
        return 2
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _on_signal)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    os.set_blocking(REPORTS_FD, False)
    processes.become_subreaper()
    processes.forbid_new_privileges()
    return Runner(os.path.abspath(arguments[0]), Clock(), read_fd).serve()
