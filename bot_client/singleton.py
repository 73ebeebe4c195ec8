"""One bot per directory, by a lock that no restart has to hand over.

The starter takes the lock and the supervisor inherits the same open file; so it is free exactly
when both are gone, and neither the runner nor a command ever holds it.
"""

import os

from bot_client.errors import EXIT_LOCKED, Fatal

LOCK_NAME = "swarming.lck"


def lock(bot_dir: str) -> int:
    """Take the lock and write our pid; returns the descriptor.  Fatal(75) names the holder."""
    path = os.path.join(bot_dir, LOCK_NAME)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl  # noqa: PLC0415 - there is none on some systems

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return fd
    except OSError as taken:
        holder = os.read(fd, 32).decode("ascii", "replace").strip() or "?"
        os.close(fd)
        message = f"another bot works in {bot_dir}: pid {holder} {_command_line(holder)}"
        raise Fatal(message.rstrip(), EXIT_LOCKED) from taken
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _command_line(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"({words})"
