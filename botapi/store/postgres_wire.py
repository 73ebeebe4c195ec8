"""One connection to PostgreSQL: statements in pipelines, every wait with a deadline.

It stands on psycopg's `pq`, the bare libpq, because a native thread must neither touch the
loop (gevent replaces what psycopg's own connections wait with) nor wait for ever: a server
that is halted keeps its connections open and says nothing.  A pipeline is one round trip:
its statements travel together, and after one that failed none of the others is run.

Parameters and columns are binary: bytes as they are, integers and arrays as packed here.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from select import POLLIN, POLLOUT
from typing import TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from botapi.clock import SystemClock
from botapi.concurrency import native_addresses, native_poll

CONNECT_S = 3.0
"""How long one attempt to connect may take."""

ESCAPED = "@ : / ? # and % of a password are written %40 %3A %2F %3F %23 %25"

KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
SESSION = {
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
}
"""What the server itself ends, for the case that we are gone."""

Value: TypeAlias = bytes | None
Row: TypeAlias = tuple[Value, ...]

_INT8_OID, _BYTEA_OID = 20, 17
_NULL = b"\xff\xff\xff\xff"
_monotonic = SystemClock().monotonic


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with `$1`… and its values. A `kept` one is prepared once for each connection."""

    sql: bytes
    values: Sequence[Value] = ()
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What one statement gave: its rows, and its tag, such as `COMMIT`."""

    rows: list[Row] = field(default_factory=list)
    tag: bytes = b""


class Broken(Exception):
    """The connection is of no use any more; what was under way may or may not have happened."""


class Refused(Exception):
    """The server refused a statement: its five-letter `sqlstate`; nothing of it was done."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Connection:
    """A connection that is in a pipeline all its life. Used by one native thread at a time."""

    def __init__(self, conninfo: str, deadline: float) -> None:
        """Connect. `deadline`: monotonic seconds. Raises Refused or Broken."""
        self._prepared: dict[bytes, bytes] = {}
        self._names = count(1)
        deadline = min(deadline, _monotonic() + CONNECT_S)
        try:
            self._pgconn = _connected(conninfo, deadline)
            self._pgconn.nonblocking = 1
            self._pgconn.enter_pipeline_mode()
        except psycopg.Error as error:
            raise Broken(_one_line(str(error))) from error
        self._fd = self._pgconn.socket
        self._poll = native_poll()
        self._poll.register(self._fd, POLLIN)

    @property
    def backend_pid(self) -> int:
        """The server's process for this connection."""
        return self._pgconn.backend_pid

    @property
    def server_version(self) -> int:
        """As libpq has it: 150004 is 15.4."""
        return self._pgconn.server_version

    @property
    def in_transaction(self) -> bool:
        """Is a transaction open, failed or not?"""
        return self._pgconn.transaction_status != pq.TransactionStatus.IDLE

    def run(self, statements: Sequence[Statement], deadline: float) -> list[Answer]:
        """Send all statements together and wait for what they give.

        Raises Refused, once the connection may be used again, for the first statement that
        the server refused; Broken after the deadline, or when the connection ended.
        """
        try:
            fresh = [self._send(statement) for statement in statements]
            self._pgconn.pipeline_sync()
            self._flush(deadline)
            return self._answers(statements, fresh, deadline)
        except psycopg.Error as error:
            raise Broken(_one_line(str(error))) from error

    def wait_readable(self, other: int, timeout_s: float) -> bool:
        """Wait for the server to say something by itself, or for the descriptor `other`."""
        watched = native_poll()
        watched.register(self._fd, POLLIN)
        watched.register(other, POLLIN)
        return any(fd == self._fd for fd, _ in watched.poll(timeout_s * 1000))

    def notifications(self) -> list[bytes]:
        """The payloads that arrived since the last call, in order. Raises Broken."""
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise Broken(_one_line(str(error))) from error
        heard = []
        while (notify := self._pgconn.notifies()) is not None:
            heard.append(notify.extra)
        return heard

    def close(self) -> None:
        """End it at once, whatever was under way."""
        self._pgconn.finish()

    def _send(self, statement: Statement) -> bool:
        """Queue one statement; True when a PREPARE went before it."""
        sql, values = statement.sql, statement.values
        formats = [pq.Format.BINARY] * len(values)
        if not statement.kept:
            self._pgconn.send_query_params(
                sql, values, param_formats=formats, result_format=pq.Format.BINARY
            )
            return False
        name = self._prepared.get(sql)
        fresh = name is None
        if name is None:
            name = self._prepared[sql] = b"s%d" % next(self._names)
            self._pgconn.send_prepare(name, sql)
        self._pgconn.send_query_prepared(name, values, formats, pq.Format.BINARY)
        return fresh

    def _answers(
        self, statements: Sequence[Statement], fresh: Sequence[bool], deadline: float
    ) -> list[Answer]:
        found: list[Answer] = []
        refused: Refused | None = None
        for statement, is_fresh in zip(statements, fresh, strict=True):
            results = [self._result(deadline) for _ in range(1 + is_fresh)]
            if is_fresh and results[0].status != pq.ExecStatus.COMMAND_OK:
                del self._prepared[statement.sql]
            for result in results:
                if result.status == pq.ExecStatus.FATAL_ERROR and refused is None:
                    refused = _refusal(result)
            found.append(_answer(results[-1]))
        last = self._next(deadline)
        if last is None or last.status != pq.ExecStatus.PIPELINE_SYNC:
            raise Broken("the answers do not match what was asked")
        if refused is not None:
            raise refused
        return found

    def _result(self, deadline: float) -> pq.abc.PGresult:
        """The next result and the mark behind it."""
        result = self._next(deadline)
        if result is None or self._next(deadline) is not None:
            raise Broken("the answers do not match what was asked")
        return result

    def _next(self, deadline: float) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            self._wait(deadline)
            self._pgconn.consume_input()
        result = self._pgconn.get_result()
        if self._pgconn.status == pq.ConnStatus.BAD:
            said = result.get_error_message() if result is not None else "the connection ended"
            raise Broken(_one_line(said))
        return result

    def _flush(self, deadline: float) -> None:
        while self._pgconn.flush():
            self._poll.modify(self._fd, POLLIN | POLLOUT)
            try:
                self._wait(deadline)
            finally:
                self._poll.modify(self._fd, POLLIN)
            self._pgconn.consume_input()

    def _wait(self, deadline: float) -> None:
        left = deadline - _monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise Broken("no answer in time")


