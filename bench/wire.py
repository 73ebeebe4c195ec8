"""A lean HTTP client: one keep-alive connection, so that the client costs as little as it can."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 90.0
JSON = "application/json; charset=utf-8"


class Refused(Exception):
    """An answer that is no success."""


class Connection:
    """One connection to one server; not for several threads."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = parts.netloc
        self._headers = headers or {}

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def abort(self) -> None:
        """End what another thread is waiting for on this connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with small names, and body of one exchange."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in (self._headers | (headers or {})).items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return receive(self._socket)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a success. Raises Refused for anything else."""
        raw = b"" if body is None else json.dumps(body).encode()
        status, _headers, answer = self.send(method, path, raw, {"Content-Type": JSON})
        if not 200 <= status < 300:
            raise Refused(f"{method} {path}: {status} {answer[:300].decode(errors='replace')}")
        return json.loads(answer)

    def post(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """A POST, in the form that simulated bots want."""
        return self.send("POST", path, body, headers)


def receive(
    connection: socket.socket, recv: Callable[[int], bytes] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with small names, and body of the one answer that is on its way.

    `recv`: what reads, instead of the socket's own. Raises OSError, also when the server hangs up
    before the end.
    """
    recv = recv or connection.recv
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(recv)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        body += _more(recv)
    return int(first.split(" ", 2)[1]), headers, body


def _more(recv: Callable[[int], bytes]) -> bytes:
    data = recv(262_144)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
