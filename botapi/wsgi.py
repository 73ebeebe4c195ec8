"""A request and an answer as WSGI has them, without what the calls of bots do not need.

An idle call does little else, so their cost is seen. Werkzeug's can be used in the same places.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol, overload
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.wrappers import Request
from werkzeug.wsgi import get_content_length, get_host, get_input_stream

TEXT_TYPE = "text/plain; charset=utf-8"
IS_THERE = "skep.is_there"
"""Where WSGI's environment has a function that tells whether the caller has not hung up."""


class Readable(Protocol):
    """A body."""

    def read(self, size: int = ..., /) -> bytes:
        """As of any file."""
        ...


class Headers(Protocol):
    """The headers of a request, by name in any case."""

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...


class Http(Protocol):
    """What is asked of a request; Werkzeug's have more."""

    @property
    def environ(self) -> WSGIEnvironment:
        """The request as WSGI has it."""
        ...

    @property
    def method(self) -> str:
        """`POST` and the like."""
        ...

    @property
    def path(self) -> str:
        """Without the query."""
        ...

    @property
    def headers(self) -> Headers:
        """Its headers."""
        ...

    @property
    def scheme(self) -> str:
        """`http` or `https`, of the connection to this process."""
        ...

    @property
    def host(self) -> str:
        """As the caller wrote it; empty when that is no host."""
        ...

    @property
    def remote_addr(self) -> str | None:
        """The address of the other end of the connection."""
        ...

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, None when it does not say so."""
        ...

    @property
    def stream(self) -> Readable:
        """The body."""
        ...


@dataclass(frozen=True, slots=True)
class BotRequest:
    """A request as bots make most of them; it is its own headers."""

    environ: WSGIEnvironment

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...
    def get(self, key: str, default: str | None = None, /) -> str | None:
        """The value of a header."""
        value: str | None = self.environ.get(_environ_name(key), default)
        return value

    @property
    def headers(self) -> "BotRequest":
        """Its headers."""
        return self

    @property
    def method(self) -> str:
        """`POST` and the like."""
        return str(self.environ["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        """Without the query."""
        return Request(self.environ, populate_request=False).path

    @property
    def scheme(self) -> str:
        """`http` or `https`, of the connection to this process."""
        return str(self.environ["wsgi.url_scheme"])

    @property
    def host(self) -> str:
        """As the caller wrote it; empty when that is no host."""
        environ = self.environ
        server = environ.get("SERVER_NAME"), environ.get("SERVER_PORT")
        return _host(self.scheme, environ.get("HTTP_HOST"), *server)

    @property
    def remote_addr(self) -> str | None:
        """The address of the other end of the connection."""
        return self.environ.get("REMOTE_ADDR")

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, None when it does not say so."""
        return get_content_length(self.environ)

    @property
    def stream(self) -> Readable:
        """The body, to its end and not beyond."""
        stream: Readable = get_input_stream(self.environ)
        return stream


@lru_cache(maxsize=64)
def _environ_name(header: str) -> str:
    """Where WSGI has a header. Only our own names are asked for."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


@lru_cache(maxsize=1024)
def _host(scheme: str, host: str | None, server: str | None, port: str | None) -> str:
    """Werkzeug's judgement, once for all bots that came by the same address."""
    said = {"HTTP_HOST": host, "SERVER_NAME": server, "SERVER_PORT": port}
    given = {name: value for name, value in said.items() if value is not None}
    return get_host({"wsgi.url_scheme": scheme, **given})


@dataclass(slots=True)
class Answer:
    """A whole answer, in one piece: a WSGI application, as Werkzeug's are, at less cost."""

    body: bytes
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        length = "Content-Length", str(len(self.body))
        start_response(_STATUS_LINES[self.status_code], [*self.headers.items(), length])
        return (self.body,)


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus} | {
    499: "499 Client Closed Request"
}
