"""`skep serve`: the processes that answer.

gunicorn with gevent workers. The store is opened in each worker, after the fork. A worker
that is told to stop answers every held call at once and ends when the last answer is out.
"""

import errno
import gc
import ipaddress
import logging
import os
import resource
import socket
import ssl
import sys
import warnings
from contextlib import suppress
from functools import partial
from typing import Any

import click
import gevent
import gevent.event
import gevent.monkey
import gunicorn.app.base
import gunicorn.sock
from flask import Flask
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from botapi import app as composition
from botapi import engines, logs
from botapi.admission import FIRST_WORDS
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Greenlets, Threads, keep_native_locks
from botapi.first_start import FAILED, USAGE, fail, folder_options, load_settings, prepare, show_key
from botapi.observe import WorkerFiles
from botapi.settings import Settings

URL_FILE = "server.url"
KEEPALIVE_S = 75
GRACEFUL_S = 25
MAX_CONNECTIONS = 20_000
BACKLOG = 8_192
"""Connections that wait to be accepted; the kernel's `somaxconn` may allow fewer."""
ACCEPT_AT_ONCE = 100
"""Connections accepted in one turn of the loop: between two turns it learns how late it is."""
SHARED_ACCEPT_AT_ONCE = 16
"""The same where several processes share a socket, so that each gets its part."""
LATENESS_EVERY_S = 0.1
TCP_INFO_BYTES = 104
UNACKED = slice(24, 28)
"""Where `struct tcp_info` has that field: behind eight bytes and four numbers."""
TURNED_AWAY_S = 2.0
"""How long somebody who was turned away may take to hang up."""
SWITCH_S = 0.0005
"""Longest that the loop waits for a thread that computes; Python's own is ten times that."""
GC_THRESHOLDS = (50_000, 10, 10)
"""Objects made between two collections, and how many of one generation make one of the next.

A collection stops every thread. What a page of tasks is made of used to set off a hundred. The
oldest are looked at after five million objects all the same: what leaks must not for hours.
"""
LOOP_HOLD_S = 0.02
"""Longest that anything should hold the loop; reported with `SKEP_LOG_LEVEL=debug`."""
LEAVING_S = 5.0
"""How long a server that ends may still listen where another one is to."""
IN_USE = os.strerror(errno.EADDRINUSE)

log = logging.getLogger(__name__)


@click.command()
@folder_options
@click.option("--host", help="address to listen on (SKEP_HOST, default 127.0.0.1)")
@click.option("--port", help="port to listen on, 0 for any free one (SKEP_PORT, default 8080)")
@click.option("--workers", help="server processes (SKEP_WORKERS, default 1)")
@click.option("--public-url", help="base URL that bots and people use (SKEP_PUBLIC_URL)")
@click.option("--tls-cert", metavar="PEM", help="certificate chain: serve HTTPS (SKEP_TLS_CERT)")
@click.option("--tls-key", metavar="PEM", help="key of the certificate (SKEP_TLS_KEY)")
@click.option("--behind-proxy", metavar="CIDR", help="trusted proxies (SKEP_BEHIND_PROXY)")
@click.option("--bot-archive", metavar="PATH", help="bot sources (SKEP_BOT_ARCHIVE)")
@click.option("--anonymous-read", is_flag=True, help="anybody may read (SKEP_ANONYMOUS_READ)")
def serve(**options: Any) -> None:
    """Run the server until it is told to stop.

    Without --tls-cert or --behind-proxy it listens on loopback only.
    """
    chosen = load_settings(options)
    refusal = exposure_problem(chosen) or tls_problem(chosen)
    if refusal:
        fail(refusal, USAGE)
    refusal = address_problem(chosen)
    if refusal:
        fail(refusal, FAILED)
    logs.configure(chosen.log_format, chosen.log_level)
    key = prepare(chosen)
    if key:
        show_key(key)
    _raise_file_limit()
    Server(chosen).run()


def exposure_problem(chosen: Settings) -> str:
    """Why this address must not be listened on without TLS; empty when it may."""
    try:
        is_local = ipaddress.ip_address(chosen.host).is_loopback
    except ValueError:
        is_local = chosen.host == "localhost"
    if is_local or chosen.tls_cert or chosen.behind_proxy:
        return ""
    return (
        f"--host {chosen.host} would be open without TLS: give --tls-cert and --tls-key, "
        "or --behind-proxy CIDR when a proxy in front does TLS"
    )


