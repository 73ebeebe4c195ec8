"""Thousands of bots in one process: the shipped bot's own calls, retries and pauses.

`python -m bench.swarm URL COUNT FOLDER [--spread S] [--working N] [--haste N]` runs until
SIGTERM. Each bot is a greenlet with a connection of its own; it does what a bot does between
tasks and runs nothing. The first `--working` bots have a task each, and speak of it once a
second. FOLDER gets the files of `bench.swarm_log`.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - what follows must find patched sockets
import json  # noqa: E402
import random  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from http.client import HTTPMessage  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import IO, Any  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from bench.simulated import FACTS, STATE  # noqa: E402
from bench.swarm_log import CALL, CALLS_FILE, KINDS, SECONDS_FILE  # noqa: E402
from bench.wire import receive  # noqa: E402
from bot_client.clock import Backoff, Clock, Timer  # noqa: E402
from bot_client.errors import BotError, Refused, SessionLost, Transient  # noqa: E402
from bot_client.lease import Lease, LeaseSession  # noqa: E402
from bot_client.server_api import API, Attributes, ServerApi  # noqa: E402
from bot_client.transport import READ_TIMEOUT_S, Reply, Transport, asked_pause  # noqa: E402

KIND_OF = {API + "handshake": "handshake", API + "poll": "poll", API + "claim": "report"}
CREATE, UPDATE = API + "rbe/session/create", API + "rbe/session/update"
REPORT_S = 1.0
SO_TIMESTAMPNS = 35
"""Linux: what is read comes with the time at which the kernel had it; Python does not name it."""
STAMP = struct.Struct("@qq")
STAMP_BYTES = socket.CMSG_SPACE(STAMP.size)
MAX_ERRORS = 20


class LoopClock(Clock):
    """The bot's clock without its pipes: waiting is gevent's, and `haste` times as short."""

    def __init__(self) -> None:
        """Nothing to open."""
        self.haste = 1.0

    def wait(self, seconds: float) -> bool:
        """Let the others run."""
        gevent.sleep(max(0.0, seconds) / self.haste)
        return False


class Noted(Transport):
    """A transport that writes each attempt down.

    It reads answers as `bench.wire` does, with less work than `http.client`: in a fleet each bot
    has a machine of its own, here all of them share two cores with the server. For the same
    reason a call lasts from when its bytes are handed to the system until the answer has come by
    the kernel's stamp: how long this process then needs to look at it is no bot's time.
    """

    def __init__(self, url: str, calls: IO[bytes]) -> None:
        super().__init__(url)
        self._calls = calls
        self.is_held = False
        self._sent = self._came = 0.0

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Reply:
        """As any; with its time, its status and what it was asked to wait."""
        self._sent = self._came = time.monotonic()
        status, wait = 0, 0
        try:
            reply = super().request(method, path, body, headers, timeout_s)
            status = reply.status
            wait = int(reply.headers.get("Retry-After") or 0)
        finally:
            record = CALL.pack(self._sent, self._came, status, self._kind(path), min(wait, 255))
            self._calls.write(record)
        return reply

    def _attempt(self, _method: str, raw: bytes, timeout_s: float) -> Reply:
        connection = self._connection or self._open(timeout_s)
        connection.sock.settimeout(timeout_s)
        connection.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sent = time.monotonic()
        connection.sock.sendall(raw)
        status, found, body = receive(connection.sock, partial(self._recv, connection.sock))
        if found.get("connection") == "close":
            self.close()
        headers = HTTPMessage()
        for name in ("content-type", "retry-after"):
            headers[name] = found.get(name, "")
        return Reply(status, headers, body)

    def _recv(self, sock: socket.socket, size: int) -> bytes:
        """As the socket's own; notes when the kernel had it."""
        data, stamps, _flags, _address = sock.recvmsg(size, STAMP_BYTES)
        self._came = time.monotonic()
        for level, kind, stamp in stamps:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = STAMP.unpack(stamp)
                self._came -= max(0.0, time.time() - seconds - nanoseconds / 1e9)
        return data

    def _kind(self, path: str) -> int:
        if path == UPDATE:
            name = "hold" if self.is_held else "ask"
        else:
            name = "create" if path == CREATE else KIND_OF.get(path, "report")
        return KINDS.index(name)


