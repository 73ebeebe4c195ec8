"""Reboots the host, or says at once why that cannot be."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable

from bot_client.clock import Clock
from bot_client.errors import Interrupted

log = logging.getLogger("bot.reboot")

RETRY_S = 300.0
LIMIT_S = 900.0


class RebootRefused(Exception):
    """The host will not reboot; ``may_restart`` tells whether a process restart is allowed."""

    def __init__(self, message: str, *, may_restart: bool) -> None:
        """``message`` is the reason."""
        super().__init__(message)
        self.may_restart = may_restart


def reboot_commands(system: str) -> list[list[str]]:
    """What reboots a host of that system (``sys.platform``), best first."""
    if system == "win32":
        return [["shutdown", "-r", "-f", "-t", "1"]]
    commands = [["sudo", "-n", "shutdown", "-r", "now"]]
    return commands if system == "darwin" else [*commands, ["sudo", "-n", "reboot", "-f"]]


def reboot_host(clock: Clock, announce: Callable[[], None], stop_asked: Callable[[], bool]) -> None:
    """Reboot.  RebootRefused when it is forbidden or does not happen; Interrupted on a signal."""
    if os.environ.get("SWARMING_NEVER_REBOOT"):
        raise RebootRefused("SWARMING_NEVER_REBOOT is set", may_restart=False)
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        raise RebootRefused("inside a container", may_restart=True)
    announce()
    give_up_at = clock.now() + LIMIT_S
    while clock.now() < give_up_at:
        if not any(_succeeds(command) for command in reboot_commands(sys.platform)):
            raise RebootRefused("no right to reboot the host", may_restart=True)
        clock.wait(RETRY_S)
        if stop_asked():
            raise Interrupted("the host goes down")
    raise RebootRefused("Host is stuck rebooting", may_restart=True)


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as failure:
        log.warning("%s: %r", command, failure)
        return False
    return done.returncode == 0
