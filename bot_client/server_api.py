"""The conversation with the server: one method per endpoint.

Holds the session token, the call number ``seq`` and the time of the last good contact.  One
thread at a time may call it.  Bodies are never logged: they hold the session token.
"""

import base64
import json
from collections.abc import Callable
from typing import IO, Any, NamedTuple, Optional

from bot_client.clock import Clock
from bot_client.errors import BadReply, SessionLost
from bot_client.transport import (
    LEAVING,
    ONCE,
    PING,
    STUBBORN,
    Schedule,
    Transport,
    parse_object,
    raise_for,
    with_retries,
)

Json = dict[str, Any]
HeaderSource = Callable[[bool], dict[str, str]]

API = "/swarming/api/v1/bot/"
_LAST_WORDS = {"bot_shutdown", "bot_rebooting"}
DEFAULT_CONTACT_S = 300.0
DEFAULT_POLL_S = 120.0
MAX_ARCHIVE_BYTES = 64 * 1024 * 1024


class Attributes(NamedTuple):
    """What the bot says of itself in handshake, poll, claim and events."""

    dimensions: dict[str, list[str]]
    state: Json
    version: str


class OutputPiece(NamedTuple):
    """Bytes of a task's output and the absolute offset of the first one."""

    offset: int
    data: bytes


