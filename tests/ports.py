"""Ports for servers that a test starts, kills, and starts again where they were.

They lie below those that the system gives to connections that go out, and each test process
has its own: nobody takes one while its server is away.
"""

import itertools
import os
import socket

FIRST = 10_000
PER_PROCESS = 2_000
PROCESSES = 10

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
_numbers = itertools.cycle(range(PER_PROCESS))


def free_port() -> int:
    """A port of this process that nobody listens on, another one at each call."""
    for number in itertools.islice(_numbers, PER_PROCESS):
        port = FIRST + _worker * PER_PROCESS + number
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"all ports from {FIRST + _worker * PER_PROCESS} on are taken")
