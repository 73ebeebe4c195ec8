"""The demonstration itself: real processes, a small library, nothing left behind."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
LIBRARY = Path(asyncio.__file__).parent


def start_demo(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "examples.census.demo", "--bots", "2", "--shards", "5"]
    where = ["--dir", str(folder), "--library", str(LIBRARY)]
    with (folder.parent / "out").open("wb") as out, (folder.parent / "err").open("wb") as err:
        return subprocess.Popen([*command, *where, *more], cwd=REPOSITORY, stdout=out, stderr=err)


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that run below the folder, or were told of it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            home = os.readlink(place / "cwd")
        except OSError:
            continue
        if str(folder) in words or home.startswith(str(folder)):
            found.append(words)
    return found


def test_demo_agrees_with_the_serial_pass_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "demo"
    code = start_demo(folder).wait(120)
    out, err = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert code == 0, err
    assert "Both censuses agree exactly." in out
    assert re.search(r"^  demo-[12] +\d+ tasks", out, re.MULTILINE)
    assert "killing" not in err
    assert processes_of(folder) == []
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o600


def test_demo_that_is_kept_ends_with_ctrl_c_and_stops_everything(tmp_path):
    folder = tmp_path / "demo"
    process = start_demo(folder, "--keep")
    out = tmp_path / "out"
    moment = threading.Event()
    for _ in range(1200):
        if b"until Ctrl-C" in out.read_bytes() or process.poll() is not None:
            break
        moment.wait(0.1)
    assert process.poll() is None, (tmp_path / "err").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert processes_of(folder) == []
