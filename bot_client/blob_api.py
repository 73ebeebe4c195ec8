"""Blobs to and from the server, over a connection of its own: a transfer never holds an update up.

Bytes stream between disk and connection.  What is fetched is checked against its digest.
"""

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, Optional, TypeVar, Union
from urllib.parse import urlsplit

from bot_client.cas import Digest
from bot_client.clock import Clock
from bot_client.content_cache import PIECE_BYTES
from bot_client.errors import BadReply, BotError, Interrupted, Refused, Transient
from bot_client.server_api import ServerApi
from bot_client.transport import (
    READ_TIMEOUT_S,
    STUBBORN,
    Reply,
    open_connection,
    raise_for,
    with_retries,
)

T = TypeVar("T")

PATH = "/skep/v1/blobs"
ASKED_AT_ONCE = 5_000


class Missing(Exception):
    """The server does not have it."""

    def __init__(self, digest: Digest) -> None:
        """``digest`` is what was asked for."""
        super().__init__(f"the server has no blob {digest}")
        self.digest = digest


class DiskTrouble(BotError):
    """This host's disk is at fault, not the network: trying again is no help."""


def on_disk(act: Any, *arguments: Any) -> Any:  # noqa: ANN401 - passes any call through
    """An OSError of this host as what it is: the bot's trouble, said in words."""
    try:
        return act(*arguments)
    except OSError as failure:
        raise DiskTrouble(f"disk: {failure.strerror or failure}") from failure


class Stop:
    """Tells a transfer to end: asked for, or its time is over.  Also the clock of its pauses."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        """The limit runs from now."""
        self._clock = clock
        self._until = clock.now() + limit_s
        self._limit_s = limit_s
        self._asked = threading.Event()
        self.now = clock.now
        self.uniform = clock.uniform

    def ask(self) -> None:
        """End soon; from any thread."""
        self._asked.set()

    def check(self) -> None:
        """Raises Interrupted when it was asked to end, Refused when the time is over."""
        if self._asked.is_set():
            raise Interrupted("stopped")
        if self._clock.now() >= self._until:
            raise Refused(f"not done within {self._limit_s:.0f} s", 408)

    def wait(self, seconds: float) -> bool:
        """A pause between two tries."""
        return self._asked.wait(max(0.0, seconds))


class BlobApi:
    """The calls for one task's blobs; one thread at a time."""

    def __init__(self, api: ServerApi, task_id: str, stop: Stop) -> None:
        """Nothing is connected before the first call.  ``stop`` may be replaced between calls."""
        self._api = api
        self._task_id = task_id
        self.stop = stop
        self._parts = urlsplit(api.transport.base_url)
        self._connection: Optional[http.client.HTTPConnection] = None

    def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def missing(self, digests: list[Digest]) -> set[str]:
        """Which of these the server needs, as ``<hash>/<size>``."""
        needed: set[str] = set()
        for start in range(0, len(digests), ASKED_AT_ONCE):
            part = [str(digest) for digest in digests[start : start + ASKED_AT_ONCE]]
            needed.update(self._tried(partial(self._ask, part)))
        return needed

    def fetch(self, digest: Digest, sink: IO[bytes]) -> None:
        """Fill a seekable file.  Missing when the server does not have the blob."""
        self._tried(partial(self._fetch, digest, sink))

    def put(self, digest: Digest, source: IO[bytes]) -> None:
        """Upload a seekable file."""
        self._tried(partial(self._put, digest, source))

    def _tried(self, call: Callable[[], T]) -> T:
        def once() -> T:
            self.stop.check()
            try:
                return call()
            except (OSError, http.client.HTTPException) as failure:
                self.close()
                raise Transient(f"blobs: {failure!r}") from failure
            except BaseException:
                self.close()
                raise

        return with_retries(once, self.stop, STUBBORN, self._is_over)

    def _is_over(self) -> bool:
        self.stop.check()
        return False

    def _ask(self, digests: list[str]) -> list[str]:
        body = {"session": self._api.session_token, "task_id": self._task_id, "digests": digests}
        kind = {"Content-Type": "application/json; charset=utf-8"}
        reply = self._send("POST", "/missing", json.dumps(body).encode(), kind)
        answer = json.loads(_conclude(reply, "blobs/missing"))
        found = answer.get("missing") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise BadReply("blobs/missing: no list in the reply")
        return [str(item) for item in found]

    def _fetch(self, digest: Digest, sink: IO[bytes]) -> None:
        reply = self._send("GET", f"/{digest}")
        if reply.status == 404:
            reply.read()
            raise Missing(digest)
        if reply.status != 200:
            _conclude(reply, "blob")
        on_disk(sink.seek, 0)
        on_disk(sink.truncate)
        hasher = hashlib.sha256()
        taken = 0
        while taken <= digest.size:
            self.stop.check()
            piece = reply.read(PIECE_BYTES)
            if not piece:
                break
            taken += len(piece)
            hasher.update(piece)
            on_disk(sink.write, piece)
        if hasher.hexdigest() != digest.hash or taken != digest.size:
            raise Transient(f"blob {digest}: other bytes came")

    def _put(self, digest: Digest, source: IO[bytes]) -> None:
        on_disk(source.seek, 0)
        length = {"Content-Length": str(digest.size)}
        _conclude(self._send("PUT", f"/{digest}", self._pieces(digest, source), length), "blob")

    def _pieces(self, digest: Digest, source: IO[bytes]) -> Iterator[bytes]:
        left = digest.size
        while left:
            self.stop.check()
            piece = on_disk(source.read, min(left, PIECE_BYTES))
            if not piece:
                raise Refused(f"{digest} became shorter", 400)
            left -= len(piece)
            yield piece

    def _send(
        self,
        method: str,
        path: str,
        body: Union[bytes, Iterator[bytes], None] = None,
        more: Optional[dict[str, str]] = None,
    ) -> http.client.HTTPResponse:
        """One request; the head of the answer is there."""
        if self._connection is None:
            self._connection = open_connection(self._parts, READ_TIMEOUT_S)
        headers = {
            **self._api.headers(),
            "X-Skep-Session": self._api.session_token or "",
            "X-Skep-Task": self._task_id,
            **(more or {}),
        }
        self._connection.request(method, f"{self._parts.path}{PATH}{path}", body, headers)
        return self._connection.getresponse()


def _conclude(response: http.client.HTTPResponse, what: str) -> bytes:
    """The body of an answer that is a success; raises by its status else."""
    body = response.read()
    raise_for(Reply(response.status, response.headers, body), what, PATH)
    return body