def connection_string(dsn: str, role: str) -> str:
    """The DSN with what every connection of ours has. Raises ValueError for a wrong one.

    What the DSN says itself wins, except for the time-outs of the session. The error quotes
    nothing of it: a password whose special characters are not escaped may be anywhere.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error as error:
        said = re.sub('".*"', '"…"', _one_line(str(error)))
        raise ValueError(f"{said} ({ESCAPED})") from None
    if "@" in str(given.get("host") or ""):
        raise ValueError(f"its host holds an @ ({ESCAPED})")
    if not re.fullmatch("[0-9,]*", str(given.get("port") or "")):
        raise ValueError(f"its port is not a number ({ESCAPED})")
    session = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
    ours = {
        "application_name": f"skep {role}",
        "target_session_attrs": "read-write",
        "client_encoding": "UTF8",
        **KEEPALIVE,
        **given,
        "options": f"{given.get('options') or ''} {session}".strip(),
    }
    return make_conninfo("", **ours)


def int8(number: int) -> bytes:
    """A bigint."""
    return struct.pack("!q", number)


def from_int8(value: Value) -> int | None:
    """The bigint again; None for NULL."""
    return None if value is None else int(struct.unpack("!q", value)[0])


def bytea_array(items: Iterable[Value]) -> bytes:
    """A bytea[]."""
    return _array(_BYTEA_OID, list(items))


def int8_array(items: Iterable[int | None]) -> bytes:
    """A bigint[]."""
    return _array(_INT8_OID, [None if item is None else int8(item) for item in items])


def from_bytea_array(value: bytes) -> list[bytes]:
    """The bytea[] without NULLs again."""
    dimensions, _, _ = struct.unpack_from("!iii", value)
    if not dimensions:
        return []
    (size,) = struct.unpack_from("!i", value, 12)
    found, at = [], 20
    for _ in range(size):
        (length,) = struct.unpack_from("!i", value, at)
        found.append(value[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _array(oid: int, items: list[Value]) -> bytes:
    if not items:
        return struct.pack("!iii", 0, 0, oid)
    head = struct.pack("!iiiii", 1, None in items, oid, len(items), 1)
    packed = (_NULL if item is None else struct.pack("!i", len(item)) + item for item in items)
    return head + b"".join(packed)


def _connected(conninfo: str, deadline: float) -> pq.abc.PGconn:
    """Connect without ever blocking in libpq, and so without holding Python's lock."""
    pgconn = pq.PGconn.connect_start(_with_addresses(conninfo).encode())
    try:
        while (status := pgconn.connect_poll()) != pq.PollingStatus.OK:
            _await_connect(pgconn, status, deadline)
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


def _await_connect(pgconn: pq.abc.PGconn, status: int, deadline: float) -> None:
    if status == pq.PollingStatus.FAILED:
        raise Broken(_one_line(pgconn.get_error_message()))
    watched = native_poll()
    watched.register(pgconn.socket, POLLIN if status == pq.PollingStatus.READING else POLLOUT)
    left = deadline - _monotonic()
    if left <= 0 or not watched.poll(left * 1000):
        raise Broken("could not connect in time")


def _with_addresses(conninfo: str) -> str:
    """The names in `host` looked up: libpq would do so with Python's lock held."""
    given = conninfo_to_dict(conninfo)
    names = str(given.get("host") or "").split(",")
    if given.get("hostaddr") or any(not name or name.startswith(("/", "@")) for name in names):
        return conninfo
    ports = str(given.get("port") or "").split(",")
    if len(ports) != len(names):
        ports = ports[:1] * len(names)
    found: list[tuple[str, str, str]] = []
    trouble: Exception | None = None
    for name, port in zip(names, ports, strict=True):
        try:
            found += [(name, address, port) for address in native_addresses(name)]
        except (OSError, UnicodeError) as error:  # the latter: no name of a host at all
            trouble = error
    if not found:
        raise Broken(f"no address for the host {given['host']}: {trouble}")
    hosts, addresses, of_each = map(",".join, zip(*found, strict=True))
    return make_conninfo(conninfo, host=hosts, hostaddr=addresses, port=of_each)


def _answer(result: pq.abc.PGresult) -> Answer:
    if result.status != pq.ExecStatus.TUPLES_OK:
        return Answer(tag=result.command_status or b"")
    columns = range(result.nfields)
    value = result.get_value
    rows = [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]
    return Answer(rows)


def _refusal(result: pq.abc.PGresult) -> Refused:
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return Refused(sqlstate.decode("ascii", "replace"), _one_line(message.decode(errors="replace")))


def _one_line(text: str) -> str:
    return " ".join(text.split())
