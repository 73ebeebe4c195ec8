"""Simulated bots over real sockets: they speak the protocol as our bot does and run nothing."""

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
