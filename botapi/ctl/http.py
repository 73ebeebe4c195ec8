"""The conversation with `/api/v1`: retries, keys that make creates repeatable, typed errors.

Everything that may be repeated is, up to five times, with growing pauses and as the server's
`Retry-After` says. A create carries an `Idempotency-Key`, so a repeat returns the first result.
"""

import json
import os
import ssl
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

import botapi
from botapi.ctl.errors import (
    Conflict,
    CtlError,
    Denied,
    Invalid,
    NoCapacity,
    NotFound,
    ServerFault,
    Unreachable,
)
from botapi.settings import Settings

Json = dict[str, Any]
Query = Iterable[tuple[str, str | int]]

ROOT = "/api/v1"
WAIT_MAX_S = 20
RETRY_AFTER_MAX_S = 60.0
RETRIES = 5
CREATED = 201
CONNECTIONS = 8
"""Connections that are kept, and the most calls at once of any command."""
PATIENT_RETRIES = 10  # for held calls: a server that restarts under a long wait is awaited

PIECE_BYTES = 1024 * 1024

_BUSY = frozenset({429, 502, 503, 504})
_KINDS: dict[int, type[CtlError]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    428: Conflict,
}
_KINDS_BY_CODE: dict[str, type[CtlError]] = {"no_capacity": NoCapacity}
"""Problem codes that say more than their status."""


class BoundedRetry(urllib3.Retry):
    """`Retry` that never obeys a `Retry-After` of more than a minute."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Seconds to wait, or None when the server says nothing."""
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, RETRY_AFTER_MAX_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its bytes and headers."""

    headers: Mapping[str, str]
    body: bytes
    status: int = 200


class Client:
    """One server, one API key; a connection is kept between calls."""

    def __init__(self, settings: Settings, retries: int = RETRIES) -> None:
        self._retries = retries
        self._base = settings.server
        self._timeout_s = settings.timeout_s
        self._headers = {"User-Agent": f"skep/{botapi.__version__}", "Accept": "application/json"}
        if settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        self._pool = _pool(settings)

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def get(self, what: str, path: str, query: Query = (), wait_s: int = 0) -> Json:
        """Read a JSON object; `wait_s` lets the server hold the answer for so long."""
        return _object(what, self.read(what, path, query, wait_s))

    def read(self, what: str, path: str, query: Query = (), wait_s: int = 0) -> Answer:
        """Read bytes and headers; as `get` otherwise."""
        asked = [*query, *([("wait", wait_s)] if wait_s else [])]
        suffix = "?" + urllib.parse.urlencode(asked) if asked else ""
        retry = _retry(PATIENT_RETRIES if wait_s else self._retries)
        return self._send(what, "GET", path + suffix, retry, wait_s=wait_s)

    def create(self, what: str, path: str, body: Json) -> Json:
        """POST once, however often it is sent: the call carries a key of its own."""
        return self.create_as(uuid.uuid4().hex, what, path, body)[0]

    def create_as(self, key: str, what: str, path: str, body: Json) -> tuple[Json, bool]:
        """As `create`, under a key; and is it new? The same key gives what it gave before."""
        headers = {"Idempotency-Key": key}
        answer = self._send(what, "POST", path, _retry(RETRIES), body, headers)
        return _object(what, answer), answer.status == CREATED

    def ask(self, what: str, path: str, body: Json, wait_s: int = 0) -> Json:
        """POST something that is harmless to repeat: a question, or "let it be canceled"."""
        retry = _retry(PATIENT_RETRIES if wait_s else RETRIES)
        return _object(what, self._send(what, "POST", path, retry, body, wait_s=wait_s))

    def once(self, what: str, path: str, body: Json) -> Json:
        """POST something that a repeat would do twice: only a refused connection is retried."""
        retry = _retry(RETRIES, allowed_methods=frozenset({"GET"}))
        return _object(what, self._send(what, "POST", path, retry, body))

    def put(self, what: str, path: str, body: Json) -> Json:
        """PUT: the same again comes to the same."""
        return _object(what, self._send(what, "PUT", path, _retry(RETRIES), body))

    def patch(self, what: str, path: str, body: Json) -> Json:
        """PATCH with the values that hold afterwards: the same again comes to the same."""
        return _object(what, self._send(what, "PATCH", path, _retry(RETRIES), body))

    def delete(self, what: str, path: str, query: Query = ()) -> Json:
        """DELETE; a repeat after a lost answer may find nothing any more."""
        suffix = "?" + urllib.parse.urlencode([*query]) if query else ""
        retry = _retry(RETRIES, allowed_methods=frozenset({"GET"}))
        return _object(what, self._send(what, "DELETE", path + suffix, retry))

    def upload(self, what: str, path: str, content: bytes, query: Query = ()) -> Json:
        """POST a file that the server keeps once, however often it is sent."""
        place = f"{path}?{urllib.parse.urlencode([*query])}"
        return _object(what, self._send(what, "POST", place, _retry(RETRIES), content))

    def put_bytes(self, what: str, path: str, content: bytes) -> Json:
        """PUT what the path names by its digest."""
        return _object(what, self._send(what, "PUT", path, _retry(RETRIES), content))

    def put_file(self, what: str, path: str, source: Path) -> Json:
        """As `put_bytes`, without holding the file in memory."""
        with source.open("rb") as file:
            length = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
            return _object(what, self._send(what, "PUT", path, _retry(RETRIES), file, length))

    def stream(self, what: str, path: str) -> Iterator[bytes]:
        """Read bytes in pieces; a connection that breaks on the way is Unreachable."""
        try:
            reply = self._pool.request(
                "GET",
                self._base + ROOT + path,
                headers=self._headers,
                retries=_retry(RETRIES),
                timeout=urllib3.Timeout(connect=self._timeout_s, read=self._timeout_s),
                redirect=False,
                preload_content=False,
            )
            try:
                if not 200 <= reply.status < 300:
                    reply.read()
                    raise _refusal(what, reply)
                yield from reply.stream(PIECE_BYTES)
            finally:
                reply.release_conn()
        except HTTPError as error:
            raise _unreachable(self._base, error) from error

    def _send(
        self,
        what: str,
        method: str,
        path: str,
        retry: urllib3.Retry,
        body: Json | bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: int = 0,
    ) -> Answer:
        sent = self._headers | dict(headers or {})
        content = None if isinstance(body, dict) else body
        if content is not None:
            sent["Content-Type"] = "application/octet-stream"
        elif body is not None:
            content = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            reply = self._pool.request(
                method,
                self._base + ROOT + path,
                body=content,
                headers=sent,
                retries=retry,
                timeout=urllib3.Timeout(connect=self._timeout_s, read=self._timeout_s + wait_s),
                redirect=False,
            )
        except HTTPError as error:
            raise _unreachable(self._base, error) from error
        if 200 <= reply.status < 300:
            return Answer(reply.headers, reply.data, reply.status)
        raise _refusal(what, reply)


def segment(text: str) -> str:
    """An identifier as one segment of a path."""
    return urllib.parse.quote(text, safe="")


def _pool(settings: Settings) -> urllib3.PoolManager:
    ca_certs = str(settings.ca_bundle) if settings.ca_bundle else None
    address = urllib.parse.urlsplit(settings.server)
    try:
        context = ssl.create_default_context(cafile=ca_certs) if address.scheme == "https" else None
    except OSError as error:
        raise Invalid("SKEP_CA_BUNDLE", f"{ca_certs}: {error.strerror or error}") from error
    proxy = _proxy(address)
    if proxy:
        return urllib3.ProxyManager(proxy, ssl_context=context, maxsize=CONNECTIONS)
    return urllib3.PoolManager(ssl_context=context, maxsize=CONNECTIONS)


def _proxy(address: urllib.parse.SplitResult) -> str | None:
    """The proxy of `HTTPS_PROXY` or `HTTP_PROXY`, unless `NO_PROXY` names the server."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    if urllib.request.proxy_bypass(address.netloc):
        return None
    return urllib.request.getproxies().get(address.scheme)


