"""Loss of power under SQLite: what was acknowledged is in every image that a disk may be left with.

A child writes under `strace`, which records each write and each sync. An image is made from a
prefix of that record: what was synced is there, and of what was not, each sector is there or
not as chance has it. A disk that lies about a sync cannot be shown so.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.sqlite import SqliteStore
from botapi.store.sqlite_copy import damage
from tests.e2e.fleet import REPOSITORY, tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

IMAGES = int(os.environ.get("SKEP_TEST_IMAGES", "30"))
TRANSACTIONS = 260
"""Enough for the log to be copied into the database in between."""
SECTOR = 512
CHILD = f"""
import os, sys
from pathlib import Path
from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.protocol import Doc
from botapi.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]), Threads(), SystemClock())
for n in range({TRANSACTIONS}):
    def work(txn):
        for name in "ab":
            body, tags = {{"data": os.urandom(4000)}}, frozenset([f"n:{{n}}"])
            txn.put("thing", Doc(f"{{name}}{{n}}", body, tags))
        if n >= 10:
            txn.delete("thing", f"c{{n - 10}}")
        txn.put("thing", Doc(f"c{{n}}", {{}}))
    store.transact(work, label="test")
    os.write(1, b"ack %d\\n" % n)
os._exit(0)
"""
CALLS = "pwrite64,write,ftruncate,fdatasync,fsync"
CALL = re.compile(r"^\d+ +(\w+)\((\d+)<([^>]*)>(.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")
DATA = re.compile(r'^, "((?:\\x[0-9a-f]{2})*)", (\d+)(?:, (\d+))?')


@dataclass
class File:
    """What is on the disk for certain, and what was written since, in order."""

    synced: bytearray = field(default_factory=bytearray)
    waiting: list = field(default_factory=list)

    def apply(self, to, write):
        offset, data = write
        if data is None:
            del to[offset:]
            to.extend(bytes(max(0, offset - len(to))))
            return
        to.extend(bytes(max(0, offset + len(data) - len(to))))
        to[offset : offset + len(data)] = data

    def sync(self):
        for write in self.waiting:
            self.apply(self.synced, write)
        self.waiting = []

    def image(self, chance):
        """The file as it may be found after the power was lost."""
        found = bytearray(self.synced)
        for offset, data in self.waiting:
            pieces = [(offset, data)]
            if data is not None:
                starts = range(0, len(data), SECTOR)
                pieces = [(offset + at, data[at : at + SECTOR]) for at in starts]
            for piece in pieces:
                if chance.random() < 0.5:
                    self.apply(found, piece)
        return bytes(found)


def record(folder):
    """What a child did to its files, and when it acknowledged what."""
    trace = folder / "trace"
    command = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", trace]
    child = [sys.executable, "-c", CHILD, folder / "data"]
    done = subprocess.run(
        [*command, *child], cwd=REPOSITORY, capture_output=True, timeout=120, check=False
    )
    if b"ptrace" in done.stderr.lower():
        absent("strace may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    return list(events(trace, str(folder / "data")))


def events(trace, data):
    """(what, file or number, write): `write`, `sync` and `ack`, in order."""
    unfinished = {}
    with trace.open(encoding="ascii") as lines:
        for line in lines:
            resumed = RESUMED.match(line)
            if resumed:
                if resumed[1] in unfinished:
                    yield unfinished.pop(resumed[1])
                continue
            call = CALL.match(line)
            if call is None:
                continue
            event = event_of(call[1], plain(call[3]), call[4], data)
            if event is not None and event[0] == "sync" and "<unfinished" in line:
                unfinished[line.split()[0]] = event
            elif event is not None:
                yield event


def plain(path):
    """With -xx strace writes paths in hexadecimal too."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)


def event_of(call, path, rest, data):
    if call == "write" and not path.startswith(data):
        said = DATA.match(rest)
        words = bytes.fromhex(said[1].replace("\\x", "")).split() if said else []
        return ("ack", int(words[1]), None) if words[:1] == [b"ack"] else None
    name = Path(path).name
    if name not in {"skep.db", "skep.db-wal"}:
        return None
    if call in {"fdatasync", "fsync"}:
        return "sync", name, None
    if call == "ftruncate":
        return "write", name, (int(rest.strip(", ").split(")")[0]), None)
    said = DATA.match(rest)
    content = bytes.fromhex(said[1].replace("\\x", ""))
    assert len(content) == int(said[2])
    return "write", name, (int(said[3]), content)


def absent(reason):
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_acknowledged_documents_are_in_every_image_after_a_loss_of_power(tmp_path):
    if shutil.which("strace") is None:
        absent("strace is not installed")
    seed = int(os.environ.get("SKEP_TEST_SEED", random.SystemRandom().randrange(10**6)))
    chance = random.Random(seed)
    done = record(tmp_path)
    first = next(n for n, event in enumerate(done) if event[0] == "ack")
    syncs = sum(event[:2] == ("sync", "skep.db") for event in done[first:])
    tell(f"SKEP_TEST_SEED={seed}: {len(done)} calls, {syncs} checkpoints synced")
    assert syncs, "the database was never written from the log: too few transactions"
    cuts = set(chance.sample(range(first + 1, len(done)), IMAGES - 1)) | {len(done)}
    files, acknowledged = {"skep.db": File(), "skep.db-wal": File()}, -1
    for number, (what, of, write) in enumerate([*done, ("end", "", None)]):
        if number in cuts:
            check(tmp_path / f"image-{number}", files, acknowledged, chance)
        if what == "ack":
            acknowledged = of
        elif what == "sync":
            files[of].sync()
        elif what == "write":
            files[of].waiting.append(write)


def check(folder, files, acknowledged, chance):
    """The image opens, is sound, has all that was acknowledged, and no half of anything."""
    folder.mkdir()
    for name, file in files.items():
        (folder / name).write_bytes(file.image(chance))
    with closing(SqliteStore(folder, Threads(), SystemClock())) as store:
        assert damage(folder / "skep.db") == []
        a, b, c = (
            {int(key[1:]) for key in store.scan_keys("thing", x, f"{x}~", limit=TRANSACTIONS)}
            for x in "abc"
        )
        last = max(a, default=-1)
        assert last >= acknowledged
        assert a == b == set(range(last + 1))
        assert c == set(range(max(0, last - 9), last + 1))
        assert store.count("thing", [frozenset({f"n:{last}"})], up_to=9) == 2
    shutil.rmtree(folder)
