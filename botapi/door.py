"""What every HTTP request has, whoever makes it: an id, an address, a bounded body."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, g, request
from flask import Request as FlaskRequest
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected

from botapi import logs, metrics
from botapi.auth.credentials import Presented, client_ip
from botapi.clock import Clock, Rng
from botapi.concurrency import Held
from botapi.domain.errors import Code, Refusal
from botapi.domain.rate_limit import Rate, TokenBuckets, network_of
from botapi.settings import Settings
from botapi.wsgi import TEXT_TYPE, Answer, BotRequest, Http, Readable

Headers = list[tuple[str, str]]
log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

HTTP_STATUS = {
    Code.CANCELED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
    Code.UNKNOWN: 500,
    Code.DATA_LOSS: 500,
}
"""The only table from codes to statuses (bot-api 0.5)."""
RETRY_AFTER_S = 2
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""For routes that take every method, so that a wrong one is answered in their own words."""
READS = frozenset({"GET", "HEAD"})
BOTS = "bots"
"""The blueprint in whose answers 403 means a bad credential; to people it says "not yours"."""
BOT_CALLS = "/swarming/api/v1/bot/"
ROUTE = "skep.route"
"""Where a request keeps its address with names for what changes, as `/tasks/<task_id>`."""
NO_ROUTE = "none"
SAID = (ROUTE, "REQUEST_METHOD", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR")
"""What is said of a request when its answer is ready; this is kept of one that is held."""
ROUTINE = frozenset(
    {
        *(BOT_CALLS + name for name in ("poll", "rbe/session/update", "task_update")),
        *("/healthz", "/readyz", "/metrics"),
    }
)
"""What is asked all the time: `SKEP_ACCESS_LOG=quiet` leaves it out where it went well."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How often an address and a bot may call this process; nothing in the store is asked.

    Bots behind one address that call with a good session are not held up by their
    neighbours' bad credentials.
    """

    clock: Clock
    address: TokenBuckets
    bot: TokenBuckets
    refused: TokenBuckets

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> "CallLimits":
        """As the settings say."""
        return cls(
            clock,
            TokenBuckets(Rate(settings.rate_address, 2 * settings.rate_address)),
            TokenBuckets(Rate(settings.rate_bot, 2 * settings.rate_bot)),
            TokenBuckets(Rate(settings.rate_refused, 10 * settings.rate_refused)),
        )

    def admit(self, address: str, *, is_stranger: bool = True) -> None:
        """Count a call. Raises Refusal RESOURCE_EXHAUSTED."""
        now_s, caller = self.clock.monotonic(), network_of(address)
        if is_stranger and self.refused.is_empty(caller, now_s):
            raise _too_many(f"refused calls from {caller}")
        if not self.address.take(caller, now_s):
            raise _too_many(f"calls from {caller}")

    def admit_bot(self, bot_id: str) -> None:
        """Count a call of a bot that proved its session. Raises Refusal RESOURCE_EXHAUSTED."""
        if not self.bot.take(bot_id, self.clock.monotonic()):
            raise _too_many(f'calls of bot "{bot_id}"')

    def note(self, address: str, status: int) -> None:
        """An answer was given; refused credentials are counted."""
        if status in {401, 403}:
            self.refused.take(network_of(address), self.clock.monotonic())


def _too_many(what: str) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"too many {what}; slow down")


