"""The process that answers: gunicorn's gevent worker, as this server needs it.

It turns a herd away at its first line, sends an answer in one piece, and ends in time.
"""

import gc
import logging
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any

import gevent
import gevent.event
import gevent.monkey
import gevent.socket
import gunicorn.sock
from gevent.server import StreamServer
from gunicorn.http import wsgi
from gunicorn.http.wsgi import HEADER_VALUE_RE
from gunicorn.workers.ggevent import GeventWorker

from botapi.admission import FIRST_WORDS
from botapi.clock import SystemClock
from botapi.concurrency import keep_native_locks
from botapi.door import HeldAnswer
from botapi.wsgi import IS_THERE

MAX_CONNECTIONS = 20_000
KEEPALIVE_S = 75
ACCEPT_AT_ONCE = 100
"""Connections accepted in one turn of the loop: between two turns it learns how late it is."""
SHARED_ACCEPT_AT_ONCE = 16
"""The same where several processes share a socket, so that each gets its part."""
LATENESS_EVERY_S = 0.1
TCP_INFO_BYTES = 104
UNACKED, LAST_DATA_RECEIVED = slice(24, 28), slice(52, 56)
"""Where `struct tcp_info` has these fields: numbers of four bytes, behind the first eight."""
TURNED_AWAY_S = 2.0
"""How long somebody who was turned away may take to hang up."""
SWITCH_S = 0.0002
"""Longest that the loop waits for a thread that computes; Python's own is 25 times that."""
GC_THRESHOLDS = (10_000, 50, 10)
"""Objects made between two collections, and how many of one generation make one of the next.

A collection stops every thread, for 0.3 ms with a thousand young objects. What a page of tasks is
made of used to set off a hundred. The oldest are looked at after five million objects all the
same: what leaks must not for hours.
"""
LOOP_HOLD_S = 0.02
"""Longest that anything should hold the loop; reported with `SKEP_LOG_LEVEL=debug`."""
ONE_PIECE = 64 * 1024
"""A body up to so many bytes is sent together with the head of its answer."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds until the system asks whether a silent caller is still there, and between two tries, and
how many: nobody claims a task for a machine that went away half a minute ago."""
OWN_HEADERS = frozenset({"Content-Type", "X-Request-Id", "X-Content-Type-Options"})
"""Names that every answer has, and that say nothing about its length or connection."""

log = logging.getLogger(__name__)

_socket = gevent.monkey.get_original("socket", "socket")


