"""The life of the bot: handshake, poll, lease session, tasks, restarts, the end (bot-api A)."""

import os
import uuid
from dataclasses import dataclass, field
from enum import Enum

from tests.strict_bot import archive, replies
from tests.strict_bot.task import Pace, TaskRun
from tests.strict_bot.wire import FatalMint, NoAnswer, Wire, back_off_s

SAME_ERROR_S = 600.0


class Leave(BaseException):
    """SIGTERM came while the bot waited."""


class Next(Enum):
    """What comes after a process of the bot."""

    EXIT = "exit"
    RESTART = "restart"


@dataclass(frozen=True)
class Options:
    """Who the bot is, and how patient. Seconds; pairs are uniform ranges."""

    url: str
    bot_id: str
    folder: str
    dimensions: dict = field(default_factory=dict)
    version: str = ""
    token: str = ""
    poll_s: tuple = (100.0, 140.0)
    pace: Pace = field(default_factory=Pace)
    restart_pause_s: float = 2.0
    longest_sleep_s: float = 600.0
    break_on: str = ""
    mint: tuple = ()


class Signals:
    """Set by SIGTERM; interrupts only where that loses nothing."""

    def __init__(self):
        self.leaving = False
        self.may_interrupt = False

    def set(self, *_signal):
        self.leaving = True
        if self.may_interrupt:
            raise Leave

    def __enter__(self):
        self.may_interrupt = True
        if self.leaving:
            self.may_interrupt = False
            raise Leave

    def __exit__(self, *_exc):
        self.may_interrupt = False


