"""Native threads under gevent."""

import pytest

from botapi.concurrency import Greenlets


def test_error_on_a_native_thread_rises_where_it_was_asked_for_and_prints_nothing(capfd):
    greenlets = Greenlets()
    with pytest.raises(ValueError, match="refused") as caught:
        greenlets.native(lambda: int("refused"))
    assert caught.traceback[-1].name == "<lambda>"
    assert greenlets.native(lambda: greenlets.native(lambda: 5)) == 5
    assert capfd.readouterr() == ("", "")
