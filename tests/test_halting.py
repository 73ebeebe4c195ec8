"""What tests halt stands still."""

import signal
import subprocess
import sys

from tests.halting import halt

BUSY = """
import itertools, threading

def count(n):
    with open(f"{n}.count", "w") as out:
        for turn in itertools.count():
            out.seek(0)
            out.write(str(turn))
            out.flush()

for n in range(4):
    threading.Thread(target=count, args=(n,)).start()
print("busy", flush=True)
"""


def test_halted_process_does_nothing_more_in_any_thread(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as busy:
        assert busy.stdout.readline() == "busy\n"
        try:
            for _ in range(20):
                halt(busy.pid)
                seen = [sorted(path.read_text() for path in tmp_path.iterdir()) for _ in range(50)]
                assert all(counts == seen[0] for counts in seen)
                busy.send_signal(signal.SIGCONT)
        finally:
            busy.kill()


def test_halt_comes_back_when_the_process_is_gone():
    gone = subprocess.Popen(["true"])
    gone.wait()
    halt(gone.pid)
