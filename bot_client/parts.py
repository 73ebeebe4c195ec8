"""What the supervisor is made of, and how it tells the server about trouble."""

import logging
from typing import Any, NamedTuple

from bot_client.clock import Clock
from bot_client.describe import Description
from bot_client.enrolment import Enrolment
from bot_client.errors import BotError, Interrupted
from bot_client.hooks import Bot, Hooks
from bot_client.lease import LeaseSession
from bot_client.runner_link import RunnerLink
from bot_client.server_api import ServerApi
from bot_client.signals import Signals
from bot_client.storage import Storage
from bot_client.update import Updater

log = logging.getLogger("bot.parts")

Json = dict[str, Any]

ERROR_REPEAT_S = 600.0


class Parts(NamedTuple):
    """Built once at start; `supervisor` knows how."""

    clock: Clock
    signals: Signals
    api: ServerApi
    bot: Bot
    hooks: Hooks
    description: Description
    enrolment: Enrolment
    updater: Updater
    link: RunnerLink
    lease: LeaseSession
    storage: Storage


class Leave(Exception):
    """The process is to end: what the server is told, and the exit code."""

    def __init__(self, message: str, lease_status: str, exit_code: int) -> None:
        """``message`` goes into the event, ``lease_status`` is the lease session's last word."""
        super().__init__(message)
        self.message = message
        self.lease_status = lease_status
        self.exit_code = exit_code


class Reporter:
    """Events to the server, errors among them at most once in ten minutes."""

    def __init__(self, parts: Parts) -> None:
        """Nothing is posted before there is a session."""
        self._p = parts
        self._reported: dict[str, float] = {}

    def error(self, message: str) -> None:
        """Post a ``bot_error``, unless the same one was posted in the last ten minutes."""
        log.error("%s", message)
        now = self._p.clock.now()
        if now - self._reported.get(message, -ERROR_REPEAT_S) < ERROR_REPEAT_S:
            return
        self._reported[message] = now
        self.event("bot_error", message)

    def event(self, kind: str, message: str) -> bool:
        """Post an event; true when the server took it, else that is only logged."""
        if self._p.api.session_token is None:
            return False
        try:
            self._p.api.event(self._p.description.attributes, kind, message)
        except Interrupted:
            raise
        except BotError as failure:
            log.warning("event %s was not taken: %s", kind, failure)
            return False
        return True


def needed_text(reply: Json, key: str) -> str:
    """A string that a reply must have; ValueError names the key."""
    value = reply.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing")
    return value
