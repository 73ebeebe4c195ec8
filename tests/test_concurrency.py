"""Native threads under gevent."""

import threading

import pytest

from botapi.concurrency import OUTSIDE_THREADS, Greenlets
from tests.fakes.worker import run_patched


def test_error_on_a_native_thread_rises_where_it_was_asked_for_and_prints_nothing(capfd):
    greenlets = Greenlets()
    with pytest.raises(ValueError, match="refused") as caught:
        greenlets.native(lambda: int("refused"))
    assert caught.traceback[-1].name == "<lambda>"
    assert greenlets.native(lambda: greenlets.native(lambda: 5)) == 5
    assert capfd.readouterr() == ("", "")


def test_store_is_read_while_everything_outside_hangs():
    greenlets, release, done = Greenlets(), threading.Event(), []
    for _ in range(OUTSIDE_THREADS):
        greenlets.spawn(greenlets.outside, lambda: done.append(release.wait(5)))
    greenlets.sleep(0)
    assert greenlets.native(lambda: list(done)) == []
    release.set()


IMPORTS = """\
for number in range(30):
    for _ in range(4):
        load = lambda name=f"late_{number}": done.append(__import__(name))
        greenlets.spawn(greenlets.native, load)
    greenlets.sleep(0)
    done.append(__import__(f"late_{number}"))
    while len(done) < 5 * (number + 1):
        greenlets.sleep(0.001)
assert all(found.is_there for found in done)
"""

LINES = """\
log = logging.getLogger("many")

def write():
    for number in range(300):
        log.warning("line %d", number)
    done.append(None)

for _ in range(4):
    greenlets.spawn(greenlets.native, write)
greenlets.sleep(0)
write()
while len(done) < 5:
    greenlets.sleep(0.001)
"""


def test_threads_and_loop_of_a_worker_import_the_same_module_at_once(tmp_path):
    """Four bots ask a new server for its archive: each call imports what unpacks it."""
    for number in range(30):
        (tmp_path / f"late_{number}.py").write_text(
            "import gevent.monkey\n"
            "gevent.monkey.get_original('time', 'sleep')(0.005)\n"
            "is_there = True\n"
        )
    ended = run_patched(IMPORTS, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_threads_and_loop_of_a_worker_write_to_the_log_at_once(tmp_path):
    ended = run_patched(LINES, tmp_path)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert len(ended.stderr.splitlines()) == 1500
