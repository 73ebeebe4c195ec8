"""A process that is patched as a worker of the server is."""

import subprocess
import sys
from pathlib import Path

PATCHED = """\
import logging
from botapi import worker as serving
from botapi.concurrency import Greenlets

worker = serving.Worker.__new__(serving.Worker)
worker.sockets = []
worker.patch()

greenlets, done = Greenlets(), []
"""


def run_patched(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script in a process patched as a worker is; `greenlets` and the list `done` are there."""
    (folder / "script.py").write_text(PATCHED + script)
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(folder / "script.py")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
