"""A throw-away fleet: one server and some bots as processes, started as a person would.

Everything lies below one folder. `stop` ends the bots first, then the server, and checks that
nothing of them is left.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from botapi import settings
from botapi.ctl.exits import Exit
from botapi.ctl.http import Client

REPOSITORY = Path(__file__).resolve().parents[2]
SKEP = (sys.executable, "-m", "botapi.cli")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
LOOK_S = 0.1
LAST_LINES = 15

HOOKS = '''"""The demonstration's hooks: a trial may run on a nearly full disk."""

_FREE = {"size": 64 * 1024 * 1024, "max_percent": 1.0, "min_percent": 0.0}


def get_settings(bot):
    """Hardly any free space is asked for."""
    return {"free_partition": {"root": _FREE, "bot": _FREE}}
'''
_KEY = re.compile(r"^admin API key: (skep_\S+)$", re.MULTILINE)


class FleetError(Exception):
    """The fleet cannot go on; one line, and the log to read."""

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


class Fleet:
    """The folder, the server and the bots of one demonstration."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.key_file = folder / "admin.key"
        self.url = ""
        self._data = folder / "data"
        self._tell = tell
        self._server: subprocess.Popen[bytes] | None = None
        self._bots: dict[str, subprocess.Popen[bytes]] = {}
        self.logs.mkdir(parents=True)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of client commands: this server, this key."""
        return _clean_environ() | {
            "SKEP_SERVER": self.url,
            "SKEP_TOKEN_FILE": str(self.key_file),
        }

    def start_server(self, port: int) -> None:
        """`skep init`, then `skep serve`; returns when the server answers."""
        log = self.logs / "init.log"
        with log.open("wb") as errors:
            done = subprocess.run(
                [*SKEP, "init", "--data-dir", str(self._data)],
                cwd=REPOSITORY,
                env=_clean_environ(),
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
            )
        found = _KEY.search(done.stdout.decode())
        if done.returncode or found is None:
            raise FleetError(f"skep init ended with {done.returncode} and no API key", log)
        self._keep_key(found[1])
        (self._data / "config" / "scripts" / "bot_config.py").write_text(HOOKS, encoding="utf-8")
        serve = [*SKEP, "serve", "--data-dir", str(self._data), "--port", str(port)]
        self._server = self._start("server", serve, REPOSITORY, _clean_environ())
        written = self._data / "server.url"
        self._await(
            "the server's address",
            lambda: written.exists() and written.read_text(),
            self._server_log,
        )
        self.url = written.read_text().strip()
        self._tell(f"server at {self.url}")

    def start_bots(self, count: int) -> None:
        """Install each bot as the pasted line does; returns when all of them are idle."""
        made = json.loads(self.skep("bootstrap", "new", "--uses", str(count), "--format", "json"))
        line = f"{self.url}/bootstrap?tok={made['token']}"
        for number in range(1, count + 1):
            self._install(f"demo-{number}", line)
        self._await("all bots idle", lambda: not self._missing(), self._missing_log)
        self._tell(f"{count} bots are idle")

    def skep(self, *arguments: str, also: frozenset[int] = frozenset()) -> bytes:
        """The stdout of a client command; its notes go to our stderr.

        FleetError for an exit code that is neither 0 nor in `also`.
        """
        done = subprocess.run(
            [*SKEP, *arguments],
            cwd=REPOSITORY,
            env=self.environ,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode not in {Exit.DONE, *also}:
            what = f"skep {' '.join(arguments[:2])} ended with {done.returncode}"
            raise FleetError(what, self._server_log())
        return done.stdout

    def check(self) -> None:
        """FleetError when the server or a bot has ended by itself."""
        processes = {"server": self._server, **self._bots}
        for name, process in processes.items():
            if process is not None and process.poll() is not None:
                raise FleetError(
                    f"{name} ended with {process.returncode}", self.logs / f"{name}.log"
                )

    def stop(self) -> None:
        """End the bots, then the server; by force what does not end in time."""
        _end(list(self._bots.values()), self._tell)
        self._bots = {}
        if self._server is not None:
            _end([self._server], self._tell)
            self._server = None

    def _keep_key(self, key: str) -> None:
        descriptor = os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")

    def _install(self, bot_id: str, address: str) -> None:
        """`curl -sSf ADDRESS | python3 -` in a folder of the bot's own."""
        home = self.folder / "bots" / bot_id
        home.mkdir(parents=True)
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        environ = _clean_environ() | {"SWARMING_BOT_ID": bot_id, "TMPDIR": str(scratch)}
        script = _fetch(address, self.logs / f"{bot_id}.log")
        bot = self._start(bot_id, [sys.executable, "-"], home, environ, subprocess.PIPE)
        self._bots[bot_id] = bot
        if bot.stdin is not None:
            bot.stdin.write(script)
            bot.stdin.close()

    def _missing(self) -> set[str]:
        """The bots that are not there, or not idle."""
        with Client(settings.load(self.environ)) as client:
            found = client.get("bots", "/bots", [("status", "idle"), ("limit", 1000)])
        return set(self._bots) - {bot["bot_id"] for bot in found["items"]}

    def _missing_log(self) -> Path:
        return self.logs / f"{min(self._missing(), default='server')}.log"

    def _server_log(self) -> Path:
        return self.logs / "server.log"

    def _start(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environ: dict[str, str],
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """A process in a session of its own, so that Ctrl-C reaches only us; output to a file."""
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environ,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _await(self, what: str, there: Callable[[], object], log: Callable[[], Path]) -> None:
        end = time.monotonic() + START_LIMIT_S
        while not there():
            self.check()
            if time.monotonic() > end:
                raise FleetError(f"{what}: not there after {START_LIMIT_S:g} s", log())
            pause(LOOK_S)


def pause(seconds: float) -> None:
    """Let the processes work for a moment."""
    threading.Event().wait(seconds)


def last_lines(log: Path) -> str:
    """The end of a log, for the person who has to find out."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"({error.strerror})"
    return "\n".join(lines[-LAST_LINES:]) or "(empty)"


def _clean_environ() -> dict[str, str]:
    """Our environment without settings of another server or bot."""
    foreign = ("SKEP_", "SWARMING_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _fetch(address: str, log: Path) -> bytes:
    """The bootstrap program, by curl as in the pasted line, or without it where it is absent."""
    curl = shutil.which("curl")
    if curl is None:
        with urllib.request.urlopen(address, timeout=START_LIMIT_S) as reply:  # noqa: S310 - our server
            content: bytes = reply.read()
            return content
    with log.open("ab") as errors:
        done = subprocess.run(
            [curl, "-sSf", address], stdout=subprocess.PIPE, stderr=errors, check=False
        )
    if done.returncode:
        raise FleetError(f"curl ended with {done.returncode}", log)
    return done.stdout


def _end(processes: Sequence[subprocess.Popen[bytes]], tell: Callable[[str], None]) -> None:
    """SIGTERM to all, then SIGKILL to what is left of their process groups."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    end = time.monotonic() + STOP_LIMIT_S
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            tell(f"process {process.pid} does not end: killing it")
        _kill_group(process.pid)
        process.wait()


def _kill_group(pid: int) -> None:
    """Every process group is led by a process that we started; usually nothing is left of it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