def address_problem(chosen: Settings) -> str:
    """Why nobody can listen there, such as another server that does; empty when one can.

    A server that is just ending is given `LEAVING_S`.
    """
    problem = _bind_problem(chosen)
    patience = SystemClock().monotonic() + LEAVING_S
    while problem == IN_USE and SystemClock().monotonic() < patience:
        Threads().sleep(0.1)
        problem = _bind_problem(chosen)
    if not problem:
        return ""
    return (
        f"cannot listen on {chosen.host} port {chosen.port}: {problem}: "
        "give another --host or --port (0: any free one)"
    )


def _bind_problem(chosen: Settings) -> str:
    try:
        found = socket.getaddrinfo(chosen.host, chosen.port, type=socket.SOCK_STREAM)
        family, kind, number, _name, address = found[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def tls_problem(chosen: Settings) -> str:
    """Why TLS cannot be served with these files; empty when it can, or is not asked for."""
    if not (chosen.tls_cert and chosen.tls_key):
        return ""
    try:
        for path in (chosen.tls_cert, chosen.tls_key):
            path.open("rb").close()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chosen.tls_cert, chosen.tls_key, password="")
    except ssl.SSLError as error:
        return (
            f"SKEP_TLS_CERT={chosen.tls_cert} and SKEP_TLS_KEY={chosen.tls_key} are refused "
            f"({error.reason or 'no PEM'}): give a PEM chain and its key without a password"
        )
    except OSError as error:
        return (
            f"{error.filename}: {error.strerror}: SKEP_TLS_CERT and SKEP_TLS_KEY are read at start"
        )
    return ""


def _raise_file_limit() -> None:
    """A held call is an open file: take all that the system allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server(gunicorn.app.base.BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn, configured by our settings."""

    def __init__(self, chosen: Settings) -> None:
        self.chosen = chosen
        self.files: WorkerFiles | None = None
        if chosen.workers > 1:
            self.files, self._in_use = WorkerFiles.make(chosen.data_dir)
        super().__init__()

    def load_config(self) -> None:
        """Everything gunicorn is told."""
        for name, value in {
            "bind": [f"{self.chosen.host}:{self.chosen.port}"],
            "workers": self.chosen.workers,
            "worker_class": Worker,
            "worker_connections": MAX_CONNECTIONS,
            "backlog": BACKLOG,
            "keepalive": KEEPALIVE_S,
            "graceful_timeout": GRACEFUL_S,
            "timeout": 60,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "accesslog": None,
            "loglevel": "warning",
            "logger_class": "gunicorn.glogging.Logger",
            "certfile": str(self.chosen.tls_cert) if self.chosen.tls_cert else None,
            "keyfile": str(self.chosen.tls_key) if self.chosen.tls_key else None,
            "when_ready": self._announce,
            "child_exit": self._bury,
            "on_exit": self._clean,
        }.items():
            self.cfg.set(name, value)

    def _announce(self, arbiter: Any) -> None:  # noqa: ANN401 - gunicorn's arbiter
        url = self._url(arbiter.LISTENERS[0].sock.getsockname())
        self.url = url
        opening = (
            ""
            if self.chosen.tls_cert or self.chosen.behind_proxy
            else " (loopback only; --tls-cert and --tls-key, or --behind-proxy, open it)"
        )
        click.echo(f"skep listens on {url}{opening}", err=True)

    def _bury(self, _arbiter: Any, worker: Any) -> None:  # noqa: ANN401 - gunicorn's
        """What the worker had counted counts on; on a full disk its file stays for that."""
        if self.files is not None:
            with suppress(OSError):
                self.files.bury(worker.pid)

    def _clean(self, _arbiter: Any) -> None:  # noqa: ANN401 - gunicorn's
        if self.files is not None:
            self.files.remove()

    def _url(self, address: tuple[Any, ...]) -> str:
        """How this machine reaches the socket; one bound to every address by loopback."""
        bound = ipaddress.ip_address(address[0])
        if bound.is_unspecified:
            bound = ipaddress.ip_address("::1" if bound.version == 6 else "127.0.0.1")
        host = f"[{bound}]" if bound.version == 6 else str(bound)
        scheme = "https" if self.chosen.tls_cert else "http"
        return f"{scheme}://{host}:{address[1]}"

    def load(self) -> Flask:
        """Build the application; runs in a worker, after the fork."""
        clock, rng = SystemClock(), SystemRng()
        concurrency = Greenlets()
        store = engines.open_store(self.chosen, concurrency, clock, rng)
        self.parts = composition.build(self.chosen, store, concurrency, clock, rng)
        self.parts.observed.files = self.files
        self.parts.start()
        return composition.create_app(self.parts)

    def ready(self) -> None:
        """Tell the world where we are, in a file, once this worker can answer."""
        target = self.chosen.data_dir / URL_FILE
        part = target.with_suffix(f".{os.getpid()}")
        part.write_text(self.url + "\n", encoding="utf-8")
        part.replace(target)


