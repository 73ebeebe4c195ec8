"""Real processes for end-to-end tests: `skep serve`, bots through the real bootstrap, a client.

Output goes to files, never to a pipe that would outlive a kill. Every wait is for a condition
and has a limit. Whoever makes a process ends it: by its id, or by the group it leads.
"""

import contextlib
import functools
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from botapi import first_start, settings
from tests.ports import free_port

T = TypeVar("T")
Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
SKEP = (sys.executable, "-m", "botapi.cli")
LIMIT_S = 40.0
LOOK_S = 0.05
KEY = re.compile(r"^admin API key: (skep_\S+)$", re.MULTILINE)
FINAL = {
    *("COMPLETED", "TIMED_OUT", "BOT_DIED", "CANCELED"),
    *("KILLED", "EXPIRED", "NO_RESOURCE", "CLIENT_ERROR"),
}
FAST = {
    "SKEP_POLL_S": "1",
    "SKEP_HOLD_MIN_S": "5",
    "SKEP_HOLD_MAX_S": "6",
    "SKEP_SWEEP_S": "0.2",
    "SKEP_OFFER_TIMEOUT_S": "2",
    "SKEP_SEEN_FLUSH_S": "1",
    "SKEP_LOG_FORMAT": "json",
}
"""Settings with which everything that is periodic happens within seconds."""

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


class NotReached(AssertionError):
    """A condition that did not come true in time."""


def tell(text: str) -> None:
    """A seed or a figure: shown by `pytest -s`, and when the test fails."""
    sys.stderr.write(f"{text}\n")


def wait_until(
    what: str, condition: Callable[[], T], limit_s: float = LIMIT_S, every_s: float = LOOK_S
) -> T:
    """The first true value of the condition; a server that is away counts as not yet."""
    end = time.monotonic() + limit_s
    moment = threading.Event()
    last: object = None
    while True:
        try:
            found = condition()
            last = found
            if found:
                return found
        except OSError as error:
            last = error
        if time.monotonic() > end:
            raise NotReached(f"{what}: not within {limit_s:g} s; last: {str(last)[:600]}")
        moment.wait(every_s)


