"""The lease session: ask for work, keep a lease alive, report it, leave."""

import logging
from typing import Any, NamedTuple, Optional

from bot_client.errors import BadReply, BotError, Refused, Transient
from bot_client.server_api import ServerApi
from bot_client.transport import LEAVING, ONCE, STUBBORN, Schedule

log = logging.getLogger("bot.lease")

Json = dict[str, Any]

OK = "OK"
MAINTENANCE = "MAINTENANCE"
HOST_REBOOTING = "HOST_REBOOTING"
BOT_TERMINATING = "BOT_TERMINATING"


class Lease(NamedTuple):
    """The scheduler's offer of one slice; ``claim`` is the answer to its claim, if it has one."""

    lease_id: str
    payload: Json
    claim: Optional[Json] = None


class LeaseSession:
    """At most one session, at most one finished lease that the scheduler has not heard of."""

    def __init__(self, api: ServerApi, bot_version: str) -> None:
        """``bot_version`` is ``<os>_<arch>_swarming/<digest>``."""
        self._api = api
        self._bot_version = bot_version
        self._finished: Optional[Json] = None
        self.session_id: Optional[str] = None
        self.poll_wanted = False

    def finish(self, lease: Lease, result: Json) -> None:
        """Remember the outcome; the next call reports it."""
        self._finished = {"id": lease.lease_id, "state": "COMPLETED", "result": result}

    def has_report(self) -> bool:
        """Is there an outcome that the scheduler has not heard of?"""
        return self._finished is not None

    def ask(self, *, nonblocking: bool) -> Optional[Lease]:
        """Report the finished lease if any and ask for work; may be held for about 45 s.

        Opens a session when there is none.  Transient when the session turned out to be dead.
        """
        if self.session_id is None:
            self._open()
        fields = self._fields(OK)
        if nonblocking:
            fields["nonblocking"] = True
        reply = self._update(fields, ONCE)
        self._finished = None
        lease = reply.get("lease")
        if isinstance(lease, dict) and lease.get("state") == "PENDING":
            found = _parse_lease(lease, reply.get("skep"))
            self._api.heard_lease = found.lease_id
            return found
        return None

    def _open(self) -> None:
        reply = self._api.session_create(self._bot_version)
        session_id = reply.get("session_id")
        if not isinstance(session_id, str) or not session_id:
            raise BadReply("session/create: no session_id in the reply")
        self.session_id = session_id
        log.info("lease session %s", session_id)

    def _fields(self, status: str) -> Json:
        fields: Json = {"status": status, "bot_version": self._bot_version}
        if self._finished is not None:
            fields["lease"] = self._finished
        return fields

    def _update(self, fields: Json, schedule: Schedule) -> Json:
        try:
            reply = self._api.session_update(fields, schedule)
        except Refused:
            self.forget()
            raise
        wishes = reply.get("skep")
        if isinstance(wishes, dict) and wishes.get("poll") is True:
            self.poll_wanted = True
        status = reply.get("status")
        if not isinstance(status, str) or not status:
            raise BadReply("session/update: no status in the reply")
        if status not in {OK, fields["status"]}:
            self.forget()
            raise Transient(f"the lease session ended: {status}")
        return reply

    def ping(self, lease: Lease) -> bool:
        """Say that the lease is being worked on; false when it was canceled or lost."""
        fields = {**self._fields(OK), "lease": {"id": lease.lease_id, "state": "ACTIVE"}}
        try:
            reply = self._api.session_update(fields)
        except Refused as refusal:
            log.warning("the lease is lost: %s", refusal)
            self.forget()
            return False
        if reply.get("status") not in {OK, None}:
            self.forget()
            return False
        answer = reply.get("lease")
        if not isinstance(answer, dict) or answer.get("id") != lease.lease_id:
            return False
        return bool(answer.get("state") == "ACTIVE")

    def keep(self) -> bool:
        """Keep the session alive during a task that came without a lease."""
        if self.session_id is not None:
            self._update({**self._fields(MAINTENANCE), "nonblocking": True}, ONCE)
        return True

    def flush(self) -> None:
        """Report the finished lease without asking for work, because something else comes first."""
        if self._finished is not None and self.session_id is not None:
            self._update({**self._fields(MAINTENANCE), "nonblocking": True}, STUBBORN)
        self._finished = None

    def close(self, status: str, schedule: Schedule = LEAVING) -> None:
        """End the session, reporting the finished lease along; failures are only logged."""
        if self.session_id is not None:
            try:
                self._api.session_update(self._fields(status), schedule)
            except BotError as failure:
                log.warning("the lease session could not be closed: %s", failure)
        self.forget()

    def forget(self) -> None:
        """There is no session any more; nor anybody who waits for the finished lease."""
        self.session_id = None
        self._finished = None


def _parse_lease(raw: Json, more: object) -> Lease:
    lease_id, payload = raw.get("id"), raw.get("payload")
    if not isinstance(lease_id, str) or not lease_id:
        raise BadReply("session/update: a lease without id")
    claim = more.get("claim") if isinstance(more, dict) else None
    return Lease(
        lease_id,
        payload if isinstance(payload, dict) else {},
        claim if isinstance(claim, dict) else None,
    )
