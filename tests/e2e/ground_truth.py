"""A task that tells a file of its own when it starts and ends, and prints bytes known before.

What the server says about a run is compared with what the child did.
"""

import hashlib
import sys
from collections import Counter
from pathlib import Path

CHILD = """\
import hashlib, os, sys, time
truth, key, lines, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])

def tell(what):
    handle = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = "%s %s %s\\n" % (what, key, os.environ["SWARMING_TASK_ID"])
    os.write(handle, line.encode())
    os.close(handle)

tell("start")
for number in range(lines):
    digest = hashlib.sha256(("%s:%d" % (key, number)).encode()).digest()
    os.write(1, digest * 32)
    time.sleep(pause)
tell("end")
"""
PIECE = 32


def command(truth: Path, key: str, lines: int = 20, pause_s: float = 0.02) -> list[str]:
    """The command of one task; it prints `lines` KiB and runs about `lines * pause_s`."""
    return [sys.executable, "-S", "-c", CHILD, str(truth), key, str(lines), str(pause_s)]


def output(key: str, lines: int = 20) -> bytes:
    """What that command prints, to the byte."""
    digests = (hashlib.sha256(f"{key}:{n}".encode()).digest() for n in range(lines))
    return b"".join(digest * PIECE for digest in digests)


def told(truth: Path) -> Counter[tuple[str, str, str]]:
    """How often each (start or end, key, run id) was told."""
    lines = truth.read_text().splitlines() if truth.exists() else []
    return Counter(tuple(line.split()) for line in lines)  # type: ignore[misc]
