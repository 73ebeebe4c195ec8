"""One keep-alive connection to the server, one attempt at a time, and the retry schedule.

Not thread-safe: the supervisor hands the connection from thread to thread and never shares it.
"""

import contextlib
import email.utils
import http.client
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Callable
from typing import IO, NamedTuple, Optional, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from bot_client.clock import Patience
from bot_client.errors import EXIT_CONFIG, Fatal, Interrupted, Refused, SessionLost, Transient

T = TypeVar("T")

READ_TIMEOUT_S = 60.0
MAX_REPLY_BYTES = 16 * 1024 * 1024
MAX_RETRY_AFTER_S = 60.0
RETRY_AFTER_SPREAD = 0.2
MAX_REDIRECTS = 5
_BROKEN = (OSError, http.client.HTTPException)
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Schedule(NamedTuple):
    """How often one call is tried: ``attempts`` within ``budget_s`` seconds."""

    attempts: int
    budget_s: float


ONCE = Schedule(1, READ_TIMEOUT_S)
STUBBORN = Schedule(30, 240.0)
PING = Schedule(30, 360.0)
LEAVING = Schedule(3, 5.0)


class Reply(NamedTuple):
    """A complete HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def is_json(self) -> bool:
        """Does the server claim that the body is JSON?"""
        kind = self.headers.get("Content-Type") or ""
        return kind.partition(";")[0].strip().lower() == "application/json"


def retry_pause(attempt: int, clock: Patience) -> float:
    """Seconds to wait after failed attempt n, n counted from 0."""
    return float(min(10.0, clock.uniform(0, 1.5) + 1.5 ** (attempt - 1)))


def asked_pause(failure: Exception, clock: Patience) -> float:
    """Seconds that the server asked for with this failure, and up to a fifth more; else 0.

    Never less than it asked; a fleet that was told one number must not return in step.
    """
    asked = failure.retry_after_s if isinstance(failure, Transient) else None
    return (asked or 0.0) * clock.uniform(1, 1 + RETRY_AFTER_SPREAD)


def raise_for(reply: Reply, what: str, path: str) -> None:
    """Sort an answer that is not a success into the kinds of `errors`; a 2xx passes."""
    status = reply.status
    if 200 <= status < 300:
        return
    text = reply.body[:300].decode("utf-8", "replace").strip().partition("\n")[0]
    message = f"{what}: HTTP {status} {text}"
    lost_front = status == 404 and "/api/" in path and not reply.is_json()
    if status in {408, 429} or status >= 500 or lost_front:
        raise Transient(message, _retry_after(reply))
    if status in {401, 403}:
        raise SessionLost(message)
    raise Refused(message, status, _committed(reply))


def _retry_after(reply: Reply) -> Optional[float]:
    value = reply.headers.get("Retry-After") or ""
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdigit() else None


def _committed(reply: Reply) -> Optional[int]:
    value = reply.headers.get("X-Skep-Committed") or ""
    return int(value) if value.isdigit() else None


def with_retries(
    call: Callable[[], T],
    clock: Patience,
    schedule: Schedule,
    give_up: Callable[[], bool] = bool,
) -> T:
    """Repeat a call while it fails in a transient way, within the schedule.

    Raises the last failure when attempts or budget are spent.  ``give_up`` is asked after every
    pause, so that a process that must leave does not sit out a schedule: Interrupted.
    """
    started = clock.now()
    attempt = 0
    while True:
        try:
            return call()
        except Transient as failure:  # noqa: PERF203 - a loop of network calls
            left = schedule.budget_s - (clock.now() - started)
            pause = max(retry_pause(attempt, clock), asked_pause(failure, clock))
            attempt += 1
            if attempt >= schedule.attempts or left <= 0:
                raise
            clock.wait(min(pause, left))
            if give_up():
                raise Interrupted("leaving") from failure


class Transport:
    """HTTP/1.1 to one server.  Raises `Transient` for everything the network can do wrong."""

    def __init__(self, base_url: str, *, allow_public_http: bool = False) -> None:
        """``base_url`` has no trailing slash.  TLS certificates are always verified."""
        self.base_url = base_url
        self._parts = urlsplit(base_url)
        self._allow_public_http = allow_public_http
        self._connection: Optional[http.client.HTTPConnection] = None
        self._date = ""
        if not self._parts.hostname:
            raise Fatal(f"not a server URL: {base_url}", EXIT_CONFIG)

    def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Optional[dict[str, str]] = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Reply:
        """One attempt; a connection that the server had closed meanwhile is replaced once."""
        raw = self._serialize(method, path, body, headers or {})
        reused = self._connection is not None
        try:
            try:
                return self._attempt(method, raw, timeout_s)
            except _STALE:
                self.close()
                if not reused:
                    raise
                return self._attempt(method, raw, timeout_s)
        except _BROKEN as failure:
            self.close()
            raise Transient(f"{method} {path.partition('?')[0]}: {failure!r}") from failure
        except BaseException:
            self.close()
            raise

    def _attempt(self, method: str, raw: bytes, timeout_s: float) -> Reply:
        connection = self._connection or self._open(timeout_s)
        sock: socket.socket = connection.sock
        sock.settimeout(timeout_s)
        sock.sendall(raw)
        with http.client.HTTPResponse(sock, method=method) as response:
            response.begin()
            body = response.read(MAX_REPLY_BYTES + 1)
            if len(body) > MAX_REPLY_BYTES:
                raise http.client.HTTPException("reply is too long")
            if response.length:
                raise http.client.IncompleteRead(body, response.length)
            if response.will_close:
                self.close()
            self._date = response.headers.get("Date") or self._date
            return Reply(response.status, response.headers, body)

    def server_date(self) -> Optional[float]:
        """Unix time by the latest reply's Date header; None when there was no usable one."""
        with contextlib.suppress(TypeError, ValueError):
            return email.utils.parsedate_to_datetime(self._date).timestamp()
        return None

    def _serialize(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        lines = [f"{method} {self._target(path)} HTTP/1.1", f"Host: {self._parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise Refused("line break in a header or path", 400)
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def _target(self, path: str) -> str:
        if self._parts.scheme == "http" and proxy_for(self._parts):
            return f"{self.base_url}{path}"
        return f"{self._parts.path}{path}"

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        connection = open_connection(self._parts, timeout_s)
        if self._parts.scheme == "http" and not self._allow_public_http:
            _refuse_public_peer(connection, self._parts)
        self._connection = connection
        return connection

    def download(self, path: str, sink: IO[bytes], headers: dict[str, str], limit: int) -> None:
        """One attempt to fetch a file into sink, following redirects.

        The credentials in headers are sent to the server's own host only.  Refused above limit
        bytes; other failures as in `raise_for`.
        """
        url = self.base_url + path
        for _ in range(MAX_REDIRECTS):
            parts = urlsplit(url)
            own = (parts.scheme, parts.netloc) == (self._parts.scheme, self._parts.netloc)
            try:
                following = _fetch(parts, sink, headers if own else {}, limit)
            except _BROKEN as failure:
                raise Transient(f"download: {failure!r}") from failure
            if following is None:
                return
            url = urljoin(url, following)
            if self._parts.scheme == "https" and not url.startswith("https:"):
                raise Refused("download redirects from https to something else", 302)
        raise Refused("download redirects in circles", 302)


def _fetch(
    parts: SplitResult, sink: IO[bytes], headers: dict[str, str], limit: int
) -> Optional[str]:
    """GET one URL into sink; returns the new address on a redirect."""
    connection = open_connection(parts, READ_TIMEOUT_S)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status in {301, 302, 303, 307, 308}:
            return response.headers.get("Location") or ""
        if response.status != 200:
            body = response.read(4096)
            raise_for(Reply(response.status, response.headers, body), "download", parts.path)
            raise Refused(f"download: HTTP {response.status}", response.status)
        sink.seek(0)
        sink.truncate()
        _copy(response, sink, limit)
        return None
    finally:
        connection.close()


def _copy(response: http.client.HTTPResponse, sink: IO[bytes], limit: int) -> None:
    taken = 0
    while True:
        piece = response.read(65536)
        if not piece:
            break
        taken += len(piece)
        if taken > limit:
            raise Refused(f"download is larger than {limit} bytes", 413)
        sink.write(piece)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def open_connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    """Connect to the host of a URL, through the environment's proxy if it names one."""
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    proxy = proxy_for(parts)
    reach = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
    connection: http.client.HTTPConnection
    if secure:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
        connection = http.client.HTTPSConnection(*reach, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(*reach, timeout=timeout_s)
    if proxy and secure:
        connection.set_tunnel(host, port, _proxy_credentials(proxy))
    connection.connect()
    return connection


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    import base64  # noqa: PLC0415 - rare

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def proxy_for(parts: SplitResult) -> Optional[SplitResult]:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY ask for; None for a direct way."""
    name = f"{parts.scheme}_proxy"
    value = os.environ.get(name) or os.environ.get(name.upper())
    if not value or is_direct(parts.hostname or ""):
        return None
    return urlsplit(value if "//" in value else f"//{value}")


def is_direct(host: str) -> bool:
    """Does NO_PROXY except this host?"""
    rules = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for rule in (part.strip().lstrip(".").lower() for part in rules.split(",")):
        if rule == "*" or (rule and (host == rule or host.endswith(f".{rule}"))):
            return True
    return False


def _refuse_public_peer(connection: http.client.HTTPConnection, parts: SplitResult) -> None:
    """Plain http is for loopback and private addresses: elsewhere it would leak the token."""
    address = ipaddress.ip_address(connection.sock.getpeername()[0].partition("%")[0])
    if not (address.is_private or address.is_loopback or address.is_link_local):
        connection.close()
        raise Fatal(f"http:// to the public address of {parts.hostname}: use https", EXIT_CONFIG)


def parse_object(reply: Reply, what: str) -> dict[str, object]:
    """The JSON object of a 2xx; `errors.BadReply` is the caller's word for ValueError here."""
    value = json.loads(reply.body)
    if not isinstance(value, dict):
        raise ValueError(f"{what}: not a JSON object")  # noqa: TRY004 - as bad JSON
    return value
