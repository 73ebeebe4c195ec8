"""Types are known to msgspec before threads use them: what it learns late crashes the process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from botapi.store import codec
from botapi.wire_json import WireError, reader

BOTAPI = Path(codec.__file__).parents[1]

TWO_THREADS = """
import threading
from dataclasses import dataclass
from botapi.wire_json import reader

is_main = True
looking, done = threading.Event(), threading.Event()

def slow():
    looking.set()
    if not is_main:
        done.wait(10)
    return int

@dataclass
class Inner:
    x: "slow()"

@dataclass
class Outer:
    a: int
    inner: Inner
    b: int

body = {"a": 1, "inner": {"x": 2}, "b": 3}
read = reader(Outer)
is_main = False
other = threading.Thread(target=read, args=(body,))
other.start()
looking.wait(10)
print(read(body))
done.set()
other.join()
"""


def test_two_threads_read_a_type_at_once_for_the_first_time():
    run = subprocess.run(
        [sys.executable, "-c", TWO_THREADS], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "Outer(a=1, inner=Inner(x=2), b=3)\n"), run.stderr


def test_types_are_converted_through_readers_only():
    users = {
        path.relative_to(BOTAPI).as_posix()
        for path in BOTAPI.rglob("*.py")
        if re.search(r"msgspec\.convert|decode\([^)]*type=", path.read_text())
    }
    assert users == {"wire_json.py"}


def test_reader_makes_values_or_tells_the_place():
    read = reader(codec.LeaseSession)
    body = {"bot_id": "b", "lease_session_id": "l", "session_id": "s", "opened_ms": 1}
    assert read(body) == codec.LeaseSession("b", "l", "s", 1)
    with pytest.raises(WireError, match=r"\$\.opened_ms"):
        read(body | {"opened_ms": "soon"})