class Bot:
    """One bot; `state` is what it is at: `away`, `known` (handshake done) or `back`."""

    clock = LoopClock()

    def __init__(self, url: str, number: int, calls: IO[bytes]) -> None:
        bot_id = f"sim-swarm-{number}"
        self.transport = Noted(url, calls)
        self.api = ServerApi(self.transport, self.clock, bot_id, "swarm/1")
        self.lease = LeaseSession(self.api, "linux_amd64_swarming/0")
        state = STATE | {"client": {"name": "skep", "version": "1"}, "sleep_streak": 0}
        self.facts = Attributes({"id": [bot_id], "pool": ["sim"], **FACTS}, state, "")
        self.session_id = f"{bot_id}-{random.randbytes(4).hex()}"
        self.state = "away"
        self.poll_timer = Timer(self.clock)
        self.poll_errors, self.lease_errors = Backoff(self.clock, 1.4), Backoff(self.clock, 1.4)

    def live(self, first_hold_s: float, first_poll_s: float | None) -> None:
        """Join, then wait for work for ever. The first hold begins after `first_hold_s`."""
        self.handshake()
        self.until(self.poll)
        if first_poll_s is not None:
            self.poll_timer.arm(first_poll_s)
        self.until(self.ask)
        self.clock.wait(first_hold_s)
        while True:
            if self.poll_timer.is_due():
                self.attempt(self.poll, self.poll_errors)
            is_back = self.state == "back"
            self.attempt(self.hold if is_back else self.ask, self.lease_errors)

    def work(self) -> None:
        """Join, take the one task that waits for this bot, and speak of it each second."""
        self.handshake()
        self.until(self.poll)
        found: list[Lease] = []

        def take() -> None:
            lease = self.lease.ask(nonblocking=not found)
            found.extend([lease] if lease else [])
            if not found:
                raise Transient("no lease yet")

        self.until(take)
        payload = found[0].payload
        self.until(lambda: self.api.claim(self.facts, found[0].lease_id, payload))
        run_id = payload["task_id"]
        self.state = "back"
        while True:
            self.attempt(lambda: self.api.task_update(run_id, {}, None), self.lease_errors)
            self.clock.wait(REPORT_S)

    def handshake(self) -> None:
        """Register, again and again, as `bot_client.loop` does."""
        self.state = "away"
        self.lease.forget()
        errors = Backoff(self.clock, 2.0)
        while True:
            try:
                reply = self.api.handshake(self.facts, self.session_id)
            except BotError as failure:
                self.clock.wait(max(errors.fail(), asked_pause(failure, self.clock)))
            else:
                self.facts = self.facts._replace(version=reply.get("bot_version") or "")
                self.state = "known"
                return

    def poll(self) -> None:
        """One poll, and the time of the next. Raises Transient for any command but `rbe`."""
        reply = self.api.poll(self.facts, self.clock.new_id())
        if reply.get("cmd") != "rbe":
            raise Transient(f"the server says {reply.get('cmd')}")
        mean = self.api.poll_s
        self.poll_timer.arm(self.clock.uniform(mean * 5 / 6, mean * 7 / 6))

    def ask(self) -> None:
        """Ask for work without being held: what a bot's first call after a failure costs."""
        self.lease.ask(nonblocking=True)
        self.state = "back"

    def hold(self) -> None:
        """Ask for work and be held."""
        self.transport.is_held = True
        try:
            self.lease.ask(nonblocking=False)
        finally:
            self.transport.is_held = False

    def until(self, act: Callable[[], object]) -> None:
        """Repeat what does not work, with the pauses of a bot's loop."""
        errors = Backoff(self.clock, 1.4)
        while not self.attempt(act, errors):
            pass

    def attempt(self, act: Callable[[], object], errors: Backoff) -> bool:
        """Once; after a failure the pause that follows it. A lost session is made anew."""
        try:
            act()
        except SessionLost:
            self.handshake()
            return False
        except (Transient, Refused, ValueError) as failure:
            self.state = "known"
            self.clock.wait(max(errors.fail(), asked_pause(failure, self.clock)))
            return False
        errors.succeed()
        return True


class Swarm:
    """All bots, and the line about them that is written every second."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.calls = (folder / CALLS_FILE).open("wb")
        self.bots: list[Bot] = []
        self.errors: list[str] = []

    def start(self, count: int, working: int, spread_s: float, poll_s: float) -> None:
        """Begin them all at once; their holds and polls, later, evenly spread."""
        for number in range(count):
            bot = Bot(self.url, number, self.calls)
            self.bots.append(bot)
            if number < working:
                gevent.spawn(self.run, bot.work)
            else:
                first_poll_s = poll_s * number / count if spread_s else None
                gevent.spawn(self.run, bot.live, spread_s * number / count, first_poll_s)

    def run(self, live: Callable[..., None], *args: Any) -> None:
        """One bot; what ends it is a mistake of this program or of the server."""
        try:
            live(*args)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a greenlet
            self.errors.append(repr(error)[:300])

    def tell(self) -> None:
        """One line."""
        self.calls.flush()
        states = Counter(bot.state for bot in self.bots)
        line = {"at": time.monotonic(), "bots": states, "errors": self.errors[:MAX_ERRORS]}
        with (self.folder / SECONDS_FILE).open("a") as out:
            out.write(json.dumps(line) + "\n")


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m bench.swarm", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--working", type=int, default=0)
    parser.add_argument("--spread", type=float, default=0.0, help="seconds of the first holds")
    parser.add_argument("--haste", type=float, default=1.0, help="divides every pause")
    parser.add_argument("--poll", type=float, default=120.0, help="seconds of the first polls")
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Bot.clock.haste = options.haste
    leaving = Event()
    gevent.signal_handler(signal.SIGTERM, leaving.set)
    swarm = Swarm(options.url, options.folder)
    swarm.start(options.count, options.working, options.spread, options.poll)
    while not leaving.wait(1.0):
        swarm.tell()
    swarm.tell()


if __name__ == "__main__":
    main()
