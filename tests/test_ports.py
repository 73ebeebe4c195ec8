"""The ports of test processes."""

import subprocess
import sys
from pathlib import Path

from tests.ports import PER_PROCESS, free_port

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = "from tests.ports import free_port; print(free_port())"


def test_port_is_another_one_at_each_call_and_in_each_process():
    own = {free_port() for _ in range(5)}
    assert len(own) == 5
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    blocks = {port // PER_PROCESS for port in own}
    assert len(blocks) == 1
    assert int(done.stdout) // PER_PROCESS not in blocks