class Process:
    """One process of the bot, from its handshake to its end; it runs archive `version`."""

    def __init__(self, options, version, clock, transcript, signals):
        self.options = options
        self.version = version
        self.clock = clock
        self.transcript = transcript
        self.signals = signals
        self.wire = Wire(options.url, options.bot_id, clock, transcript)
        self.session_id = f"{uuid.uuid4().hex}/{os.getpid()}"
        self.next_version = version
        self.script_name = self.script_rev = ""
        self.server_dimensions = {}
        self.rbe = None
        self.lease_session = ""
        self.idle = False
        self.sleep_streak = 0
        self.quarantined = ""
        self.finished = None
        self.poll_uuid = ""
        self.poll_due = 0.0
        self.lease_due = 0.0
        self.polled_dimensions = None
        self.failures = {"poll": 0, "lease": 0}
        self.has_shut_down = False
        self.told = {}
        self.end = None

    def run(self):
        """Until something ends this process; what comes next."""
        try:
            archive.ping(self.wire)
            with self.signals:
                self._handshake()
            while self.end is None:
                self._turn()
        except Leave:
            self._leave("Signal was received", Next.EXIT)
        return self.end

    # Attributes (bot-api A.2).

    def dimensions(self):
        dims = {**self.options.dimensions, **self.server_dimensions}
        dims["id"] = [self.options.bot_id]
        if self.script_name:
            dims["bot_config"] = [self.script_name]
        return dims

    def state(self):
        state = {
            "cost_usd_hour": 0.4,
            "running_time": round(self.clock.monotonic(), 3),
            "sleep_streak": self.sleep_streak,
            "rbe_instance": self.rbe["instance"] if self.rbe else None,
        }
        if self.rbe:
            state["rbe_session"] = self.lease_session or None
            state["rbe_hybrid_mode"] = self.rbe["hybrid_mode"]
            state["rbe_idle"] = self.idle
        if self.script_name:
            state["bot_config"] = {"name": self.script_name, "revision": self.script_rev}
        if self.quarantined:
            state["quarantined"] = self.quarantined
        return state

    def attributes(self):
        return {"dimensions": self.dimensions(), "state": self.state(), "version": self.version}

    # The calls.

    def _handshake(self):
        """Repeated forever with back-off 2.0 (bot-api A.1, A.3)."""
        failures = 0
        while True:
            try:
                body = {**self.attributes(), "session_id": self.session_id}
                reply = replies.handshake(self.wire.post("handshake", body))
            except NoAnswer as error:
                failures += 1
                self.transcript.add(note="no answer", text=str(error))
                self.clock.sleep(back_off_s(self.clock, failures, 2.0))
            else:
                break
        self.script_name = reply["bot_config_name"]
        self.script_rev = reply["bot_config_rev"]
        self.server_dimensions = reply["bot_group_cfg"]["dimensions"]
        self.rbe = reply.get("rbe")
        for name in self.options.mint:
            self._mint(name)

    def _mint(self, name):
        """A token of the system account (bot-api 1.9)."""
        body = {"account_id": "system", "id": self.options.bot_id, "session": self.wire.session}
        body |= {"scopes": ["email"]} if name == "oauth_token" else {"audience": "https://a"}
        try:
            replies.minted(name, self.wire.post(name, body))
        except FatalMint as error:
            self.transcript.add(note="fatal mint", text=str(error))
        except NoAnswer as error:
            self.transcript.add(note="no answer", text=str(error))

    def _turn(self):
        """One cycle of A.1 step 5."""
        now = self.clock.monotonic()
        if now >= self.poll_due or self.dimensions() != self.polled_dimensions:
            self._poll()
        elif self.rbe and now >= self.lease_due:
            self._ask_for_work()
        else:
            due = min([self.poll_due, self.lease_due] if self.rbe else [self.poll_due])
            with self.signals:
                self.clock.sleep(max(0.0, due - now))

    def _poll(self):
        """One attempt; the same `request_uuid` until one succeeds (bot-api 0.5, A.4)."""
        self.poll_uuid = self.poll_uuid or str(uuid.uuid4())
        body = {
            **self.attributes(),
            "request_uuid": self.poll_uuid,
            "session": self.wire.session,
        }
        if self.rbe and self.rbe["hybrid_mode"]:
            body["force"] = True
        self.polled_dimensions = body["dimensions"]
        try:
            with self.signals:
                reply = self.wire.post("poll", body, once=True)
        except NoAnswer as error:
            self._failed("poll", error)
            self.poll_due = self._later(back_off_s(self.clock, self.failures["poll"], 1.4))
            return
        cmd, payload = replies.poll(reply)
        self.poll_uuid = ""
        self.failures["poll"] = 0
        self._act(cmd, payload, reply)

    def _act(self, cmd, payload, reply):
        """What the reply of a poll wants (bot-api 3.3)."""
        if cmd == "sleep":
            self._close_lease_session("BOT_TERMINATING")
            self.rbe = None
            self.sleep_streak += 1
            self.poll_due = self._later(min(payload, self.options.longest_sleep_s))
        elif cmd == "rbe":
            self._use(payload)
            low, high = self.options.poll_s
            wait = self.clock.uniform(low, high)
            self.poll_due = self._later(payload["sleep"] / 2 if payload["hybrid_mode"] else wait)
        elif cmd == "run":
            self._use(reply.get("rbe"))
            self._run_task(payload, lease=None)
            self.poll_due = 0.0
        elif cmd == "terminate":
            self._terminate(payload)
            self._leave("Signal was received", Next.EXIT)
        elif cmd == "update":
            self._update_self(payload)
        elif cmd == "bot_restart":
            self._close_lease_session("HOST_REBOOTING")
            self._leave(f"About to restart: {payload}", Next.RESTART)
        else:
            self._leave(payload, Next.RESTART, event="bot_rebooting", status="HOST_REBOOTING")

    def _use(self, rbe):
        """Another instance, or none, ends the lease session."""
        if self.lease_session and (not rbe or rbe["instance"] != self.rbe["instance"]):
            self._close_lease_session("BOT_TERMINATING")
        self.rbe = rbe

    def _update_self(self, version):
        """Download, look at it, become it (bot-api 8.6)."""
        self._close_lease_session("HOST_REBOOTING")
        try:
            archive.download(self.wire, version)
        except NoAnswer as error:
            self._report(f"Failed to self-update: {error}")
            self.quarantined = "Failed to self-update the bot"
            self.poll_due = self._later(self.options.poll_s[0])
            return
        self.next_version = version
        self._leave(f"About to restart: Updating to {version}", Next.RESTART)

    # The lease session (bot-api 1.11).

    def _ask_for_work(self):
        """One lease update, and what it brings."""
        is_unwell = any(self.failures.values())
        try:
            with self.signals:
                if not self.lease_session:
                    self._open_lease_session()
                lease = self._lease_update(
                    "OK", self.finished, nonblocking=not (self.idle or is_unwell)
                )
        except NoAnswer as error:
            self._failed("lease", error)
            self.lease_due = self._later(back_off_s(self.clock, self.failures["lease"], 1.4))
            return
        self.failures["lease"] = 0
        if lease is not None:
            self.idle, self.sleep_streak = False, 0
            self._work(lease)
        elif self.lease_session:
            if not self.idle:
                self.idle, self.poll_due = True, 0.0
            self.sleep_streak += 1

    def _bot_version(self):
        return f"linux_amd64_swarming/{self.version}"

    def _open_lease_session(self):
        body = {"bot_version": self._bot_version(), "session": self.wire.session}
        reply = self.wire.post("rbe/session/create", body, once=True)
        self.lease_session = replies.created(reply)

    def _lease_update(self, status, lease, *, nonblocking=False, once=True):
        """The lease of the reply, None without one. A dead session is forgotten."""
        body = {
            "bot_version": self._bot_version(),
            "session": self.wire.session,
            "status": status,
        }
        if nonblocking:
            body["nonblocking"] = True
        if lease:
            body["lease"] = lease
        reply = self.wire.post("rbe/session/update", body, once=once)
        answered, found = replies.updated(reply, status, lease)
        if lease and lease["state"] == "COMPLETED":
            self.finished = None
        if answered != "OK":
            self.lease_session = ""
            return None
        return found

    def _close_lease_session(self, status):
        """Tell the server, with the finished lease if there is one."""
        if not self.lease_session:
            return
        try:
            self._lease_update(status, self.finished, once=False)
        except NoAnswer as error:
            self.transcript.add(note="no answer", text=str(error))
        self.lease_session = ""

    def _work(self, lease):
        """Claim the lease and do what the claim says (bot-api 4.2)."""
        payload = lease["payload"]
        if payload.get("noop"):
            self._finish(lease["id"], {})
            return
        body = {
            **self.attributes(),
            "claim_id": lease["id"],
            "session": self.wire.session,
            "task_id": payload["task_id"],
            "task_to_run_id": payload.get("task_to_run_id", 0),
            "task_to_run_shard": payload.get("task_to_run_shard", 0),
        }
        try:
            cmd, what = replies.claimed(self.wire.post("claim", body))
        except NoAnswer as error:
            self._report(f"Failed to claim: {error}")
            self._finish(lease["id"], {"bot_internal_error": str(error)})
            return
        if cmd == "skip":
            self._finish(lease["id"], {"skip_reason": what})
            self.poll_due = 0.0
        elif cmd == "terminate":
            self._terminate(what)
            self._finish(lease["id"], {})
            self._leave("Signal was received", Next.EXIT)
        else:
            self._run_task(what, lease["id"])

    def _finish(self, lease_id, result):
        """The lease is reported with the next update."""
        self.finished = {"id": lease_id, "result": result, "state": "COMPLETED"}

    def _run_task(self, manifest, lease):
        """Run it, then flush its lease with MAINTENANCE (bot-api 1.11)."""
        report = {"id": lease, "state": "ACTIVE"} if lease else None
        lost = []

        def ping_lease():
            """ACTIVE while the lease is ours, else only that the bot lives; the next pause."""
            is_leased = report is not None and not lost
            try:
                if is_leased and self._lease_update("OK", report) is None:
                    lost.append(lease)
                elif not is_leased and self.rbe:
                    if not self.lease_session:
                        self._open_lease_session()
                    self._lease_update("MAINTENANCE", None)
            except NoAnswer as error:
                self.transcript.add(note="no answer", text=str(error))
            return self.options.pace.unleased_ping if lost else self.options.pace.ping

        TaskRun(
            self.wire,
            manifest,
            self.options.pace,
            self.options.folder,
            ping_lease=ping_lease,
            break_on=self.options.break_on,
            leaving=lambda: self.signals.leaving,
        ).run()
        if lease and not lost:
            self._finish(lease, {})
            try:
                self._lease_update("MAINTENANCE", self.finished, nonblocking=True, once=False)
            except NoAnswer as error:
                self.transcript.add(note="no answer", text=str(error))
        self.idle = False

    def _terminate(self, task_id):
        """A termination task is complete at once (bot-api 5.2)."""
        body = {
            "duration": 0,
            "exit_code": 0,
            "id": self.options.bot_id,
            "session": self.wire.session,
            "task_id": task_id,
        }
        try:
            replies.task_updated(
                self.wire.post("task_update", body, task_id=task_id), is_final=True
            )
        except NoAnswer as error:
            self.transcript.add(note="no answer", text=str(error))

    # Telling, waiting, ending.

    def _failed(self, what, error):
        self.failures[what] += 1
        self.transcript.add(note="no answer", text=str(error), failures=self.failures[what])

    def _later(self, seconds):
        return self.clock.monotonic() + seconds

    def _report(self, text):
        """A `bot_error`, at most once in ten minutes for the same text (bot-api A.4)."""
        now = self.clock.monotonic()
        if now - self.told.get(text, -SAME_ERROR_S) < SAME_ERROR_S:
            return
        self.told[text] = now
        self._event("bot_error", text)

    def _event(self, event, message):
        """Failures are ignored; the reply is exactly `{}`. Did it succeed?"""
        body = {
            **self.attributes(),
            "event": event,
            "message": message,
            "session": self.wire.session,
        }
        try:
            replies.nothing("1.6.p1", "event", self.wire.post("event", body))
        except NoAnswer as error:
            self.transcript.add(note="no answer", text=str(error))
            return False
        return True

    def _leave(self, message, then, *, event="bot_shutdown", status="BOT_TERMINATING"):
        """Say goodbye once and close the lease session (bot-api 1.6, A.1)."""
        if not self.has_shut_down and self.wire.session:
            self.has_shut_down = self._event(event, message)
        self._close_lease_session(status)
        self.end = then


def live(options, clock, transcript, signals):
    """Every process of the bot, one after another, until one does not want another."""
    wire = Wire(options.url, options.bot_id, clock, transcript)
    version = options.version
    if options.token:
        installed = archive.bootstrap(wire, options.token)
        version = version or installed
    while True:
        process = Process(options, version, clock, transcript, signals)
        transcript.add(note="process", session_id=process.session_id, version=version)
        end = process.run()
        transcript.add(note="end", what=end.value)
        if end is Next.EXIT:
            return
        version = process.next_version
        try:
            with signals:
                clock.sleep(options.restart_pause_s)
        except Leave:
            return