class ServerApi:
    """Typed calls.  Raises Transient, SessionLost, Refused or Interrupted, nothing else."""

    def __init__(self, transport: Transport, clock: Clock, bot_id: str, user_agent: str) -> None:
        """``auth_headers`` and ``secret`` may be set later; both go on every call.

        ``give_up`` is asked between two tries: true ends the schedule with Interrupted.
        """
        self.transport = transport
        self.clock = clock
        self.bot_id = bot_id
        self.session_token: Optional[str] = None
        self.secret: Optional[str] = None
        self.auth_headers: Optional[HeaderSource] = None
        self.give_up: Callable[[], bool] = bool
        self.contact_s = DEFAULT_CONTACT_S
        self.poll_s = DEFAULT_POLL_S
        self.last_contact_at = clock.now()
        self.on_token: Callable[[str], None] = lambda _token: None
        self.heard_lease = ""
        self._user_agent = user_agent
        self._seq = 0

    def ping(self, schedule: Schedule = PING) -> None:
        """GET server_ping."""

        def once() -> None:
            reply = self.transport.request("GET", API + "server_ping", headers=self.headers())
            raise_for(reply, "server_ping", API)

        with_retries(once, self.clock, schedule, self.give_up)

    def enroll(self, token: str, secret: str) -> str:
        """Trade a bootstrap token for this host's secret, which we propose.

        SessionLost when it is refused.
        """
        body = {"bot_id": self.bot_id, "token": token, "secret": secret}
        reply = self._post("/skep/v1/enroll", body, STUBBORN, bare=True)
        given = reply.get("secret")
        if not isinstance(given, str) or not given:
            raise BadReply("enroll: no secret in the reply")
        return given

    def handshake(self, attributes: Attributes, session_id: str) -> Json:
        """Register; the reply's ``session`` becomes the token."""
        self.session_token = None
        body = self._described(attributes, session_id=session_id)
        return self._post(API + "handshake", self._numbered(body), STUBBORN)

    def poll(self, attributes: Attributes, request_uuid: str) -> Json:
        """One heartbeat, one attempt; the reply holds ``cmd``."""
        body = self._described(attributes, request_uuid=request_uuid)
        return self._post(API + "poll", self._with_lease(body), ONCE)

    def claim(self, attributes: Attributes, claim_id: str, payload: Json) -> Json:
        """Accept a lease; exactly once by claim_id however often it is repeated."""
        body = self._described(
            attributes,
            claim_id=claim_id,
            task_id=payload["task_id"],
            task_to_run_shard=payload.get("task_to_run_shard", 0),
            task_to_run_id=payload.get("task_to_run_id", 0),
        )
        return self._post(API + "claim", self._numbered(body), STUBBORN)

    def event(self, attributes: Attributes, kind: str, message: str) -> None:
        """Record something that happened.  Raises as any call; callers mostly ignore that."""
        body = self._described(
            attributes, event=kind, message=message, request_uuid=self.clock.new_id()
        )
        schedule = LEAVING if kind in _LAST_WORDS else STUBBORN
        self._post(API + "event", body, schedule, may_be_empty=True)

    def task_update(
        self,
        task_id: str,
        fields: Json,
        output: Optional[OutputPiece],
        schedule: Schedule = STUBBORN,
    ) -> Json:
        """Report progress or completion; the reply tells ``must_stop``."""
        body: Json = {"task_id": task_id, "id": self.bot_id}
        body["request_uuid"] = self.clock.new_id()
        body.update(fields)
        if output is not None and output.data:
            body["output"] = base64.b64encode(output.data).decode()
            body["output_chunk_start"] = output.offset
        return self._post(f"{API}task_update/{task_id}", self._numbered(body), schedule)

    def task_error(self, task_id: str, message: str, client_error: Optional[Json] = None) -> None:
        """Report that the bot, not the task, failed.  The body of the reply is ignored."""
        body: Json = {"task_id": task_id, "id": self.bot_id, "message": message}
        body["request_uuid"] = self.clock.new_id()
        if client_error:
            body["client_error"] = client_error
        self._post(f"{API}task_error/{task_id}", body, STUBBORN, may_be_empty=True)

    def session_create(self, bot_version: str) -> Json:
        """Open a lease session."""
        body = self._numbered({"bot_version": bot_version})
        return self._post(API + "rbe/session/create", body, ONCE)

    def session_update(self, fields: Json, schedule: Schedule = ONCE) -> Json:
        """Report a lease, ask for one; the server may hold the call for about 45 s."""
        return self._post(API + "rbe/session/update", self._with_lease(dict(fields)), schedule)

    def download(self, version: str, sink: IO[bytes]) -> None:
        """Fetch the archive of that version into a seekable file, with retries."""
        path = f"{API}bot_code/{version}"

        def once() -> None:
            self.transport.download(path, sink, self.headers(), MAX_ARCHIVE_BYTES)

        with_retries(once, self.clock, STUBBORN, self.give_up)

    def _described(self, attributes: Attributes, **more: Any) -> Json:
        return {**attributes._asdict(), **more}

    def _numbered(self, body: Json) -> Json:
        self._seq += 1
        body["skep"] = {"v": 1, "seq": self._seq}
        return body

    def _with_lease(self, body: Json) -> Json:
        """Tells which lease this bot heard of last: so it may be given one that is claimed."""
        self._numbered(body)["skep"]["lease"] = self.heard_lease
        return body

    def headers(self, *, renew: bool = False) -> dict[str, str]:
        """What every call carries beside its session; from any thread."""
        headers = {"User-Agent": self._user_agent, "X-Luci-Swarming-Bot-ID": self.bot_id}
        if self.secret:
            headers["X-Skep-Bot-Secret"] = self.secret
        if self.auth_headers is not None:
            headers.update(self.auth_headers(renew))
        return headers

    def _post(
        self,
        path: str,
        body: Json,
        schedule: Schedule,
        *,
        may_be_empty: bool = False,
        bare: bool = False,
    ) -> Json:
        """Send one logical call.  ``bare`` calls carry no session.  Reply keys are absorbed."""
        if not bare:
            body["session"] = self.session_token
        raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

        def once(*, renew: bool = False) -> Json:
            return self._exchange(path, raw, renew=renew, may_be_empty=may_be_empty)

        try:
            reply = with_retries(once, self.clock, schedule, self.give_up)
        except SessionLost:
            if self.auth_headers is None:
                raise
            reply = once(renew=True)
        if not bare:
            self._absorb(reply)
        return reply

    def _exchange(self, path: str, raw: bytes, *, renew: bool, may_be_empty: bool) -> Json:
        sent_at = self.clock.now()
        headers = self.headers(renew=renew)
        headers["Content-Type"] = "application/json; charset=UTF-8"
        what = path[len(API) :] if path.startswith(API) else path
        reply = self.transport.request("POST", path, raw, headers)
        raise_for(reply, what, path)
        try:
            answer = parse_object(reply, what)
        except ValueError as failure:
            if may_be_empty:
                return {}
            raise BadReply(f"{what}: no JSON object in the reply") from failure
        if not may_be_empty and (not answer or answer.get("error")):
            raise BadReply(f"{what}: empty reply or error {answer.get('error')!r}")
        self.last_contact_at = sent_at
        return answer

    def _absorb(self, reply: Json) -> None:
        """Take over what any reply may bring: a new token, the server's wishes for timing."""
        token = reply.get("session")
        if isinstance(token, str) and token:
            self.session_token = token
            self.on_token(token)
        wishes = reply.get("skep")
        if isinstance(wishes, dict):
            self.contact_s = _positive(wishes.get("contact_s"), self.contact_s)
            self.poll_s = _positive(wishes.get("poll_s"), self.poll_s)


def _positive(value: object, otherwise: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    return otherwise
