"""Trades a bootstrap token for this host's own secret, once, and keeps the secret.

The token comes in the zip comment of ``swarming_bot.zip`` or in ``SKEP_BOOTSTRAP_TOKEN``; the
secret is kept in ``enrolled.json`` beside the archive, never in it.  The bot makes the secret
itself and writes it down, as pending, before it asks: when the answer is lost, or the bot is
killed, it asks for the same thing again, and the server sees one use of the token.
"""

import json
import logging
import os
import secrets
from typing import Optional

from bot_client import archive
from bot_client.errors import EXIT_ENROLMENT_REFUSED, Fatal, Refused, SessionLost
from bot_client.server_api import ServerApi
from bot_client.slots import LAST_GOOD

log = logging.getLogger("bot.enrolment")

FILE_NAME = "enrolled.json"
SECRET_BYTES = 32
TOKEN_VARIABLE = "SKEP_BOOTSTRAP_TOKEN"  # noqa: S105 - the name, not the token


class Enrolment:
    """This host's secret for one server."""

    def __init__(self, bot_dir: str, server: str, bot_id: str) -> None:
        """Reads the secret if there is one for this server and host."""
        self._path = os.path.join(bot_dir, FILE_NAME)
        self._zip = os.path.join(bot_dir, LAST_GOOD)
        self._server = server
        self._host_id = bot_id.partition("--")[0]
        self._wished, self.secret = self._read()
        self.token = archive.read_comment(self._zip) or os.environ.get(TOKEN_VARIABLE, "")

    def _read(self) -> tuple[str, Optional[str]]:
        """The secret to ask for, and the one that is in force."""
        fresh = secrets.token_urlsafe(SECRET_BYTES)
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = json.load(file)
            if (kept["server"], kept["host_id"]) != (self._server, self._host_id):
                return fresh, None
            secret = str(kept["secret"])
            return secret, None if kept.get("pending") else secret
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return fresh, None

    def _keep(self, secret: str, *, pending: bool) -> None:
        content = {"server": self._server, "host_id": self._host_id, "secret": secret}
        if pending:
            content["pending"] = "yes"
        archive.write_whole(self._path, json.dumps(content).encode())

    def needs_enrolling(self) -> bool:
        """Is there a token, and no secret yet?"""
        return self.secret is None and bool(self.token)

    def enrol(self, api: ServerApi) -> None:
        """Use the token.  Fatal(3) when it is refused; Transient when the server is away."""
        self._keep(self._wished, pending=True)
        try:
            secret = api.enroll(self.token, self._wished)
        except (SessionLost, Refused) as refusal:
            reason = f"enrolment of {api.bot_id} was refused: {refusal}"
            raise Fatal(reason, EXIT_ENROLMENT_REFUSED) from refusal
        self._keep(secret, pending=False)
        self.secret = secret
        self.token = ""
        if archive.read_comment(self._zip):
            archive.copy_without_comment(self._zip, self._zip)
        log.info("enrolled %s", self._host_id)