class Worker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """A gevent worker that ends in time: held calls are answered, idle connections dropped.

    Of a held call nothing stays but its connection and what makes its answer: no greenlet,
    which would cost three times as much, and nothing of the request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_flight = 0
        self._connections = 0
        self._servers: list[_Listener] = []

    def init_process(self) -> None:
        """With debug logging, gevent reports whatever holds the loop for too long.

        A thread that computes gives way to the loop sooner than Python would let it.
        Until gunicorn sets its handlers, those of its arbiter are there, which swallow a TERM.
        """
        signal.signal(signal.SIGTERM, self.handle_exit)
        if self.app.chosen.log_level == "debug":
            gevent.config.monitor_thread = True
            gevent.config.max_blocking_time = LOOP_HOLD_S
        sys.setswitchinterval(SWITCH_S)
        # ssl was imported before; whoever calls outside makes a context anew (outside.http_pool)
        warnings.simplefilter("ignore", gevent.monkey.MonkeyPatchWarning)
        super().init_process()

    def patch(self) -> None:
        """Greenlets instead of threads, but for what native threads do too."""
        super().patch()
        keep_native_locks()

    def run(self) -> None:
        """Serve until told to stop, then until the last answer is out."""
        self._leaving = gevent.event.Event()
        _settle(self.cfg)
        self._note_queue()
        self._servers = [self._listen(sock) for sock in self.sockets]
        gevent.spawn(self._watch_lateness)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        self.app.ready()
        while self.alive:
            self.notify()
            self._leaving.wait(1.0)
        self.app.parts.release()
        for server in self._servers:
            server.close()
        clock = SystemClock()
        patience = clock.monotonic() + self.cfg.graceful_timeout
        while self._in_flight and clock.monotonic() < patience:
            self.notify()
            gevent.sleep(0.02)
        self.app.parts.close()
        gc.unfreeze()  # or Python takes modules apart while objects still need them

    def _listen(self, sock: Any) -> "_Listener":  # noqa: ANN401 - gunicorn's socket
        sock.setblocking(1)
        _notice_who_vanishes(sock)
        tls = gunicorn.sock.ssl_context(self.cfg) if self.cfg.is_ssl else None
        server = _Listener(sock, self._is_full, partial(self.handle, sock), tls)
        server.max_accept = SHARED_ACCEPT_AT_ONCE if self.cfg.workers > 1 else ACCEPT_AT_ONCE
        server.start()
        return server

    def _watch_lateness(self) -> None:
        """Tell the admission how far the loop is behind."""
        clock = SystemClock()
        while self.alive:
            before = clock.monotonic()
            gevent.sleep(LATENESS_EVERY_S)
            self._note_queue(clock.monotonic() - before - LATENESS_EVERY_S)

    def _note_queue(self, late_s: float = 0.0) -> None:
        """Tell the admission who waits to be accepted; a new process finds a whole herd there."""
        self.app.parts.admission.note_late(late_s, sum(map(queued_at, self.sockets)))

    def handle(self, listener: Any, client: Any, addr: Any) -> None:  # noqa: ANN401 - gunicorn's
        """The calls of a new connection, unless it comes from a herd."""
        self._connections += 1
        try:
            if not self._turns_away(client):
                super().handle(listener, client, addr)
        finally:
            self._left()

    def _turns_away(self, client: Any) -> bool:  # noqa: ANN401 - gunicorn's socket
        """Was it answered by its first words, or had none?"""
        admission = self.app.parts.admission
        admission.note_new()
        waited = waited_s(client)
        if self.cfg.is_ssl or not admission.is_too_much(waited):
            return False
        with suppress(OSError):
            client.settimeout(KEEPALIVE_S)
            words = client.recv(FIRST_WORDS, socket.MSG_PEEK)
            answer = admission.turned_away(words, waited)
            client.settimeout(None)
            if not answer:
                return False
            _turn_away(client, answer)
        return True

    def _left(self) -> None:
        """A connection ended, or is with nobody for now."""
        was_full = self._is_full()
        self._connections -= 1
        for server in self._servers if was_full else ():
            if server.started:
                server.start_accepting()

    def _is_full(self) -> bool:
        return self._connections >= MAX_CONNECTIONS

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - signal's signature
        """TERM: leave at once instead of at the next look."""
        super().handle_exit(sig, frame)
        leaving = getattr(self, "_leaving", None)
        if leaving is not None:
            leaving.set()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:  # noqa: ANN401 - gunicorn's
        """Answer one request; count it meanwhile. StopIteration when it is the connection's last.

        As gunicorn's own without what is not asked of it: an access log, hooks, a bound of
        requests.
        """
        self._in_flight += 1
        try:
            response, environ = wsgi.create(req, sock, addr, listener_name, self.cfg, Response)
            environ["wsgi.multithread"] = True
            environ[IS_THERE] = _Line(sock.fileno(), sock.family).is_open
            if not self.alive:
                response.force_close()
            answer = self.wsgi(environ, response.start_response)
            if isinstance(answer, HeldAnswer) and self._may_let_go(req):
                response.forget(req)
                family = sock.family
                held = _HeldCall(sock.detach(), family, listener_name, addr, response, answer)
                self._let_go(held)
                raise StopIteration
            response.send_all(answer)
            if response.should_close():
                raise StopIteration
        finally:
            self._in_flight -= 1

    def _may_let_go(self, req: Any) -> bool:  # noqa: ANN401 - gunicorn's
        """Can this connection be taken up again? Not while it has keys, or the next request."""
        return not self.cfg.is_ssl and not req.unreader.buf.getbuffer().nbytes

    def _let_go(self, held: "_HeldCall") -> None:
        """End the greenlet of this call; another one goes on when there is an answer."""
        self._in_flight += 1
        self._connections += 1
        answer = held.answer
        go_on = partial(self._go_on, held)
        self.app.parts.concurrency.after(answer.done, answer.timeout_s, go_on)

    def _go_on(self, held: "_HeldCall") -> None:
        """Answer a call that was held, then serve the next ones of its connection."""
        client = gevent.socket.socket(held.family, socket.SOCK_STREAM, 0, held.fd)
        try:
            if self._stays(held, client):
                super().handle(_Address(held.listener_name), client, held.addr)
        finally:
            client.close()
            self._left()

    def _stays(self, held: "_HeldCall", client: Any) -> bool:  # noqa: ANN401 - a socket
        """Send the answer; may another call follow it?"""
        response = held.response
        response.sock = client
        try:
            if not self.alive:
                response.force_close()
            response.send_all(held.answer.make())
        except OSError as error:
            log.debug("the caller hung up: %s", error)
            return False
        finally:
            self._in_flight -= 1
        return not response.should_close()


class _Listener(StreamServer):
    """Accepts connections while there is room, held calls included."""

    def __init__(
        self,
        sock: socket.socket,
        is_full: Callable[[], bool],
        handle: Callable[..., None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._is_full = is_full
        context: dict[str, Any] = {"ssl_context": tls} if tls else {}
        super().__init__(sock, handle=handle, spawn=gevent.spawn, **context)

    def full(self) -> bool:
        """Must who comes now wait?"""
        return self._is_full()


@dataclass(frozen=True, slots=True)
class _Address:
    """What a connection that goes on must know of the socket that accepted it."""

    name: object

    def getsockname(self) -> object:
        """As of a socket."""
        return self.name


@dataclass(frozen=True, slots=True)
class _Line:
    """The connection of a call, while the call lasts."""

    fd: int
    family: int

    def is_open(self) -> bool:
        """Has the caller neither hung up nor said anything more?"""
        client = _socket(self.family, socket.SOCK_STREAM, 0, self.fd)
        try:
            client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            client.detach()
        return False


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an answer must know of its request."""

    version: tuple[int, int]
    method: str
    closes: bool

    def should_close(self) -> bool:
        """Is it the last one of its connection?"""
        return self.closes