class Worker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """A gevent worker that ends in time: held calls are answered, idle connections dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_flight = 0

    def init_process(self) -> None:
        """With debug logging, gevent reports whatever holds the loop for too long.

        A thread that computes gives way to the loop sooner than Python would let it.
        """
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
        servers = [self._listen(sock) for sock in self.sockets]
        gevent.spawn(self._watch_lateness)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        self.app.ready()
        while self.alive:
            self.notify()
            self._leaving.wait(1.0)
        self.app.parts.release()
        for server in servers:
            server.close()
        clock = SystemClock()
        patience = clock.monotonic() + self.cfg.graceful_timeout
        while self._in_flight and clock.monotonic() < patience:
            self.notify()
            gevent.sleep(0.02)
        self.app.parts.close()
        gc.unfreeze()  # or Python takes modules apart while objects still need them

    def _listen(self, sock: Any) -> StreamServer:  # noqa: ANN401 - gunicorn's socket
        sock.setblocking(1)
        tls = {"ssl_context": gunicorn.sock.ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        server = StreamServer(
            sock, handle=partial(self.handle, sock), spawn=Pool(MAX_CONNECTIONS), **tls
        )
        server.max_accept = SHARED_ACCEPT_AT_ONCE if self.cfg.workers > 1 else ACCEPT_AT_ONCE
        server.start()
        return server

    def _watch_lateness(self) -> None:
        """Tell the admission how far the loop is behind."""
        clock = SystemClock()
        while self.alive:
            before = clock.monotonic()
            gevent.sleep(LATENESS_EVERY_S)
            late_s = clock.monotonic() - before - LATENESS_EVERY_S
            self.app.parts.admission.note_late(late_s, sum(map(queued_at, self.sockets)))

    def handle(self, listener: Any, client: Any, addr: Any) -> None:  # noqa: ANN401 - gunicorn's
        """One connection, unless it comes from a herd."""
        if not self.cfg.is_ssl and self.app.parts.admission.is_behind():
            with suppress(OSError):
                client.settimeout(KEEPALIVE_S)
                words = client.recv(FIRST_WORDS, socket.MSG_PEEK)
                answer = self.app.parts.admission.turned_away(words)
                client.settimeout(None)
                if answer:
                    return _turn_away(client, answer)
        super().handle(listener, client, addr)
        return None

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - signal's signature
        """TERM: leave at once instead of at the next look."""
        super().handle_exit(sig, frame)
        leaving = getattr(self, "_leaving", None)
        if leaving is not None:
            leaving.set()

    def handle_request(self, *args: Any) -> Any:  # noqa: ANN401 - gunicorn's signature
        """Count what is being answered."""
        self._in_flight += 1
        try:
            return super().handle_request(*args)
        finally:
            self._in_flight -= 1


def queued_at(listener: socket.socket) -> int:
    """How many connections wait to be accepted there; 0 where the system does not tell, or when
    nobody listens any more.

    Linux says so in the field of a listening socket that counts unacknowledged segments of others.
    """
    if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
        return 0
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    except OSError:
        return 0
    return int.from_bytes(info[UNACKED], sys.byteorder)


def _turn_away(client: socket.socket, answer: bytes) -> None:
    """Send a whole answer and hang up; what was sent is read first, or it would cut ours off."""
    with suppress(OSError), client:
        client.settimeout(TURNED_AWAY_S)
        client.recv(65_536)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass
