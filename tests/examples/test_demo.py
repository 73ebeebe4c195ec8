"""The demonstration itself: real processes, a small library, nothing left behind."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
LIBRARY = Path(asyncio.__file__).parent


def start_demo(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Its stdout is a pipe, its stderr a file beside the folder."""
    command = [sys.executable, "-m", "examples.census.demo", "--bots", "2", "--shards", "5"]
    where = ["--dir", str(folder), "--library", str(LIBRARY)]
    with (folder.parent / "err").open("wb") as err:
        return subprocess.Popen(
            [*command, *where, *more],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )


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
    with start_demo(folder) as process:
        out, _ = process.communicate(timeout=200)
    err = (tmp_path / "err").read_text()
    assert process.returncode == 0, err
    assert "Both censuses agree exactly." in out
    assert re.search(r"^  demo-[12] +\d+ tasks", out, re.MULTILINE)
    assert "killing" not in err
    assert processes_of(folder) == []
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o600


def test_demo_that_is_kept_stops_everything_when_it_is_told_to_end(tmp_path):
    folder = tmp_path / "demo"
    with start_demo(folder, "--keep") as process:
        seen = any("until Ctrl-C" in line for line in process.stdout)
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "err").read_text()
    assert seen
    assert processes_of(folder) == []
