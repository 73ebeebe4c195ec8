"""Native threads under gevent."""

import threading

import pytest

from botapi.concurrency import OUTSIDE_THREADS, Greenlets


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
