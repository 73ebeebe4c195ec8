"""Update, restart, reboot: everything that replaces this process by another."""

import logging
from typing import Any

from bot_client import lease as lease_session
from bot_client.errors import EXIT_RELAUNCH
from bot_client.parts import Leave, Parts, Reporter, needed_text
from bot_client.reboot import RebootRefused, reboot_host
from bot_client.update import UpdateFailed

log = logging.getLogger("bot.lifecycle")

Json = dict[str, Any]

UPDATE_FAILED_TEXT = "Failed to self-update the bot"


class Declined(Exception):
    """The version that the server names may not be tried now: work on with this one."""


class Lifecycle:
    """Each command either raises `Leave`, or ValueError when it could not be obeyed."""

    def __init__(self, parts: Parts, reporter: Reporter) -> None:
        """``trusted`` becomes true when this version has proved itself."""
        self._p = parts
        self._reporter = reporter
        self.trusted = False

    def trust(self) -> None:
        """After an idle cycle or a task: this version becomes the last known good one."""
        if not self.trusted:
            self.trusted = True
            self._p.updater.pass_probation(self._p.bot.bot_version)

    def update(self, reply: Json) -> None:
        """Take a new version; every failure leaves the bot polling, quarantined with the reason.

        Declined when it failed here so lately that it is too early for another try.
        """
        p = self._p
        version = needed_text(reply, "version")
        wait_s = p.updater.wait_s(version)
        if wait_s > 0:
            raise Declined(f"version {version} failed here; not before {wait_s:.0f} s")
        p.lease.close(lease_session.HOST_REBOOTING)
        try:
            with p.signals.cut_short(1):
                slot = p.updater.fetch(version)
        except UpdateFailed as failure:
            p.description.quarantine("update", UPDATE_FAILED_TEXT)
            self._reporter.error(str(failure))
            raise ValueError(f"no update: {failure}") from failure
        p.updater.choose(slot, version)
        raise self._relaunch(f"Updating to {version}")

    def settle(self, command: str) -> bool:
        """The server asks for something else now; was the bot out because it failed before?

        A restart fails where the server is away for its self-test, and need not be asked for
        again: the change that it was for may be taken back meanwhile.
        """
        healed = False
        if command != "update":
            self._p.updater.settle()
            healed = self._p.description.heal("update")
        if command != "bot_restart":
            healed = self._p.description.heal("restart") or healed
        return healed

    def _relaunch(self, why: str) -> Leave:
        text = f"About to restart: {why}"
        return Leave(text, lease_session.HOST_REBOOTING, EXIT_RELAUNCH)

    def restart(self, reply: Json) -> None:
        """``bot_restart``: the same archive in a new process."""
        self._restart(needed_text(reply, "message"))

    def _restart(self, message: str) -> None:
        p = self._p
        try:
            with p.signals.cut_short(1):
                p.updater.test_running()
        except UpdateFailed as failure:
            p.description.quarantine("restart", "Failed to restart the bot")
            self._reporter.error(str(failure))
            raise ValueError(f"no restart: {failure}") from failure
        p.updater.stay()
        raise self._relaunch(message)

    def reboot(self, reply: Json) -> None:
        """``host_reboot``: the whole machine."""
        self._reboot(needed_text(reply, "message"))

    def _reboot(self, message: str) -> None:
        """Where a reboot cannot be, say so and restart the process instead."""
        p = self._p
        try:
            reboot_host(p.clock, lambda: self._announce_reboot(message), p.signals.stop_asked)
        except RebootRefused as refusal:
            self._reporter.error(f"cannot reboot ({message}): {refusal}")
            p.description.quarantine("reboot", f"Failed to reboot: {refusal}")
            if refusal.may_restart:
                self._restart(message)
            raise ValueError(f"no reboot: {refusal}") from refusal

    def _announce_reboot(self, message: str) -> None:
        self._reporter.event("bot_rebooting", message)
        self._p.lease.close(lease_session.HOST_REBOOTING)

    def obey_hooks(self) -> None:
        """Restarts and reboots that hooks asked for during this cycle."""
        bot = self._p.bot
        restart, bot.restart_reason = bot.restart_reason, None
        reboot, bot.reboot_reason = bot.reboot_reason, None
        try:
            if reboot is not None:
                self._reboot(reboot)
            if restart is not None:
                self._restart(restart)
        except ValueError as failure:
            log.warning("%s", failure)
