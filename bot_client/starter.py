"""The first process: keeps a supervisor running, and brings the last good one back.

It imports little and does little, because it is the one part that an update does not replace:
it takes the lock, runs a slot as its child, forwards signals, and looks at how the child ended.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Optional

from bot_client import archive, processes, singleton
from bot_client.clock import Backoff, Clock
from bot_client.errors import (
    EXIT_CONFIG,
    EXIT_ENROLMENT_REFUSED,
    EXIT_OK,
    EXIT_RELAUNCH,
    EXIT_USAGE,
)
from bot_client.slots import LAST_GOOD, SLOTS, SlotState

LEASH_VARIABLE = "SKEP_LEASH_FD"
LOCK_VARIABLE = "SKEP_LOCK_FD"
LAST_EXIT_VARIABLE = "SKEP_LAST_EXIT"
LOG_NAME = "swarming_bot_init.log"
LOG_BYTES = 1024 * 1024
STEADY_S = 600.0
BACKOFF_CAP_S = 60.0
STRAY_MERCY_S = 15.0
_FINAL = {EXIT_USAGE, EXIT_ENROLMENT_REFUSED, EXIT_CONFIG}


class Starter:
    """One child at a time; ends when the child was asked to, or may not go on."""

    def __init__(self, own_archive: str, clock: Clock) -> None:
        """``own_archive`` is the file this process runs from."""
        self._archive = own_archive
        self._dir = os.path.dirname(own_archive)
        self._clock = clock
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._asked = 0
        self._forwarded = 0
        self._last_exit: Optional[int] = None

    def run(self) -> int:
        """Run until the end; returns this process's exit code."""
        lock_fd = singleton.lock(self._dir)
        self._listen()
        self._forget_slot()
        processes.become_subreaper()
        backoff = Backoff(self._clock, 2.0, BACKOFF_CAP_S)
        while True:
            slot = self._choose()
            started_at = self._clock.now()
            code = self._run_child(slot, lock_fd)
            state = SlotState(self._dir)
            on_trial = state.probation is not None
            if self._asked:
                return _code_after_stop(code)
            if code == EXIT_RELAUNCH:
                backoff.succeed()
                continue
            if not on_trial and (code == EXIT_OK or code in _FINAL):
                return code
            self._note_death(state, slot, code)
            if self._clock.now() - started_at > STEADY_S:
                backoff.succeed()
            self._clock.wait(backoff.fail())
            if self._asked:
                return EXIT_OK

    def _note_death(self, state: SlotState, slot: str, code: int) -> None:
        self._last_exit = code
        self._write_log(f"{os.path.basename(slot)} ended unexpectedly: {code}")
        if state.probation is not None:
            state.fail_probation(f"exit status {code}", self._clock.wall())
        state.run = ""
        state.save()

    def _forget_slot(self) -> None:
        """A fresh start begins with the archive that was started, perhaps newly fetched."""
        state = SlotState(self._dir)
        if state.run or state.probation is not None:
            state.run = ""
            state.probation = None
            state.save()

    def _choose(self) -> str:
        """The slot that the state names, else a fresh copy of the last good archive."""
        state = SlotState(self._dir)
        if state.run and os.path.exists(os.path.join(self._dir, state.run)):
            return os.path.join(self._dir, state.run)
        if os.path.basename(self._archive) in SLOTS:
            return self._archive
        source = os.path.join(self._dir, LAST_GOOD)
        source = source if os.path.exists(source) else self._archive
        slot = os.path.join(self._dir, SLOTS[0])
        archive.copy_without_comment(source, slot)
        state.run = ""
        state.probation = None
        state.save()
        return slot

    def _run_child(self, slot: str, lock_fd: int) -> int:
        """Start the slot and wait for its end, reaping whatever else ends meanwhile."""
        leash_read, leash_write = os.pipe()
        env = dict(os.environ)
        env[LEASH_VARIABLE] = str(leash_read)
        env[LOCK_VARIABLE] = str(lock_fd)
        env.pop(LAST_EXIT_VARIABLE, None)
        if self._last_exit is not None:
            env[LAST_EXIT_VARIABLE] = str(self._last_exit)
        command = [*archive.interpreter_command(), slot, "start_slave", "--survive"]
        self._write_log(f"starting {os.path.basename(slot)}")
        with suppress(OSError):
            sys.stderr.flush()
        self._child = subprocess.Popen(  # noqa: S603 - our own archive
            command,
            cwd=self._dir,
            env=env,
            stdin=subprocess.DEVNULL,
            pass_fds=(leash_read, lock_fd),
            start_new_session=True,
        )
        os.close(leash_read)
        self._forward()
        code = self._await(self._child)
        os.close(leash_write)
        processes.kill_descendants(self._clock, mercy_s=STRAY_MERCY_S)
        return code

    def _await(self, child: "subprocess.Popen[bytes]") -> int:
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == child.pid:
                self._child = None
                child.returncode = os.waitstatus_to_exitcode(status)
                return child.returncode

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._on_usr1)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._asked += 1
        self._clock.wake()
        self._forward()

    def _forward(self) -> None:
        """Pass each stop signal on once, also those that came before there was a child."""
        while self._child is not None and self._forwarded < self._asked:
            self._forwarded += 1
            processes.signal_process(self._child.pid, signal.SIGTERM)

    def _on_usr1(self, _number: int, _frame: object) -> None:
        if self._child is not None:
            processes.signal_process(self._child.pid, signal.SIGUSR1)

    def _write_log(self, text: str) -> None:
        """A few lines a day; the logging package is too much for them."""
        folder = os.path.join(self._dir, "logs")
        path = os.path.join(folder, LOG_NAME)
        with suppress(OSError):
            os.makedirs(folder, 0o700, exist_ok=True)
            if os.path.exists(path) and os.path.getsize(path) > LOG_BYTES:
                os.replace(path, f"{path}.1")
            with open(path, "a", encoding="utf-8") as log:
                log.write(f"{os.getpid()} {self._clock.wall():.3f} {text}\n")


def _code_after_stop(code: int) -> int:
    """A child that died of our own SIGTERM, before it could handle it, stopped as asked."""
    return EXIT_OK if code in {EXIT_OK, EXIT_RELAUNCH, -signal.SIGTERM} else abs(code)


def main(_arguments: list[str]) -> int:
    """Run the starter from the archive that this process was started from."""
    own = archive.require_running_archive()
    archive.read_config(own)
    os.chdir(os.path.dirname(own))
    return Starter(own, Clock()).run()