@dataclass(frozen=True, slots=True)
class Door:
    """The facts of requests, as far as settings decide them."""

    settings: Settings
    clock: Clock
    rng: Rng
    limits: CallLimits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", CallLimits.of(self.settings, self.clock))

    def install(self, app: Flask) -> None:
        """Give every request an id and every answer its headers."""
        app.request_class = _Request
        app.before_request(self._begin)
        app.after_request(self._end)
        app.wsgi_app = _closing(self._observed(app.wsgi_app))  # type: ignore[assignment, method-assign]  # Flask's own advice

    def _begin(self) -> None:
        g.request_id = self.request_id(request)
        self.learn(request, g.request_id, request.url_rule.rule if request.url_rule else NO_ROUTE)
        path = request.view_args or {}
        logs.note(**{name: path[name] for name in ("bot_id", "task_id") if name in path})
        if request.blueprint:  # whose error handler answers a refusal
            self.limits.admit(self.address(request))

    def _end(self, response: Response) -> Response:
        finish(response, g.get("request_id", ""))
        if response.status_code != 403 or request.blueprint == BOTS:
            self.limits.note(self.address(request), response.status_code)
        return response

    def learn(self, http: Http, request_id: str, route: str) -> None:
        """Which request this is, for what is counted and logged of it."""
        http.environ[ROUTE] = route
        logs.note(request_id=request_id)

    def _observed(self, app: WSGIApplication) -> WSGIApplication:
        """Count, time and log every request."""

        def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return _Watched(self, environ, start_response, self.clock.monotonic()).answer(app)

        return call

    def seen(self, environ: WSGIEnvironment, code: str, seconds: float) -> None:
        """An answer is ready; what is left to send of it is not in its time."""
        route, method = environ.get(ROUTE, NO_ROUTE), environ["REQUEST_METHOD"]
        method = method if method in VERBS else metrics.OTHER
        metrics.HTTP_REQUESTS[route, method, code].inc()
        metrics.HTTP_SECONDS[route,].observe(seconds)
        if code in {"401", "403"}:
            reason = "unauthenticated" if code == "401" else "denied"
            metrics.AUTH_FAILURES[_shown(environ, route), reason].inc()
        wanted = self.settings.access_log
        if wanted == "quiet" and route in ROUTINE and code < "400":
            return
        if wanted != "off":
            http = BotRequest(environ)
            fields = logs.event(
                "http_request",
                method=method,
                route=route,
                code=int(code),
                duration_ms=round(seconds * 1000, 3),
                address=self.address(http),
            )
            log.info("%s %s %s", method, route, code, extra=fields)

    def address(self, http: Http) -> str:
        """The client's address, through the trusted proxies."""
        forwarded = http.headers.get("X-Forwarded-For", "")
        return client_ip(http.remote_addr or "", forwarded, self.settings.behind_proxy)

    def request_id(self, http: Http) -> str:
        """The id a trusted proxy gave this request, else a new one."""
        given = http.headers.get("X-Request-Id", "")
        trusted = REQUEST_ID.fullmatch(given) if self.is_proxy(http.remote_addr or "") else None
        return given if trusted else f"{self.rng.randbits(96):024x}"

    def is_proxy(self, peer: str) -> bool:
        """Is this the address of a proxy whose headers are believed?"""
        trusted = self.settings.behind_proxy
        return bool(trusted) and client_ip(peer, "0.0.0.0", trusted) == "0.0.0.0"  # noqa: S104

    def caller(self, http: Http) -> Presented:
        """Address and credentials, through the trusted proxies."""
        return Presented(self.address(http), http.headers, self.is_proxy(http.remote_addr or ""))

    def base_url(self, http: Http) -> str:
        """Scheme and host as the caller wrote them, unless a public URL is set."""
        if self.settings.public_url:
            return self.settings.public_url
        scheme = http.scheme
        if self.is_proxy(http.remote_addr or ""):
            scheme = http.headers.get("X-Forwarded-Proto", scheme)
        return f"{'https' if scheme == 'https' else 'http'}://{http.host}"


class HeldAnswer(Held[Iterable[bytes]]):
    """The answer to a held call, as WSGI has it: whoever iterates over it waits.

    A worker that knows it keeps nothing else of the call meanwhile (botapi.worker).
    """

    def __iter__(self) -> Iterator[bytes]:
        """Its pieces; the head is known when the first one is."""
        yield from self.get()


