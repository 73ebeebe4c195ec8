"""Real servers and bots for the benchmarks, started as a person would start them.

Everything lies below one folder, listens on 127.0.0.1, and is ended by process id.
"""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bench import processes
from bench.wire import Connection

REPOSITORY = Path(__file__).resolve().parents[1]
SKEP = (sys.executable, "-m", "botapi.cli")
KEY = re.compile(r"^admin API key: (skep_\S+)$", re.MULTILINE)
BOTS_CFG = """\
trusted_dimensions: "pool"
bot_group {
  auth { require_enrolled_secret: true }
  dimensions: "pool:default"
}
bot_group {
  bot_id_prefix: "sim"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:sim"
}
"""
"""As a new server has it, and simulated bots that need no enrolment, in a pool of their own."""


class Fleet:
    """A server and its bots; a context manager that ends them."""

    def __init__(
        self,
        folder: Path,
        seed: Callable[[Path], None] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`seed` is given the data folder before the server starts; `settings` are the server's."""
        self.folder = folder
        self.data = folder / "data"
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True)
        self.url, self.key, self.environ = "", "", clean_environ() | dict(settings or {})
        self._bots: dict[str, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._seed = seed

    def __enter__(self) -> Self:
        try:
            self._init()
            if self._seed is not None:
                self._seed(self.data)
            self.start_server()
            self._apply_config()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bots, then the server."""
        processes.end(self._bots.values())
        self.stop_server()
        self._bots = {}

    def connect(self) -> Connection:
        """A connection with the admin's key."""
        return Connection(self.url, {"Authorization": f"Bearer {self.key}"})

    def server_pids(self) -> list[int]:
        """The arbiter and its worker."""
        return processes.tree_of(self._server.pid) if self._server else []

    def server_cpu_s(self) -> float:
        """CPU seconds of all server processes so far."""
        return processes.cpu_s(self.server_pids())

    def server_memory_mib(self) -> float:
        """Memory of all server processes."""
        return processes.memory_mib(self.server_pids())

    def bot_cpu_s(self) -> float:
        """CPU seconds of all bots, their runners and the commands these ran."""
        return sum(processes.tree_cpu_s(bot.pid) for bot in self._bots.values())

    def start_bots(self, count: int) -> None:
        """Install each bot through the bootstrap program; return when all are idle."""
        connection = self.connect()
        made = connection.call("POST", "/api/v1/bootstrap-tokens", {"uses": count})
        for number in range(1, count + 1):
            self._install(f"bench-{number}", f"{self.url}/bootstrap?tok={made['token']}")
        wanted = set(self._bots)

        def all_idle() -> bool:
            found = connection.call("GET", "/api/v1/bots?status=idle&dimension=pool:default")
            self._check()
            return {bot["bot_id"] for bot in found["items"]} >= wanted

        processes.await_that("all bots idle", all_idle)
        connection.close()

    def _init(self) -> None:
        command = [*SKEP, "init", "--data-dir", str(self.data)]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environ, capture_output=True, text=True, check=True
        )
        found = KEY.search(done.stdout)
        if found is None:
            raise RuntimeError(f"skep init showed no key: {done.stdout} {done.stderr}")
        self.key = found[1]
        self._write_config()

    def _write_config(self) -> None:
        """Where a server reads its files from a folder: beside other servers there is none."""
        folder = self.data / "config"
        if folder.exists():
            (folder / "bots.cfg").write_text(BOTS_CFG, encoding="utf-8")

    def _apply_config(self) -> None:
        """The same through the server, on a store that servers share."""
        if (self.data / "config").exists():
            return
        connection = self.connect()
        now = connection.call("GET", "/api/v1/config")
        files = {**now["files"], "bots.cfg": BOTS_CFG}
        body = {"files": files, "reason": "bench", "parent": now["digest"]}
        connection.call("POST", "/api/v1/config/apply", body)
        connection.close()

    def stop_server(self) -> None:
        """SIGTERM to the server, and wait for its end."""
        if self._server is not None:
            processes.end([self._server])
        self._server = None

    def start_server(self) -> None:
        """Start it, after a stop on the port that it had; return when it answers."""
        written = self.data / "server.url"
        written.unlink(missing_ok=True)
        port = str(urlsplit(self.url).port or 0)
        serve = [*SKEP, "serve", "--data-dir", str(self.data), "--port", port]
        self._server = start(serve, self._logs / "server.log", REPOSITORY, self.environ)

        def is_there() -> bool:
            self._check()
            return written.exists()

        processes.await_that("the server's address", is_there)
        self.url = written.read_text(encoding="utf-8").strip()

    def _install(self, bot_id: str, address: str) -> None:
        home = self.folder / "bots" / bot_id
        home.mkdir(parents=True)
        with urllib.request.urlopen(address, timeout=60) as reply:
            script = reply.read()
        program = home.with_suffix(".py")
        program.write_bytes(script)
        environ = self.environ | {"SWARMING_BOT_ID": bot_id}
        command = [sys.executable, str(program)]
        self._bots[bot_id] = start(command, self._logs / f"{bot_id}.log", home, environ)

    def _check(self) -> None:
        """Raise RuntimeError when the server or a bot has ended by itself."""
        for name, process in {"server": self._server, **self._bots}.items():
            if process is not None and process.poll() is not None:
                log = (self._logs / f"{name}.log").read_text(errors="replace")[-800:]
                raise RuntimeError(f"{name} ended with {process.returncode}: {log}")


def start(
    command: Sequence[str], log: Path, folder: Path, environ: dict[str, str]
) -> subprocess.Popen[bytes]:
    """A process in a session of its own; its output goes to a file, never to a pipe."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def clean_environ() -> dict[str, str]:
    """Our environment without settings of another server or bot."""
    foreign = ("SKEP_", "SWARMING_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