def clean_environ(**more: str) -> dict[str, str]:
    """Our environment without settings of another server or bot; this Python is `python3`."""
    foreign = ("SKEP_", "SWARMING_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ.get('PATH', '/usr/bin:/bin')}"
    return environ | more


# What the kernel knows of processes.


def state_of(pid: int) -> str:
    """One letter, such as R, S or Z; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def is_running(pid: int) -> bool:
    """Is there such a process, and not only its remains?"""
    return state_of(pid) not in {"", "Z", "X"}


def children_of(pid: int) -> list[int]:
    """Direct children, zombies included."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            found += [int(word) for word in text.split()]
    return found


def descendants_of(pid: int) -> list[int]:
    """Children, and theirs."""
    found = []
    for child in children_of(pid):
        found += [child, *descendants_of(child)]
    return found


def command_line(pid: int) -> str:
    """The words of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def running_below(folder: Path) -> dict[int, str]:
    """Running processes whose working folder lies there, with their command lines."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        pid = int(place.name)
        try:
            home = os.readlink(place / "cwd")
        except OSError:
            continue
        is_below = home == str(folder) or home.startswith(f"{folder}/")
        if is_below and is_running(pid):
            found[pid] = command_line(pid)
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal one process; gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """SIGKILL to the group that this process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


# The client.


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Api:
    """`/api/v1` with an API key, one connection a call."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def send(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of a success. Refused for another status, OSError when away."""
        data = None if body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.read(), reply.headers
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            if error.code >= 500:
                raise ConnectionError(f"{method} {path}: {error.code} {text}") from None
            raise Refused(error.code, text) from None
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise ConnectionError(f"{method} {path}: {error}") from None

    def get(self, path: str) -> Any:
        return json.loads(self.send("GET", "/api/v1" + path)[0])

    def post(self, path: str, body: object, **headers: str) -> Any:
        return json.loads(self.send("POST", "/api/v1" + path, body, **headers)[0])

    def token(self, uses: int = 1, **more: object) -> str:
        """A bootstrap token."""
        return str(self.post("/bootstrap-tokens", {"uses": uses, **more})["token"])

    def submit(self, *command: str, key: str = "", **more: object) -> Json:
        """A task; asked for until it is acknowledged when `key` names the request."""
        body = {"command": list(command), **more}
        if not key:
            return dict(self.post("/tasks", body))
        post = lambda: self.post("/tasks", body, Idempotency_Key=key)  # noqa: E731
        return dict(wait_until(f"submit {key}", post, 60))

    def task(self, task_id: str) -> Json:
        return dict(self.get(f"/tasks/{task_id}"))

    def until(self, task_id: str, *states: str, limit_s: float = LIMIT_S) -> Json:
        """The task, once it is in one of these states; without any: once it is final."""
        wanted = set(states) or FINAL
        task: Json = {}

        def there() -> bool:
            task.clear()
            task.update(self.task(task_id))
            if task["state"] in FINAL and task["state"] not in wanted:
                raise AssertionError(f"{task_id} is {task['state']}: {task}")
            return task["state"] in wanted

        wait_until(f"{task_id} to be {sorted(wanted)}", there, limit_s)
        return task

    def output(self, task_id: str) -> bytes:
        """All that is stored."""
        pieces, offset = [], 0
        while True:
            body, headers = self.send("GET", f"/api/v1/tasks/{task_id}/output?offset={offset}")
            pieces.append(body)
            offset = int(headers["X-Skep-Next-Offset"])
            if not body:
                return b"".join(pieces)

    def pages(self, path: str, limit: int = 500) -> list[Json]:
        """Every item of a list."""
        items: list[Json] = []
        cursor = ""
        sign = "&" if "?" in path else "?"
        while True:
            more = f"&cursor={urllib.parse.quote(cursor)}" if cursor else ""
            page = self.get(f"{path}{sign}limit={limit}{more}")
            items += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return items

    def bot(self, bot_id: str) -> Json:
        return dict(self.get(f"/bots/{bot_id}"))

    def events(self, bot_id: str, *kinds: str) -> list[Json]:
        """A bot's events, newest first; of these kinds when some are given."""
        found = self.pages(f"/bots/{bot_id}/events")
        return [event for event in found if not kinds or event["event"] in kinds]

    def until_idle(self, *bot_ids: str, limit_s: float = LIMIT_S) -> None:
        """Return when each of the bots is idle."""
        for bot_id in bot_ids:
            wait_until(f"{bot_id} to be idle", functools.partial(self._is_idle, bot_id), limit_s)

    def _is_idle(self, bot_id: str) -> bool:
        try:
            return self.bot(bot_id)["status"] == "idle"
        except Refused:
            return False


class Connection:
    """What a simulated bot posts over: kept, and opened again when it broke. Close it."""

    def __init__(self, url: str) -> None:
        self._http = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
        self.close = self._http.close

    def __call__(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            self._http.request("POST", path, body, dict(headers))
            with self._http.getresponse() as reply:
                return reply.status, dict(reply.getheaders()), reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionError(str(error)) from error


# The server.


class ServerProcess:
    """One `skep serve`; started again on the same port. `environ` are its settings.

    `sources` is where `botapi` is: of this release, or of another one.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], data: Path | None = None) -> None:
        self.folder = folder
        self.sources = REPOSITORY
        self.data = data or folder / "data"
        self.environ = dict(environ)
        self.settings: dict[str, str] = {}
        self.log = folder / f"server-{id(self):x}.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """gunicorn's master, which leads the group."""
        assert self.process is not None
        return self.process.pid

    def init(self, bots_cfg: str = BOTS_CFG) -> str:
        """`skep init`; the admin's API key.

        Done in this process when it has the same sources: a second less for every fleet.
        """
        if self.sources == REPOSITORY:
            environ = clean_environ(**self.environ)
            key = first_start.prepare(
                settings.load(environ, {"data_dir": str(self.data)}), is_init=True
            )
        else:
            key = self._run_init()
        assert key
        if self.bots_cfg.exists():
            self.bots_cfg.write_text(bots_cfg)
        return key

    def _run_init(self) -> str:
        with (self.folder / "init.log").open("wb") as errors:
            done = subprocess.run(
                [*SKEP, "init", "--data-dir", str(self.data)],
                cwd=self.sources,
                env=clean_environ(**self.environ),
                stdout=subprocess.PIPE,
                stderr=errors,
                check=True,
            )
        found = KEY.search(done.stdout.decode())
        assert found is not None, done.stdout
        return found[1]

    @property
    def bots_cfg(self) -> Path:
        return self.data / "config" / "bots.cfg"

    def start(self, **settings: str) -> None:
        """Return when it answers; `settings` are for this start only."""
        self.begin(**settings)
        self.await_ready()

    def begin(self, **settings: str) -> None:
        """Start without waiting."""
        self.settings = {**FAST, **self.environ, **settings}
        assert self.process is None or self.process.poll() is not None, "it runs already"
        command = [*SKEP, "serve", "--data-dir", str(self.data), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.sources,
                env=clean_environ(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """It answers `/readyz` with 200."""
        wait_until(f"server ready, see {self.log}", self.is_ready)

    def is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.tail()}")
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=5) as reply:
                return bool(reply.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def workers(self) -> list[int]:
        """Its running workers."""
        return [pid for pid in children_of(self.pid) if is_running(pid)]

    def terminate(self, limit_s: float = 10.0) -> float:
        """SIGTERM to the master; the seconds until it had ended."""
        began = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(limit_s)
        return time.monotonic() - began

    def kill_worker(self) -> None:
        """SIGKILL to every worker; the master starts others."""
        for pid in self.workers():
            kill(pid)

    def kill_all(self) -> None:
        """SIGKILL to master and workers at once."""
        if self.process is not None:
            kill_group(self.pid)
            self.process.wait()

    def end(self) -> None:
        """For the end of a test: whatever it takes."""
        if self.process is None:
            return
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill_all()

    def kills(self) -> int:
        """How many workers were killed, by what the master wrote."""
        return self.text().count("was sent SIGKILL")

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.text().splitlines()[-lines:])


# The bot.


class BotProcess:
    """One bot in a folder of its own, installed by the pasted line."""

    def __init__(self, folder: Path, bot_id: str) -> None:
        self.bot_id = bot_id
        self.home = folder / "bots" / bot_id
        self.home.mkdir(parents=True)
        self.log = folder / f"{bot_id}.log"
        self._shells: list[subprocess.Popen[bytes]] = []

    def install(self, url: str, token: str) -> None:
        """`curl -sSf 'URL/bootstrap?tok=T' | python3 -`; returns at once."""
        self.shell(f"curl -sSf '{url}/bootstrap?tok={token}' | python3 -")

    def restart(self) -> None:
        """As a service manager would: the last good archive."""
        self.shell("exec python3 swarming_bot.zip")

    def shell(self, line: str) -> subprocess.Popen[bytes]:
        """A shell line in the bot's folder, with the bot's environment."""
        with self.log.open("ab") as log:
            shell = subprocess.Popen(
                ["sh", "-c", line],
                cwd=self.home,
                env=clean_environ(SWARMING_BOT_ID=self.bot_id),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._shells.append(shell)
        return shell

    @property
    def starter(self) -> int:
        """The process that holds the lock, and started the others."""
        return int((self.home / "swarming.lck").read_text())

    @property
    def supervisor(self) -> int:
        """The starter's child."""
        (pid,) = [pid for pid in children_of(self.starter) if "start_slave" in command_line(pid)]
        return pid

    @property
    def runner(self) -> int:
        """The supervisor's child that starts commands."""
        (pid,) = [pid for pid in children_of(self.supervisor) if " runner " in command_line(pid)]
        return pid

    def pids(self) -> tuple[int, int]:
        """What must not change while the fleet goes on."""
        return self.starter, self.supervisor

    def running(self) -> dict[int, str]:
        """Every process of this bot and its task."""
        return running_below(self.home)

    def zombies(self) -> list[int]:
        """Ended children that nobody collected."""
        return [pid for pid in descendants_of(self.starter) if state_of(pid) == "Z"]

    def logs(self) -> str:
        """Everything the bot wrote."""
        files = sorted((self.home / "logs").glob("*.log")) if (self.home / "logs").exists() else []
        return "\n".join(path.read_text(errors="replace") for path in (self.log, *files))

    def end(self, limit_s: float = 10.0) -> None:
        """SIGTERM to the starter, then SIGKILL to what is left, by process id."""
        for patience_s in (3.0, limit_s):  # the second signal stops a running task
            with contextlib.suppress(OSError, ValueError):
                kill(self.starter, signal.SIGTERM)
            with contextlib.suppress(NotReached):
                wait_until(f"{self.bot_id} to end", lambda: not self.running(), patience_s)
        while left := self.running():
            for pid in left:
                kill(pid)
        for shell in self._shells:
            kill_group(shell.pid)
            shell.wait()


class Fleet:
    """A server and its bots, with a copy of the bot's sources that the test may edit.

    With a `SKEP_STORE` that servers share each has a data folder of its own.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.archive = folder / "bot_client"
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "bot_client", self.archive, ignore=unwanted)
        settings = {"SKEP_BOT_ARCHIVE": str(self.archive), **settings}
        self.is_shared = settings.get("SKEP_STORE", "sqlite") != "sqlite"
        if self.is_shared:
            settings = {"SKEP_SECRETS_KEYS": str(folder / "data" / "secrets.keys"), **settings}
        self.server = ServerProcess(folder, settings)
        self.servers = [self.server]
        self.bots: dict[str, BotProcess] = {}
        self.api = Api(self.server.url, self.server.init())
        self._keys = itertools.count()

    def add_bots(self, *bot_ids: str, server: ServerProcess | None = None) -> list[BotProcess]:
        """Install bots and wait until they are idle."""
        url = (server or self.server).url
        token = self.api.token(len(bot_ids))
        made = [self.add_bot(bot_id) for bot_id in bot_ids]
        for bot in made:
            bot.install(url, token)
        try:
            self.api.until_idle(*bot_ids)
        except NotReached as error:
            tails = [self.server.tail(), *(bot.logs()[-3000:] for bot in made)]
            raise NotReached("\n----\n".join([str(error), *tails])) from None
        return made

    def add_bot(self, bot_id: str) -> BotProcess:
        """A bot's empty folder; ended with the fleet."""
        self.bots[bot_id] = BotProcess(self.folder, bot_id)
        return self.bots[bot_id]

    def add_server(self, **settings: str) -> ServerProcess:
        """Another server on the same store: on the same data folder, unless that is shared.

        Then only the blobs are in the same folder.
        """
        environ = {**self.server.environ, **settings}
        data = self.server.data
        if self.is_shared:
            data = self.folder / f"data-{len(self.servers) + 1}"
            data.mkdir()
            blobs = self.server.data / "blobs"
            blobs.mkdir(exist_ok=True)
            (data / "blobs").symlink_to(blobs)
        self.servers.append(ServerProcess(self.folder, environ, data))
        return self.servers[-1]

    def start(self) -> None:
        """Start the first server; the configuration of a shared store is applied through it."""
        self.server.start()
        if self.is_shared:
            self.apply(BOTS_CFG)

    def apply(self, bots_cfg: str, api: Api | None = None) -> Json:
        """`skep config apply` of another bots.cfg."""
        api = api or self.api
        now = api.get("/config")
        files = {**now["files"], "bots.cfg": bots_cfg}
        body = {"files": files, "reason": "a test", "parent": now["digest"]}
        return dict(api.post("/config/apply", body))

    def key(self) -> str:
        """A new name for a request."""
        return f"k-{next(self._keys)}"

    @property
    def key_file(self) -> Path:
        path = self.folder / "key"
        path.write_text(self.api.key)
        return path

    def cli(self, *words: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """A client command, to its end."""
        process = self.begin_cli(*words)
        try:
            process.wait(limit_s)
        finally:
            kill_group(process.pid)
        out, err = self._outputs(process)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def begin_cli(self, *words: str) -> subprocess.Popen[bytes]:
        """A client command; its output is in files, see `cli_output`."""
        name = f"cli-{self.key()}"
        environ = clean_environ(SKEP_SERVER=self.api.url, SKEP_TOKEN_FILE=str(self.key_file))
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [*SKEP, *words],
                cwd=REPOSITORY,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        process.skep_name = name  # type: ignore[attr-defined]
        return process

    def _outputs(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        name = process.skep_name  # type: ignore[attr-defined]
        return tuple((self.folder / f"{name}.{end}").read_bytes() for end in ("out", "err"))

    def cli_output(self, process: subprocess.Popen[bytes]) -> bytes:
        """The standard output of a command until now."""
        return self._outputs(process)[0]

    def end(self) -> None:
        """End everything; the bots first, so that they can say goodbye."""
        for bot in self.bots.values():
            with contextlib.suppress(OSError, ValueError):
                kill(bot.starter, signal.SIGTERM)
        for bot in self.bots.values():
            bot.end()
        for server in self.servers:
            server.end()


@contextlib.contextmanager
def running_fleet(folder: Path, *bot_ids: str, **settings: str) -> Iterator[Fleet]:
    """A fleet for a `with`: one server, these bots, everything ended afterwards."""
    fleet = Fleet(folder, **settings)
    try:
        fleet.start()
        if bot_ids:
            fleet.add_bots(*bot_ids)
        yield fleet
    finally:
        fleet.end()
