"""Simulated bots over real sockets: they speak the protocol as our bot does and run nothing."""

import threading
import time
from typing import Any

from bench.wire import Connection
from tests.fakes.sim_bot import SimBot

POOL = "sim"
FACTS: dict[str, Any] = {
    "cores": ["2"],
    "cpu": ["x86", "x86-64", "x86-64-avx2"],
    "gpu": ["none"],
    "kernel": ["6.1.0-18-amd64"],
    "kvm": ["0"],
    "machine_type": ["n1-standard-2"],
    "os": ["Debian", "Debian-12", "Linux"],
    "python": ["3", "3.11", "3.11.2"],
    "server_version": ["1"],
}
"""Dimensions of about the size that our bot reports."""
STATE: dict[str, Any] = {
    "cost_usd_hour": 0.0,
    "cpu_name": "Intel(R) Xeon(R) Processor @ 2.20GHz",
    "cwd": "/srv/skep/bot",
    "disks": {"/": {"free_mb": 51234.5, "size_mb": 102400.0}},
    "env": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    "files": {},
    "ip": "10.0.0.17",
    "hostname": "worker-17.example.internal",
    "loop": {"cycles": 17, "errors": 0},
    "nb_files_in_temp": 4,
    "pid": 4711,
    "python": {"executable": "/usr/bin/python3", "packages": None, "version": "3.11.2"},
    "ram": 7964,
    "rbe_hybrid_mode": False,
    "rbe_idle": True,
    "rbe_instance": "projects/local/instances/default",
    "running_time": 12345,
    "started_ts": 1772604367,
    "uptime": 54321,
    "user": "skep",
}
"""A state of about the size that our bot reports."""


def make_bot(connection: Connection, bot_id: str) -> SimBot:
    """A bot of the pool `sim` with facts of a common size."""
    bot = SimBot(connection.post, bot_id, dims=FACTS)
    bot.state |= STATE
    return bot


def offer_work(connection: Connection, count: int) -> None:
    """Queue tasks that only simulated bots may run."""
    body = {"command": ["/bin/true"], "dimensions": {"pool": [POOL]}}
    for _ in range(count):
        connection.call("POST", "/api/v1/tasks", body)


class IdleFleet:
    """Bots that hold their lease calls and poll now and then, each on a thread of its own."""

    def __init__(self, url: str, count: int, poll_s: float = 120.0, hold_s: float = 42.5) -> None:
        """Bots begin evenly spread over one hold, and their polls over one poll period."""
        self._url = url
        self._poll_s = poll_s
        self._leaving = threading.Event()
        self._begin = threading.Event()
        self._connections: list[Connection] = []
        self.errors: list[BaseException] = []
        self.calls = {"hold": 0, "poll": 0}
        self._threads = [
            threading.Thread(
                target=self._live, args=(n, hold_s * n / count, poll_s * n / count), daemon=True
            )
            for n in range(count)
        ]

    def start(self, warm_up_s: float) -> None:
        """Connect all bots; return when the first hold of each has begun."""
        for thread in self._threads:
            thread.start()
        self._leaving.wait(warm_up_s)

    def stop(self) -> None:
        """Send everybody home: their connections are closed under them."""
        self._leaving.set()
        for connection in self._connections:
            connection.abort()
        for thread in self._threads:
            thread.join(10.0)

    def _live(self, number: int, first_hold_s: float, first_poll_s: float) -> None:
        try:
            connection = Connection(self._url)
            self._connections.append(connection)
            bot = make_bot(connection, f"sim-idle-{number}").start()
            self._leaving.wait(first_hold_s)
            self._idle(bot, time.monotonic() + first_poll_s)
            connection.close()
        except (OSError, AssertionError) as error:
            if not self._leaving.is_set():
                self.errors.append(error)

    def _idle(self, bot: SimBot, poll_at: float) -> None:
        while not self._leaving.is_set():
            if time.monotonic() >= poll_at:
                bot.poll()
                self._expect(bot)
                self.calls["poll"] += 1
                poll_at += self._poll_s
            bot.update(nonblocking=False)
            self._expect(bot)
            self.calls["hold"] += 1

    @staticmethod
    def _expect(bot: SimBot) -> None:
        if bot.status != 200:
            raise ConnectionError(f"{bot.bot_id}: {bot.status} {bot.text[:200]}")
