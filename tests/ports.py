"""Ports for servers that a test starts, kills, and starts again where they were.

They lie below those that the system gives to connections that go out, and each test process,
of whatever run, has a block of its own: nobody takes one while its server is away.
"""

import itertools
import socket
from functools import cache

FIRST = 10_000
PER_PROCESS = 1_000
PROCESSES = 20

_numbers = itertools.cycle(range(1, PER_PROCESS))


@cache
def _guard() -> socket.socket:
    """Held as long as this process lives: whoever listens on a block's first port has the block."""
    for first in range(FIRST, FIRST + PROCESSES * PER_PROCESS, PER_PROCESS):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
            guard.listen()
        except OSError:
            guard.close()
            continue
        return guard
    raise OSError(f"all {PROCESSES} blocks of ports from {FIRST} on are taken")


def free_port() -> int:
    """A port of this process that nobody listens on, another one at each call."""
    first = _guard().getsockname()[1]
    for number in itertools.islice(_numbers, PER_PROCESS):
        port: int = first + number
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"all ports from {first} on are taken")
