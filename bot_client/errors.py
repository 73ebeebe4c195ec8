"""What can go wrong, in the few kinds that the loop acts on.

``transport`` and ``server_api`` sort every failure; nothing above them reads a status number.
"""

from typing import Optional

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_ENROLMENT_REFUSED = 3
EXIT_RELAUNCH = 64
EXIT_LOCKED = 75
EXIT_CONFIG = 78


class BotError(Exception):
    """Base of everything the bot raises on purpose."""


class Transient(BotError):
    """The network or the server is in trouble; the same call may work later."""

    def __init__(self, message: str, retry_after_s: Optional[float] = None) -> None:
        """``retry_after_s`` is the server's own wish, if it stated one."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadReply(Transient):
    """A 2xx without a usable JSON object; not repeated at once, the caller's loop backs off."""


class SessionLost(BotError):
    """401 or 403: the session or the credentials are not accepted; a handshake may repair it."""


class Refused(BotError):
    """Any other 4xx (or 3xx): repeating the same call is pointless.

    ``committed`` is the output length the server has stored, when it said so with a 409.
    """

    def __init__(self, message: str, status: int, committed: Optional[int] = None) -> None:
        """``status`` is kept for messages and for the one question whether it was a 404."""
        super().__init__(message)
        self.status = status
        self.committed = committed


class Interrupted(BotError):
    """A signal cut a call short; the caller looks at what was asked for."""


class Fatal(BotError):
    """The process cannot go on; ``exit_code`` says why to the service manager."""

    def __init__(self, message: str, exit_code: int) -> None:
        """``message`` is one line for a person."""
        super().__init__(message)
        self.exit_code = exit_code
