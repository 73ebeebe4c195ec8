"""Two servers behind a real nginx with the configuration that we ship: bots and people see one."""

import hashlib
import os
import re
import shutil
import subprocess
import urllib.request

import pytest

from tests.e2e.fleet import (
    REPOSITORY,
    Api,
    Fleet,
    kill_group,
    wait_until,
)
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("nginx")]

MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    include {folder}/skep.conf;
}}
"""


@pytest.fixture(scope="module")
def nginx():
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if path is None:
        reason = "nginx is not installed (apt-get install nginx-light)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


def written(folder, changes):
    """The shipped configuration in that folder, with these changes; each has to fit."""
    folder.mkdir(exist_ok=True)
    (folder / "main.conf").write_text(MAIN.format(folder=folder))
    shutil.copy(REPOSITORY / "config/nginx/skep-proxy.conf", folder)
    text = (REPOSITORY / "config/nginx/skep.conf").read_text()
    for old, new in [("/etc/nginx/skep-proxy.conf", f"{folder}/skep-proxy.conf"), *changes]:
        assert re.search(old, text, re.MULTILINE), old
        text = re.sub(old, new, text, flags=re.MULTILINE)
    (folder / "skep.conf").write_text(text)
    return folder / "main.conf"


def test_shipped_configuration_is_what_nginx_takes(nginx, tmp_path):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=skep.example.com"),
            *("-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")),
        ],
        check=True,
        capture_output=True,
    )
    main = written(tmp_path / "nginx", [("/etc/skep/tls", str(tmp_path))])
    done = subprocess.run(
        [nginx, "-t", "-c", str(main)], capture_output=True, text=True, check=False
    )
    assert "test is successful" in done.stderr
    assert "[warn]" not in done.stderr


class Proxied(Fleet):
    """A fleet whose bots and people know the address of nginx only."""

    def __init__(self, folder, nginx):
        super().__init__(folder, SKEP_BEHIND_PROXY="127.0.0.0/8")
        self.other = self.add_server()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        tls = r"^    (ssl_\w+ .*|listen 443 ssl);$"
        main = written(
            folder / "nginx",
            [
                ("127.0.0.1:8080", f"127.0.0.1:{self.server.port}"),
                ("127.0.0.1:8081", f"127.0.0.1:{self.other.port}"),
                (r"(?s)^server \{\n    listen 80;.*?^\}", ""),
                ("listen 443 ssl", f"listen 127.0.0.1:{self.port}"),
                (tls, ""),
            ],
        )
        self.process = subprocess.Popen(
            [nginx, "-c", str(main)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.api = Api(self.url, self.api.key)

    def end(self):
        super().end()
        kill_group(self.process.pid)
        self.process.wait()


@pytest.fixture(scope="module")
def fleet(nginx, tmp_path_factory):
    fleet = Proxied(tmp_path_factory.mktemp("nginx"), nginx)
    try:
        fleet.server.start()
        fleet.other.start()
        token = fleet.api.token(2)
        for name in ("bot1", "bot2"):
            fleet.add_bot(name).install(fleet.url, token)
        fleet.api.until_idle("bot1", "bot2")
        yield fleet
    finally:
        fleet.end()


def test_calls_are_held_through_nginx_and_end_with_work(fleet):
    log = fleet.folder / "nginx" / "access.log"
    wait_until("a call came this way", lambda: "/rbe/session/update" in log.read_text())
    before = len(log.read_text().splitlines())
    for _ in range(4):
        task = fleet.api.submit("sh", "-c", "echo $((6 * 7))")
        done = fleet.api.get(f"/tasks/{task['task_id']}?wait=20")
        assert done["state"] == "COMPLETED"
        assert fleet.api.output(task["task_id"]) == b"42\n"
    lines = log.read_text().splitlines()[before:]
    assert [line for line in lines if "/rbe/session/update" in line], "no bot came this way"
    assert [line for line in lines if re.search(r'" (50[0-9]|413) ', line)] == []


def test_large_output_goes_through_whole(fleet):
    count = 3_000_000
    task = fleet.api.submit("python3", "-c", f"print('x' * {count}, end='')")
    assert fleet.api.until(task["task_id"])["state"] == "COMPLETED"
    whole = hashlib.sha256(fleet.api.output(task["task_id"])).digest()
    assert whole == hashlib.sha256(b"x" * count).digest()


def test_request_id_of_nginx_and_address_of_the_caller_are_taken_over(fleet):
    with urllib.request.urlopen(fleet.url + "/readyz", timeout=10) as answer:
        assert answer.status == 200
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert fleet.api.bot("bot1")["external_ip"] == "127.0.0.1"


def test_one_server_dies_and_nobody_is_lost(fleet):
    long = fleet.api.submit("sh", "-c", "sleep 4; echo survived")
    fleet.api.until(long["task_id"], "RUNNING")
    fleet.server.kill_all()
    short = fleet.api.submit("echo", "meanwhile", key="while-one-is-dead")
    assert fleet.api.until(short["task_id"])["state"] == "COMPLETED"
    assert fleet.api.until(long["task_id"])["state"] == "COMPLETED"
    assert fleet.api.output(long["task_id"]) == b"survived\n"
    fleet.server.start()
    wait_until("both answer", lambda: fleet.server.is_ready() and fleet.other.is_ready())
