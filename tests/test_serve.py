"""`skep init` and `skep serve` as somebody types them."""

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.secrets.envelope import Place
from botapi.secrets.vault import NAMED, Secret, Vault, secret_doc
from botapi.serve import exposure_problem
from botapi.settings import Settings
from botapi.store.sqlite import SqliteStore

SKEP = Path(sys.executable).with_name("skep")


def run(*arguments, **environ):
    return subprocess.run(
        [SKEP, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "is_open"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"host": "fleet.example.com"}, False),
        ({"host": "0.0.0.0", "tls_cert": Path("c"), "tls_key": Path("k")}, True),
    ],
)
def test_server_listens_beyond_loopback_only_with_tls_or_a_proxy(options, is_open):
    assert (exposure_problem(Settings(**options)) == "") == is_open


@pytest.mark.slow
def test_serve_refuses_an_open_address_in_one_line(tmp_path):
    done = run("serve", "--data-dir", str(tmp_path / "d"), "--host", "0.0.0.0")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --host 0.0.0.0 would be open without TLS: give --tls-cert and --tls-key, "
        "or --behind-proxy CIDR when a proxy in front does TLS\n"
    )
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_init_shows_the_admin_key_once(tmp_path):
    data = tmp_path / "d"
    first = run("init", "--data-dir", str(data))
    assert first.returncode == 0
    assert re.search(r"^admin API key: skep_[0-9a-z]{8}_\S{43}$", first.stdout, re.MULTILINE)
    assert (data / "config" / "bots.cfg").read_text().startswith("# bots.cfg")
    again = run("init", "--data-dir", str(data))
    assert again.returncode == 0
    assert "skep_" not in again.stdout + again.stderr
    another = run("init", "--data-dir", str(data), "--new-admin-key")
    assert "admin API key: skep_" in another.stdout


@pytest.mark.slow
def test_init_keeps_the_database_to_its_owner(tmp_path):
    data = tmp_path / "d"
    run("init", "--data-dir", str(data))
    assert data.stat().st_mode & 0o077 == 0
    assert {p.name for p in data.glob("*.db*") if p.stat().st_mode & 0o077} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"SKEP_PORT": "abc"}, "error: SKEP_PORT='abc' is refused: give a whole number"),
        ({"SKEP_FAULT": "nonsense"}, "error: 'nonsense' is not like claim_slice.before_commit"),
    ],
)
def test_serve_refuses_a_bad_setting_in_one_line(tmp_path, environ, line):
    done = run("serve", "--data-dir", str(tmp_path / "d"), **environ)
    assert done.returncode in {2, 3}
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


class Running:
    """A server process; its output goes to a file."""

    def __init__(self, folder, *arguments, **environ):
        self.data = folder / "data"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [SKEP, "serve", "--data-dir", self.data, "--port", "0", *arguments],
                env={**os.environ, **environ},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.url = self._url()
        self.port = int(self.url.rsplit(":", 1)[1])

    def _url(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            if (self.data / "server.url").exists():
                return (self.data / "server.url").read_text().strip()
            os.sched_yield()
        raise AssertionError(self.log.read_text())

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*arguments, **environ):
        started.append(Running(tmp_path, *arguments, **environ))
        return started[-1]

    yield begin
    for server in started:
        server.stop()


@pytest.mark.slow
def test_files_that_are_no_certificate_are_refused_in_one_line(tmp_path):
    cert = tmp_path / "cert.pem"
    tls = ("--tls-cert", str(cert), "--tls-key", str(cert))
    for said in ("No such file", "refused"):
        done = run("serve", "--data-dir", str(tmp_path / "data"), *tls)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert str(cert) in line
        assert said in line
        cert.write_text("geheim")
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_port_that_is_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--data-dir", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 3
    assert done.stderr == (
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use: "
        "give another --host or --port (0: any free one)\n"
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_key_file_is_not_made_beside_secrets_that_it_cannot_open(tmp_path):
    data = tmp_path / "data"
    assert run("init", "--data-dir", str(data)).returncode == 0
    clock, rng = SystemClock(), SystemRng()
    store = SqliteStore(data, Threads(), clock, rng)
    vault = Vault(data / "secrets.keys", rng)
    sealed = vault.seal(Place("secret", "s", 1), b"geheim")
    secret = Secret("s", 1, ("*",), 1, 1, "me", sealed)
    store.transact(lambda txn: txn.put(NAMED, secret_doc(secret)), label="test")
    store.close()
    mistyped = tmp_path / "mistyped.keys"
    done = run("init", "--data-dir", str(data), SKEP_SECRETS_KEYS=str(mistyped))
    assert done.returncode == 3
    assert done.stderr == (
        f"error: {mistyped}: there is no key file, and the database holds secrets that one seals: "
        "set SKEP_SECRETS_KEYS right, or bring the file back from its backup\n"
    )
    assert not mistyped.exists()
    assert run("init", "--data-dir", str(data)).returncode == 0


@pytest.mark.slow
def test_address_that_no_store_can_have_is_wrong_usage(tmp_path):
    address = "postgresql://me:geheim@[::1/skep"
    done = run("init", "--data-dir", str(tmp_path), SKEP_STORE=address)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "geheim" not in done.stderr


@pytest.mark.e2e
def test_server_answers_over_tls_when_it_has_a_certificate(tmp_path, start):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        (
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {cert} "
            "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        ).split(),
        check=True,
        capture_output=True,
    )
    server = start("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key))
    assert server.url == f"https://127.0.0.1:{server.port}"
    trusted = ssl.create_default_context(cafile=cert)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=trusted, timeout=20)
    connection.request("GET", "/readyz")
    assert connection.getresponse().read() == b"ready\n"
    connection.close()
    assert server.stop() == 0


@pytest.mark.e2e
def test_server_says_what_it_is_and_stops_when_told(start):
    server = start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    answers = {}
    for path in ("/healthz", "/readyz", "/swarming/api/v1/bot/server_ping"):
        connection.request("GET", path)
        response = connection.getresponse()
        answers[path] = (response.status, response.read())
        assert re.fullmatch(r"[0-9a-f]{24}", response.headers["X-Request-Id"])
    assert answers == {
        "/healthz": (200, b"ok\n"),
        "/readyz": (200, b"ready\n"),
        "/swarming/api/v1/bot/server_ping": (200, b"Server up"),
    }
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5, "an idle keep-alive connection must not delay the end"
    connection.close()
    assert "Traceback" not in server.log.read_text()
    assert "loopback only" in server.log.read_text()