@dataclass(slots=True)
class _Watched:
    """One request that is counted, timed and logged when its answer is ready."""

    door: Door
    environ: WSGIEnvironment
    start_response: StartResponse
    began_s: float
    code: str = "500"

    def start(self, status: str, headers: Headers, *error: Any) -> Callable[[bytes], object]:
        """WSGI's `start_response`."""
        self.code = status[:3]
        return self.start_response(status, headers, *error)

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """What the application answers, now or later."""
        logs.begin()
        answer: Iterable[bytes] = ()
        try:
            answer = app(self.environ, self.start)
        finally:
            if not isinstance(answer, HeldAnswer):
                self._over()
        return self._later(answer) if isinstance(answer, HeldAnswer) else answer

    def _later(self, held: HeldAnswer) -> HeldAnswer:
        """The same answer, watched until it is made; of the request only what is said of it."""
        self.environ = {name: self.environ[name] for name in SAID if name in self.environ}
        return HeldAnswer(held.done, held.timeout_s, partial(self._made, held.make, logs.noted()))

    def _made(
        self, make: Callable[[], Iterable[bytes]], ids: Mapping[str, object]
    ) -> Iterable[bytes]:
        logs.begin(**ids)
        try:
            return make()
        finally:
            self._over()

    def _over(self) -> None:
        seconds = self.door.clock.monotonic() - self.began_s
        self.door.seen(self.environ, self.code, seconds)


class BodyTooLarge(Exception):
    """More bytes than the route takes; nothing further is read."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")


def read_body(http: Http, limit: int) -> bytes:
    """The whole body, at most `limit` bytes. Raises BodyTooLarge without reading on.

    Raises Refusal INTERNAL when the caller stops in the middle of it (bot-api 0.4 step 3).
    """
    if (http.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    try:
        body = http.stream.read(limit + 1)
    except (OSError, ClientDisconnected):
        raise Refusal(Code.INTERNAL, "the body could not be read to its end") from None
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return bytes(body)


def finish(response: Response | Answer, request_id: str) -> None:
    """The headers that every answer has."""
    response.headers["X-Request-Id"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status_code == 429:
        response.headers.setdefault("Retry-After", str(RETRY_AFTER_S))


def internal_error(request_id: str) -> Answer:
    """A bug: logged once with the request id; the caller sees one line."""
    log.exception("request %s failed", request_id)
    line = f"rpc error: code = Internal desc = internal error, request {request_id}\n"
    return Answer(line.encode(), 500, {"Content-Type": TEXT_TYPE})


def _shown(environ: WSGIEnvironment, route: str) -> str:
    """By what means the caller of a refused request wanted to be known."""
    if route.startswith(BOT_CALLS):
        return "bot"
    if "HTTP_AUTHORIZATION" in environ:
        return "bearer"
    return "cookie" if "HTTP_COOKIE" in environ else "none"


class _Request(FlaskRequest):
    """One that its environment does not know.

    Else the two hold each other, and all that gunicorn made for a call, 10 KB and more, stays
    until Python looks for garbage: for held calls, which grow old, that may be hours.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__(environ, populate_request=False)


def _closing(app: WSGIApplication) -> WSGIApplication:
    """Make gunicorn end the connection after a 413, and where the answer says so.

    It ignores an application's `Connection: close`, and reads what is left of the body
    before it looks for the next request on the connection.
    """

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *error: Any) -> Callable[[bytes], object]:
            force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
            closes = status.startswith("413") or ("Connection", "close") in headers
            if closes and force_close is not None:
                force_close()
            return start_response(status, headers, *error)

        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input"] = _Chunked(environ["wsgi.input"])
        return app(environ, start)

    return call


class _Chunked:
    """A body in chunks; gunicorn has an error of its own for those that are malformed."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        """As of any file. Raises Refusal INVALID_ARGUMENT for chunks that are none."""
        try:
            return self._source.read(size)
        except ParseException:
            raise Refusal(Code.INVALID_ARGUMENT, "the chunks of the body are malformed") from None
