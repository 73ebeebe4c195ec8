"""The task process of the bot: first update, stream, stop, last update (bot-api 5.2, A.5)."""

import base64
import signal
import tempfile
from dataclasses import dataclass

from tests.strict_bot import replies
from tests.strict_bot.command import Command
from tests.strict_bot.wire import NoAnswer

MOST_OUTPUT = 250_000
COST_A_SECOND = 0.0001


@dataclass(frozen=True)
class Pace:
    """How often a running task says something; seconds."""

    with_output: float = 4.0
    without_output: float = 10.0
    ping: tuple = (10.0, 15.0)
    unleased_ping: tuple = (60.0, 90.0)


class InternalFailure(Exception):
    """The bot, not the command, failed: the task ends with task_error."""


class TaskRun:
    """One run. `ping_lease` is called now and then while the command runs; it returns the
    range of the next pause in seconds."""

    def __init__(self, wire, manifest, pace, folder, *, ping_lease, break_on="", leaving):
        self.wire = wire
        self.manifest = manifest
        self.task_id = manifest["task_id"]
        self.pace = pace
        self.folder = folder
        self.ping_lease = ping_lease
        self.break_on = break_on
        self.leaving = leaving
        self.clock = wire.clock
        self.began = self.clock.monotonic()
        self.offset = 0
        self.last_output = b""
        self.flags = {"hard_timeout": False, "io_timeout": False}

    def run(self):
        """From the first update to the last; never raises NoAnswer."""
        try:
            self._run()
        except (InternalFailure, NoAnswer) as error:
            self._internal_failure(str(error))

    def _run(self):
        if self._update():
            self._update(canceled=True)
            return
        if self.break_on and self.break_on in self.manifest.get("command", []):
            raise InternalFailure("run_isolated internal failure 1")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            try:
                command = Command(self.manifest, folder, self.wire.url, self.wire.bot_id)
            except (OSError, ValueError, IndexError) as error:
                self._final(1, f"cannot start: {error}\n".encode())
                return
            try:
                self._watch(command)
            finally:
                command.end()

    def _watch(self, command):
        """Stream until the command has ended, then say how."""
        started = self.clock.monotonic()
        spoke = heard = started
        next_ping = started + self.clock.uniform(*self.pace.ping)
        kill_at = None
        had = 0
        while command.is_running:
            now = self.clock.monotonic()
            if command.buffered() > had:
                heard = now
            if now >= next_ping:
                next_ping = now + self.clock.uniform(*self.ping_lease())
            every = self.pace.with_output if command.buffered() else self.pace.without_output
            if command.buffered() >= MOST_OUTPUT or now - spoke >= every:
                must_stop = self._update(command.take(MOST_OUTPUT))
                spoke = now
                if must_stop and kill_at is None:
                    kill_at = self._stop(command, now)
            if kill_at is None and self._is_over_time(now - started, now - heard):
                kill_at = self._stop(command, now)
            if kill_at is not None and now >= kill_at:
                command.signal(signal.SIGKILL)
                kill_at = float("inf")
            had = command.buffered()
            ends = [next_ping - now, spoke + every - now, kill_at - now if kill_at else 60.0]
            command.wait(min(*ends, self._time_left(now, started, heard)), max(had + 1, 1))
        while command.buffered() > MOST_OUTPUT:
            self._update(command.take(MOST_OUTPUT))
        self._final(command.exit_code, command.take(MOST_OUTPUT))

    def _time_left(self, now, started, heard):
        """Seconds until a timeout may strike, for the wait."""
        left = [60.0]
        for key, since in (("hard_timeout", started), ("io_timeout", heard)):
            if self.manifest[key]:
                left.append(since + self.manifest[key] - now + 0.01)
        return min(left)

    def _is_over_time(self, running_s, silent_s):
        for key, spent in (("hard_timeout", running_s), ("io_timeout", silent_s)):
            if self.manifest[key] and spent >= self.manifest[key]:
                self.flags[key] = True
        return any(self.flags.values()) or self.leaving()

    def _stop(self, command, now):
        """SIGTERM; when SIGKILL is to follow: the grace is doubled (bot-api 5.3)."""
        self.wire.transcript.add(note="stop", task_id=self.task_id)
        command.signal(signal.SIGTERM)
        return now + 2 * self.manifest["grace_period"]

    # What is sent.

    def _body(self, output=b"", **more):
        spent = self.clock.monotonic() - self.began
        body = {
            "cost_usd": round(spent * COST_A_SECOND, 6),
            "id": self.wire.bot_id,
            "session": self.wire.session,
            "task_id": self.task_id,
            **more,
        }
        if output:
            body["output"] = base64.b64encode(output).decode()
            body["output_chunk_start"] = self.offset
        return body

    def _update(self, output=b"", **more):
        """An update, final when `more` says so. Must the command stop?"""
        is_final = "exit_code" in more or "canceled" in more
        self.last_output = output
        reply = self.wire.post("task_update", self._body(output, **more), task_id=self.task_id)
        self.offset += len(output)
        self.last_output = b""
        return replies.task_updated(reply, is_final=is_final)

    def _final(self, exit_code, output):
        download = {
            "duration": 0.1,
            "initial_number_items": 0,
            "initial_size": 0,
            "items_cold": "",
            "items_hot": "",
        }
        self._update(
            output,
            exit_code=exit_code,
            duration=round(self.clock.monotonic() - self.began, 3),
            bot_overhead=0.1,
            isolated_stats={"download": download},
            **self.flags,
        )

    def _internal_failure(self, message):
        """The last output without an end, then task_error (bot-api 5.2, 5.7)."""
        try:
            body = self._body(self.last_output, **self.flags)
            replies.task_updated(
                self.wire.post("task_update", body, task_id=self.task_id), is_final=False
            )
        except NoAnswer as error:
            self.wire.transcript.add(note="no answer", text=str(error))
        body = {
            "client_error": {"missing_cas": [], "missing_cipd": []},
            "id": self.wire.bot_id,
            "message": message,
            "session": self.wire.session,
            "task_id": self.task_id,
        }
        try:
            reply = self.wire.post("task_error", body, task_id=self.task_id)
        except NoAnswer as error:
            self.wire.transcript.add(note="no answer", text=str(error))
        else:
            replies.nothing("5.7.p1", "task_error", reply)
