"""Posts a running task's output and heartbeats, and pings its lease, from a second thread.

So an outage of the server stalls neither the reading of output nor the time limits.  The thread
is only started when something is due: a short task never needs it.
"""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, Optional

from bot_client.clock import Clock
from bot_client.errors import BotError, Refused, Transient
from bot_client.output import OutputBuffer
from bot_client.server_api import OutputPiece, ServerApi

log = logging.getLogger("bot.poster")

CHUNK_BYTES = 250_000
FIRST_OUTPUT_S = 0.5
OUTPUT_PERIOD_S = 4.0
HEARTBEAT_PERIOD_S = 10.0


class Pings(NamedTuple):
    """How to keep the lease session alive: ``ping`` says whether the task may go on."""

    ping: Callable[[], bool]
    low_s: float
    high_s: float


class Poster:
    """Owns the connection while its thread runs.  `must_stop` and `failure` are its findings."""

    def __init__(
        self,
        api: ServerApi,
        clock: Clock,
        task_id: str,
        buffer: OutputBuffer,
        pings: Optional[Pings],
    ) -> None:
        """Nothing is posted before something is due."""
        self._api = api
        self._clock = clock
        self._task_id = task_id
        self._buffer = buffer
        self._pings = pings
        self._condition = threading.Condition()
        self._thread: Optional[threading.Thread] = None
        self._ending = False
        self._posted = False
        self._last_post_at = clock.now()
        self._pending_since: Optional[float] = None
        self._ping_at = self._next_ping()
        self.must_stop: Optional[str] = None
        self.failure: Optional[str] = None
        self.cost_usd = 0.0

    def _next_ping(self) -> float:
        if self._pings is None:
            return float("inf")
        return self._clock.now() + self._clock.uniform(self._pings.low_s, self._pings.high_s)

    def due_at(self) -> float:
        """When the next call has to be made."""
        if self._pending_since is None:
            post_at = self._last_post_at + HEARTBEAT_PERIOD_S
        elif self._buffer.pending >= CHUNK_BYTES:
            post_at = self._pending_since
        else:
            post_at = self._pending_since + FIRST_OUTPUT_S
            if self._posted:
                post_at = max(post_at, self._last_post_at + OUTPUT_PERIOD_S)
        return min(post_at, self._ping_at)

    def note_output(self) -> None:
        """New bytes are in the buffer."""
        if self._pending_since is None:
            self._pending_since = self._clock.now()
            self._nudge()
        elif self._buffer.pending >= CHUNK_BYTES:
            self._nudge()

    def _nudge(self) -> None:
        if self._thread is not None:
            with self._condition:
                self._condition.notify()

    def needs_thread_at(self) -> float:
        """When the main thread has to call `start`; never, once the thread runs."""
        return float("inf") if self._thread is not None else self.due_at()

    def start(self) -> None:
        """From now on post as things become due."""
        self._thread = threading.Thread(target=self._work, name="poster", daemon=True)
        self._thread.start()

    def end(self, give_up: Callable[[], bool]) -> None:
        """Wait for the call in progress, then have the connection back in this thread."""
        if self._thread is None:
            return
        with self._condition:
            self._ending = True
            self._condition.notify()
        while self._thread.is_alive() and not give_up():
            self._clock.wait(1.0)

    def _work(self) -> None:
        try:
            while self._await_due():
                if self._clock.now() >= self._ping_at:
                    self._ping()
                else:
                    self._post()
        except BotError as failure:
            self.failure = str(failure)
        except Exception as failure:
            log.exception("posting failed")
            self.failure = f"posting failed: {failure!r}"
        self._clock.wake_main()

    def _await_due(self) -> bool:
        with self._condition:
            while not self._ending:
                left = self.due_at() - self._clock.now()
                if left <= 0:
                    return True
                self._condition.wait(left)
        return False

    def _ping(self) -> None:
        if self._pings is None:
            return
        try:
            if not self._pings.ping():
                self._stop("the lease was lost or canceled")
        except Transient as failure:
            log.warning("ping of the lease failed: %s", failure)
        self._ping_at = self._next_ping()

    def _post(self) -> None:
        """One update; what the server did not take stays in the buffer."""
        self._pending_since = None
        was_full = self._buffer.is_full()
        try:
            reply = post_piece(self._api, self._task_id, self._buffer, self.cost_usd)
            if reply.get("must_stop"):
                self._stop(str(reply.get("stop_reason") or "the server says stop"))
        except Transient as failure:
            log.warning("task_update failed, output is kept: %s", failure)
        self._posted = True
        self._last_post_at = self._clock.now()
        if self._buffer.pending:
            self._pending_since = self._last_post_at
        if was_full:
            self._clock.wake_main()

    def _stop(self, reason: str) -> None:
        if self.must_stop is None:
            self.must_stop = reason
            self._clock.wake_main()


def post_piece(
    api: ServerApi, task_id: str, buffer: OutputBuffer, cost_usd: float
) -> dict[str, object]:
    """Post one intermediate update with at most one chunk.  Refused when the server said no."""
    offset, data = buffer.peek(CHUNK_BYTES)
    fields = {"cost_usd": cost_usd}
    try:
        reply = api.task_update(task_id, fields, OutputPiece(offset, data))
    except Refused as refusal:
        resend_from(buffer, refusal)
        return {}
    buffer.acknowledge(offset + len(data))
    return reply


def resend_from(buffer: OutputBuffer, refusal: Refused) -> None:
    """After a 409 that names the stored length: go back to it.  Any other refusal is raised."""
    committed = refusal.committed
    if refusal.status != 409 or committed is None or committed == buffer.acknowledged:
        raise refusal
    if not buffer.rewind(committed):
        raise Refused(f"the server lost output from byte {committed} on", 409) from refusal
