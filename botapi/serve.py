"""`skep serve`: checks what it is told, then gunicorn with the workers of `botapi.worker`.

The store is opened in each worker, after the fork.
"""

import errno
import ipaddress
import os
import resource
import signal
import socket
import ssl
import sys
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

import click
import gunicorn.app.base
from flask import Flask

from botapi import app as composition
from botapi import engines, logs
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Greenlets, Threads
from botapi.first_start import FAILED, USAGE, fail, folder_options, load_settings, prepare, show_key
from botapi.observe import WorkerFiles
from botapi.settings import Settings
from botapi.worker import KEEPALIVE_S, MAX_CONNECTIONS, Worker

URL_FILE = "server.url"
GRACEFUL_S = 25
BACKLOG = 8_192
"""Connections that wait to be accepted; the kernel's `somaxconn` may allow fewer."""
LEAVING_S = 5.0
"""How long a server that ends may still listen where another one is to."""
IN_USE = os.strerror(errno.EADDRINUSE)


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
    key = _prepared(chosen)
    if key:
        show_key(key)
    _raise_file_limit()
    Server(chosen).run()


def _prepared(chosen: Settings) -> str:
    """`prepare`; for a store that servers share in a process of its own.

    The client of Datastore leaves threads and locks behind (gRPC), which no fork survives: a
    worker may wait for one forever. Such a store shows no key, so the exit code says it all.
    """
    if not chosen.is_shared:
        return prepare(chosen)
    apart = get_context("fork").Process(target=_prepare_apart, args=(chosen,))
    apart.start()
    apart.join()
    if apart.exitcode:
        sys.exit(apart.exitcode if apart.exitcode > 0 else FAILED)
    return ""


def _prepare_apart(chosen: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was interrupted
    prepare(chosen)


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
    """Bound and never listening: bots that knock meanwhile are refused, not dropped."""
    try:
        found = socket.getaddrinfo(chosen.host, chosen.port, type=socket.SOCK_STREAM)
        family, kind, number, _name, address = found[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
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
            "forwarded_allow_ips": "*",  # to say what the next two allow, which is nothing
            "secure_scheme_headers": {},
            "forwarder_headers": "",
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
        self.parts.warm(self.chosen.public_url or self.url)
        return composition.create_app(self.parts)

    def ready(self) -> None:
        """Tell the world where we are, in a file, once this worker can answer."""
        target = self.chosen.data_dir / URL_FILE
        part = target.with_suffix(f".{os.getpid()}")
        part.write_text(self.url + "\n", encoding="utf-8")
        part.replace(target)
