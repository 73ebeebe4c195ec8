"""Hints between processes: one LISTEN connection, one for NOTIFY, a native thread each.

A NOTIFY in a write transaction would make every commit of the server wait in one line, so
it is sent after the commit, on its own connection, at most once in PERIOD_S.  A process
hears its own hints at once and ignores them when they come back.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from queue import Empty

from botapi.clock import Rng
from botapi.concurrency import Concurrency, native_lock, native_poll, native_queue, start_native
from botapi.store import postgres_rows as rows
from botapi.store.postgres_pool import Session, monotonic
from botapi.store.postgres_wire import Broken, Connection, Refused, Statement
from botapi.store.protocol import Outage
from botapi.store.topics import ANY_TOPIC

PERIOD_S = 0.01
"""Hints of this time travel together."""
PAYLOAD_BYTES = 7_900
"""Most bytes of one NOTIFY (the server's limit is 8,000)."""
HEARTBEAT_S = 15.0
"""After so much silence the LISTEN connection is tried out."""
ANSWER_S = 5.0
"""How long a heartbeat or a NOTIFY may take."""
LONGEST_PAUSE_S = 5.0
"""The pause between two attempts to reconnect doubles up to this."""
CLOSE_S = 5.0

log = logging.getLogger(__name__)


class Listener:
    """Hears what other processes send, and says `*` whenever something may have been missed."""

    def __init__(
        self,
        conninfo: str,
        channel: str,
        sender: str,
        publish: Callable[[list[str]], None],
        concurrency: Concurrency,
        rng: Rng,
    ) -> None:
        """Start listening. Raises Outage when that cannot be had now."""
        self._conninfo, self._channel, self._sender = conninfo, channel, sender
        self._publish, self._rng = publish, rng
        self._waking, self._wake = os.pipe()
        self._closed = False
        self._ended = concurrency.event()
        try:
            connection = self._connect()
        except (Broken, Refused) as error:
            os.close(self._waking)
            os.close(self._wake)
            raise Outage(f"PostgreSQL cannot be listened to: {error}") from error
        start_native(lambda: self._work(connection))

    def close(self) -> None:
        """End the thread and its connection."""
        self._closed = True
        os.close(self._wake)
        self._ended.wait(CLOSE_S)

    def _work(self, connection: Connection | None) -> None:
        failures = 0
        while not self._closed:
            try:
                if connection is None:
                    connection = self._connect()
                    self._publish([ANY_TOPIC])
                failures = 0
                self._listen(connection)
            except (Broken, Refused) as error:
                log.warning("no hints from PostgreSQL now: %s", error)
                if connection is not None:
                    connection.close()
                    connection = None
                failures += 1
                self._pause(min(LONGEST_PAUSE_S, 0.1 * 2 ** min(failures, 10)))
        if connection is not None:
            connection.close()
        os.close(self._waking)
        self._ended.set()

    def _connect(self) -> Connection:
        connection = Connection(self._conninfo, monotonic() + ANSWER_S)
        name = '"' + self._channel.replace('"', '""') + '"'
        connection.run([Statement(f"LISTEN {name}".encode())], monotonic() + ANSWER_S)
        return connection

    def _listen(self, connection: Connection) -> None:
        quiet_until = monotonic() + HEARTBEAT_S
        while not self._closed:
            if connection.wait_readable(self._waking, max(0.0, quiet_until - monotonic())):
                quiet_until = monotonic() + HEARTBEAT_S
            elif monotonic() >= quiet_until:
                connection.run([Statement(b"SELECT 1")], monotonic() + ANSWER_S)
                quiet_until = monotonic() + HEARTBEAT_S
            for payload in connection.notifications():
                self._hear(payload.decode(errors="replace"))

    def _hear(self, payload: str) -> None:
        sender, *topics = payload.split("\n")
        if sender != self._sender:
            self._publish(topics)

    def _pause(self, longest: float) -> None:
        """Up to that long, at random; closing ends it."""
        watched = native_poll()
        watched.register(self._waking)
        watched.poll(self._rng.uniform(0.0, longest) * 1000)


class Notifier:
    """Sends hints to other processes; one that cannot be sent becomes a later `*`."""

    def __init__(self, conninfo: str, channel: str, sender: str, concurrency: Concurrency) -> None:
        self._channel, self._sender = channel, sender
        self._session = Session(conninfo)
        self._queue = native_queue()
        self._lock = native_lock()
        self._closed = False
        self._ended = concurrency.event()
        self._lost = False
        self._next_at = 0.0
        start_native(self._work)

    def send(self, topics: Iterable[str]) -> None:
        """Have these sent soon; returns at once."""
        self._queue.put(list(topics))

    def close(self) -> None:
        """Send what waits, then end the thread and its connection."""
        self._queue.put(None)
        self._ended.wait(CLOSE_S)

    def _work(self) -> None:
        going = True
        while going:
            topics = self._queue.get()
            heard = dict.fromkeys(topics or ())
            going = topics is not None and self._collect(heard)
            if heard:
                self._notify(list(heard))
        self._session.drop()
        self._ended.set()

    def _collect(self, heard: dict[str, None]) -> bool:
        """Add all that waits or comes until the next may be sent; False at the end.

        What waits goes along also when sending was slower than PERIOD_S, or it would grow.
        """
        while True:
            left = max(0.0, self._next_at - monotonic())
            try:
                topics = self._queue.get(block=left > 0, timeout=left or None)
            except Empty:
                break
            if topics is None:
                return False
            heard.update(dict.fromkeys(topics))
        return True

    def _notify(self, topics: list[str]) -> None:
        self._next_at = monotonic() + PERIOD_S
        if self._lost:
            topics = [ANY_TOPIC]
        channel = self._channel.encode()
        statements = [
            Statement(rows.NOTIFY, [channel, payload]) for payload in payloads(self._sender, topics)
        ]
        for _ in range(2):  # the connection may have ended since the last time
            try:
                self._session.run(statements, monotonic() + ANSWER_S)
            except (Broken, Refused, Outage) as error:
                self._lost = True
                log.debug("hints were not sent: %s", error)
            else:
                self._lost = False
                return


def payloads(sender: str, topics: Iterable[str]) -> Iterator[bytes]:
    """The topics in as few payloads as they fit; one that fits in none becomes `*`."""
    head = sender.encode()
    payload = head
    for topic in topics:
        line = b"\n" + topic.encode(errors="replace")
        if len(head) + len(line) > PAYLOAD_BYTES or "\0" in topic:
            line = b"\n" + ANY_TOPIC.encode()
        if len(payload) + len(line) > PAYLOAD_BYTES:
            yield payload
            payload = head
        payload += line
    if payload != head:
        yield payload