def _retry(total: int, allowed_methods: frozenset[str] | None = None) -> BoundedRetry:
    """Pauses of 0, 0.2, 0.4 ... at most 10 s, each with up to 0.1 s of jitter."""
    return BoundedRetry(
        total=total,
        allowed_methods=allowed_methods,
        status_forcelist=_BUSY,
        backoff_factor=0.1,
        backoff_jitter=0.1,
        backoff_max=10,
        raise_on_status=False,
        respect_retry_after_header=True,
    )


def _object(what: str, answer: Answer) -> Json:
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerFault(what, "the answer is not a JSON object", "is this a Skep server?")
    return value


def _unreachable(base: str, error: HTTPError) -> Unreachable:
    reason: BaseException = error
    if isinstance(error, MaxRetryError) and error.reason is not None:
        reason = error.reason
    if isinstance(reason, SSLError):
        return Unreachable(base, str(reason), "SKEP_CA_BUNDLE names the certificates to trust")
    system = reason.__cause__
    known = isinstance(system, OSError) and system.strerror
    return Unreachable(base, f"not reachable: {known or str(reason).rpartition(': ')[2]}")


def _refusal(what: str, reply: urllib3.BaseHTTPResponse) -> CtlError:
    problem = _problem(reply)
    code = str(problem.get("code", "")).lower()
    kind = _KINDS_BY_CODE.get(code) or _KINDS.get(reply.status, ServerFault)
    if 300 <= reply.status < 400:
        return ServerFault(
            what,
            f"the server redirects to {reply.headers.get('Location')}",
            "set SKEP_SERVER to it",
        )
    why = problem.get("detail") or problem.get("title") or f"HTTP {reply.status}"
    request_id = reply.headers.get("X-Request-Id") or problem.get("instance") or ""
    return kind(what, str(why), "", problem or None, str(request_id))


def _problem(reply: urllib3.BaseHTTPResponse) -> Json:
    """The problem object of a refusal; empty when somebody else than Skep answered."""
    if "json" not in reply.headers.get("Content-Type", ""):
        return {}
    try:
        value = json.loads(reply.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