@dataclass(frozen=True, slots=True)
class _HeldCall:
    """A call that waits for its answer, on a connection that nobody looks at meanwhile."""

    fd: int
    family: int
    """With which nobody need ask the system what kind of socket it is."""
    listener_name: object
    addr: object
    response: "Response"
    answer: HeldAnswer


class Response(wsgi.Response):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's answer, its head sent together with the first of its body.

    So whoever waits for it is woken once, and one call of the system is saved.
    """

    sock: Any
    headers_sent: bool
    _head = b""

    def send_all(self, pieces: Iterable[bytes]) -> None:
        """The whole answer; one that breaks off is logged, and ends the connection.

        Raises OSError when the caller hung up, and what the first piece raises.
        """
        try:
            for piece in pieces:
                self.write(piece)
            self.close()
        except OSError:
            raise
        except Exception:
            if not self.headers_sent:
                raise
            log.exception("the answer broke off")
            self.force_close()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def forget(self, req: Any) -> None:  # noqa: ANN401 - gunicorn's
        """Keep of the request and its connection only what an answer must know."""
        self.req = _Asked(req.version, req.method, req.should_close())
        self.sock = None

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """As gunicorn's, which need not look at names that we write ourselves."""
        for name, value in headers:
            if name in OWN_HEADERS and HEADER_VALUE_RE.fullmatch(value):
                self.headers.append((name, value))
            else:
                super().process_headers([(name, value)])

    def default_headers(self) -> list[str]:
        """The first lines of the head."""
        major, minor = self.req.version
        connection = "close" if self.should_close() else "keep-alive"
        lines = (
            f"HTTP/{major}.{minor} {self.status}",
            f"Server: {self.version}",
            f"Date: {_date(int(SystemClock().now_ms() / 1000))}",
            f"Connection: {connection}",
            *(["Transfer-Encoding: chunked"] if self.chunked else []),
        )
        return [f"{line}\r\n" for line in lines]

    def send_headers(self) -> None:
        """Have the head ready, once."""
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{k}: {v}\r\n" for k, v in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def close(self) -> None:
        """The end of the body."""
        self.send_headers()
        self._send(b"")
        super().close()

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            self._send(b"")
            super()._emit_body(data)
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head and len(data) <= ONE_PIECE:
            self.sock.sendall(head + data)
            return
        for part in filter(None, (head, data)):
            self.sock.sendall(part)


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _settle(cfg: Any) -> None:  # noqa: ANN401 - gunicorn's configuration
    """Make plain attributes of the settings: each look at one is a search otherwise."""
    own = {name: setting.get() for name, setting in cfg.settings.items()}
    vars(cfg).update({name: value for name, value in own.items() if not hasattr(type(cfg), name)})


def _notice_who_vanishes(listener: socket.socket) -> None:
    """What it accepts inherits this, as far as the system has it; other than TCP needs it not."""
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def queued_at(listener: socket.socket) -> int:
    """How many connections wait to be accepted there; 0 where the system does not tell, or when
    nobody listens any more.

    Linux says so in the field of a listening socket that counts unacknowledged segments of others.
    """
    return _tcp_number(listener, UNACKED)


def waited_s(client: socket.socket) -> float:
    """For how many seconds a new connection's words have been there; 0 as above."""
    return _tcp_number(client, LAST_DATA_RECEIVED) / 1000


def _tcp_number(connection: socket.socket, field: slice) -> int:
    if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    except OSError:
        return 0
    return int.from_bytes(info[field], sys.byteorder)


def _turn_away(client: socket.socket, answer: bytes) -> None:
    """Send a whole answer and hang up; what was sent is read first, or it would cut ours off."""
    with suppress(OSError), client:
        client.settimeout(TURNED_AWAY_S)
        client.recv(65_536)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass
