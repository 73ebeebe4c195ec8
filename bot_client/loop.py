"""The supervisor's loop: the only place that knows the order of things.

One thread, a few timers.  Whatever is broken in hooks, in a task or in a new release, the loop
that asks the server "what now?" keeps turning, because that is how the repair arrives.
"""

import logging
import traceback
from collections.abc import Callable
from typing import Any, Optional

from bot_client import lease as lease_session
from bot_client.clock import Backoff, Timer
from bot_client.errors import EXIT_OK, Fatal, Interrupted, Refused, SessionLost, Transient
from bot_client.hooks import HookFailed
from bot_client.lease import Lease
from bot_client.lifecycle import Declined, Lifecycle
from bot_client.parts import Leave, Parts, Reporter, needed_text
from bot_client.transport import LEAVING, ONCE, asked_pause
from bot_client.work import Work

log = logging.getLogger("bot.loop")

Json = dict[str, Any]

TRACE_CHARS = 2048
SHORT_HOLD_S = 2.0
HOLD_S = 45.0
LONGEST_WAIT_S = 300.0


class Loop:
    """Handshake, then poll, lease, claim, run, repeat."""

    def __init__(self, parts: Parts) -> None:
        """Everything is due at once."""
        self._p = parts
        clock = parts.clock
        self._clock = clock
        self._poll_timer, self._lease_timer = Timer(clock), Timer(clock)
        self._poll_errors, self._lease_errors = Backoff(clock, 1.4), Backoff(clock, 1.4)
        self._loop_errors, self._session_errors = Backoff(clock, 2.0), Backoff(clock, 1.4)
        self._short_holds = Backoff(clock, 2.0, 10.0)
        self._lease_mode = False
        self._declined = False
        self._instance: Optional[str] = None
        self._idle = False
        self._sleep_streak = 0
        self._idle_since = clock.now()
        self._request_uuid = clock.new_id()
        self._sent_dimensions: Optional[dict[str, list[str]]] = None
        self._cycles = 0
        self.reporter = Reporter(parts)
        self._lifecycle = Lifecycle(parts, self.reporter)
        self._work = Work(parts, self.reporter, self._lifecycle)

    def run(self, reports: list[str]) -> int:
        """Until asked to leave; ``reports`` are errors of earlier processes to pass on."""
        p = self._p
        p.api.give_up = p.signals.stop_asked
        try:
            p.hooks.call("on_bot_startup", p.bot)
            p.link.ensure()
            self._handshake()
            for text in reports:
                self.reporter.error(text)
            while not p.signals.stop_asked():
                self._turn()
        except Interrupted:
            log.info("interrupted")
        except Leave as leave:
            return self._leave(leave)
        return self._leave(Leave("Signal was received", lease_session.BOT_TERMINATING, EXIT_OK))

    def quarantine(self, code: str, text: str) -> None:
        """Quarantine for a reason found before the loop."""
        self._p.description.quarantine(code, text)

    def earlier_failures(self) -> list[str]:
        """Versions that died on probation and that nobody has told the server about."""
        return self._p.updater.take_reports()

    def _handshake(self) -> None:
        """Register, again and again until it works; a refusal may be lifted later."""
        p = self._p
        errors = Backoff(self._clock, 2.0)
        refused = ""
        while True:
            try:
                with p.signals.cut_short(1):
                    self._enrol_if_needed()
                    reply = p.api.handshake(p.description.refresh(), p.bot.session_id)
                self._obey_handshake(reply)
            except SessionLost as failure:  # noqa: PERF203 - a loop of network calls
                if str(failure) != refused:
                    log.error(  # noqa: TRY400 - one line for a person
                        "the server does not let this bot in (will try on): %s", failure
                    )
                refused = str(failure)
                if p.enrolment.token:
                    p.enrolment.secret = None
                self._pause(errors.fail())
            except (Transient, Refused, ValueError) as failure:
                log.warning("handshake failed: %s", failure)
                self._pause(max(errors.fail(), self._asked(failure)))
            else:
                return

    def _enrol_if_needed(self) -> None:
        p = self._p
        if p.enrolment.needs_enrolling():
            p.enrolment.enrol(p.api)
            p.api.secret = p.enrolment.secret

    def _asked(self, failure: Exception) -> float:
        """How long the server wants to be left alone, spread."""
        return asked_pause(failure, self._clock)

    def _pause(self, seconds: float) -> None:
        self._clock.wait(seconds)
        if self._p.signals.stop_asked():
            raise Interrupted("leaving")

    def _obey_handshake(self, reply: Json) -> None:
        """Take over what the server decided.  ValueError when the reply is malformed."""
        p = self._p
        p.description.obey(reply)
        if reply.get("rbe") is not None:
            self._instance = _rbe_instance(reply)
            self._lease_mode = True
        source = reply.get("bot_config")
        try:
            p.hooks.inject(source if isinstance(source, str) else None)
        except HookFailed as failure:
            text = f"handshake returned invalid injected bot_config.py: {failure}"
            p.description.quarantine("injected_hooks", text)
        if reply.get("bot_version") not in {None, p.bot.bot_version}:
            log.info("the server wants version %s", reply.get("bot_version"))
        p.lease.forget()
        p.hooks.call("on_handshake", p.bot)
        self._poll_timer.arm(0)
        self._lease_timer.arm(0)

    def _turn(self) -> None:
        """One cycle, and what may go wrong in it."""
        try:
            self._cycle()
            self._loop_errors.succeed()
        except (Leave, Fatal, Interrupted):
            raise
        except SessionLost as failure:
            log.warning("session lost: %s", failure)
            self._pause(self._session_errors.fail())
            self._handshake()
        except Exception:
            log.exception("error in the loop")
            self.reporter.error(traceback.format_exc()[-TRACE_CHARS:])
            self._pause(self._loop_errors.fail())

    def _cycle(self) -> None:
        p = self._p
        self._cycles += 1
        p.link.ensure()
        p.hooks.call("on_before_poll", p.bot)
        self._refresh()
        command: Optional[str] = None
        polled = self._poll_timer.is_due()
        if polled:
            command = self._poll()
        lease = self._ask() if self._may_ask() and self._lease_timer.is_due() else None
        if polled or lease is not None:
            p.hooks.call("on_after_poll", p.bot, command if lease is None else "run")
        if lease is not None:
            self._idle = False
            self._sleep_streak = 0
            self._work.execute(lease)
            self._idle_since = self._clock.now()
        self._lifecycle.obey_hooks()
        if self._idle:
            p.hooks.call("on_bot_idle", p.bot, self._clock.now() - self._idle_since)
        self._sleep_until_due()

    def _may_ask(self) -> bool:
        """Lease mode, unless a poll that failed is to be repeated within the time of a hold."""
        soon = self._poll_errors.failures > 0 and self._poll_timer.remaining() < HOLD_S
        return self._lease_mode and not soon

    def _sleep_until_due(self) -> None:
        waits = [self._poll_timer.remaining()]
        if self._may_ask():
            waits.append(self._lease_timer.remaining())
        seconds = min(*waits, LONGEST_WAIT_S)
        if seconds > 0 and not self._p.signals.stop_asked():
            self._clock.wait(seconds)

    def _refresh(self) -> None:
        p = self._p
        extra: Json = {
            "sleep_streak": self._sleep_streak,
            "rbe_instance": self._instance,
            "loop": {"cycles": self._cycles, "errors": self._loop_errors.failures},
            "update": p.updater.report,
        }
        if self._instance is not None:
            extra["rbe_session"] = p.lease.session_id
            extra["rbe_hybrid_mode"] = False
            extra["rbe_idle"] = self._idle
        if self._work.last_task is not None:
            extra["last_task"] = self._work.last_task
        p.description.extra_state = extra
        p.bot.session_token = p.api.session_token
        dimensions = p.description.refresh().dimensions
        if dimensions != self._sent_dimensions:
            self._poll_timer.arm(0)

    def _poll(self) -> Optional[str]:
        """One poll and its command; None when it failed."""
        p = self._p
        if p.lease.has_report():
            self._flush()
        attributes = p.description.attributes
        try:
            with p.signals.cut_short(1):
                reply = p.api.poll(attributes, self._request_uuid)
            self._request_uuid = self._clock.new_id()
            self._sent_dimensions = attributes.dimensions
            self._note_clock()
            self._poll_timer.arm(0)
            command = self._obey_or_decline(reply)
        except (Transient, Refused, ValueError) as failure:
            log.warning("poll failed: %s", failure)
            self._poll_timer.arm(max(self._poll_errors.fail(), self._asked(failure)))
            return None
        self._poll_errors.succeed()
        self._session_errors.succeed()
        return command

    def _obey_or_decline(self, reply: Json) -> str:
        """Obey; an update that may not be tried now is no failure, and no reason to stand idle."""
        self._declined = False
        try:
            return self._obey(reply)
        except Declined as reason:
            log.warning("%s", reason)
            self._declined = True
            self._pace_polls()
            return "update"

    def _pace_polls(self) -> None:
        mean = self._p.api.poll_s
        self._poll_timer.arm(self._clock.uniform(mean * 5 / 6, mean * 7 / 6))

    def _flush(self) -> None:
        try:
            self._p.lease.flush()
        except (Transient, Refused) as failure:
            log.warning("the finished lease could not be reported: %s", failure)

    def _note_clock(self) -> None:
        date = self._p.api.transport.server_date()
        if date is not None:
            self._p.description.clock_skew_s = self._clock.wall() - date

    def _obey(self, reply: Json) -> str:
        """Carry out a poll's command.  ValueError for what cannot be understood."""
        command = reply.get("cmd")
        actions: dict[str, Callable[[Json], None]] = {
            "sleep": self._do_sleep,
            "rbe": self._do_rbe,
            "run": self._do_run,
            "update": self._lifecycle.update,
            "bot_restart": self._lifecycle.restart,
            "restart": self._lifecycle.reboot,
            "host_reboot": self._lifecycle.reboot,
            "terminate": self._work.terminate,
        }
        action = actions.get(command) if isinstance(command, str) else None
        if not isinstance(command, str) or action is None:
            self.reporter.error(f"the server sent an unknown command: {command!r}")
            raise ValueError(f"unknown command {command!r}")
        action(reply)
        if self._lifecycle.settle(command):
            self._poll_timer.arm(0)  # the answer was to a bot that could not update or restart
        return command

    def _do_sleep(self, reply: Json) -> None:
        duration = reply.get("duration")
        if isinstance(duration, bool) or not isinstance(duration, (int, float)) or duration < 0:
            raise ValueError("sleep without duration")
        self._end_lease_mode(lease_session.BOT_TERMINATING)
        self._poll_timer.arm(duration * self._clock.uniform(0.9, 1.1))
        self._note_idle()

    def _do_rbe(self, reply: Json) -> None:
        self._instance = _rbe_instance(reply)
        if not self._lease_mode:
            self._lease_mode = True
            self._lease_timer.arm(0)
        self._pace_polls()

    def _do_run(self, reply: Json) -> None:
        if "manifest" not in reply:
            raise ValueError("run without manifest")
        if reply.get("rbe") is None:
            self._end_lease_mode(lease_session.BOT_TERMINATING)
        self._idle = False
        self._work.run_task(reply["manifest"], None)
        self._idle_since = self._clock.now()
        self._poll_timer.arm(0)

    def _end_lease_mode(self, status: str) -> None:
        if self._lease_mode:
            self._p.lease.close(status)
        self._lease_mode = False
        self._instance = None

    def _ask(self) -> Optional[Lease]:
        """Report the last lease and wait for the next; None when there is none."""
        p = self._p
        asked_at = self._clock.now()
        blocking = self._lifecycle.trusted
        try:
            with p.signals.cut_short(1):
                lease = p.lease.ask(nonblocking=not blocking)
        except (Transient, Refused) as failure:
            log.warning("lease session: %s", failure)
            self._lease_timer.arm(max(self._lease_errors.fail(), self._asked(failure)))
            return None
        self._lease_errors.succeed()
        self._session_errors.succeed()
        wanted, p.lease.poll_wanted = p.lease.poll_wanted, False
        if wanted and not self._declined:
            self._poll_timer.arm(0)
        elif lease is None and blocking and self._clock.now() - asked_at < SHORT_HOLD_S:
            self._lease_timer.arm(self._short_holds.fail())
        else:
            self._short_holds.succeed()
        if lease is None:
            self._note_idle()
        return lease

    def _note_idle(self) -> None:
        if not self._idle:
            self._idle_since = self._clock.now()
        self._idle = True
        self._sleep_streak += 1
        self._lifecycle.trust()

    def _leave(self, leave: Leave) -> int:
        """Last words, then nothing is left running."""
        p = self._p
        p.api.give_up = p.signals.stop_now
        log.info("leaving: %s", leave.message)
        try:
            with p.signals.cut_short(2):
                heard = self.reporter.event("bot_shutdown", leave.message)
                p.lease.close(leave.lease_status, LEAVING if heard else ONCE)
        except Interrupted:
            log.warning("left without saying goodbye")
        p.hooks.call("on_bot_shutdown", p.bot)
        p.link.dismiss()
        p.api.transport.close()
        return leave.exit_code


def _rbe_instance(reply: Json) -> str:
    rbe = reply.get("rbe")
    if not isinstance(rbe, dict) or "hybrid_mode" not in rbe:
        raise ValueError("rbe without hybrid_mode")
    return needed_text(rbe, "instance")
