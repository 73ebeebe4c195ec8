"""Values on the command line."""

import click
import pytest

from botapi.ctl.params import colon, duration, equals, whole_duration


def test_durations_are_seconds():
    assert (duration("1.5"), whole_duration("2h30m")) == (1.5, 9000)


def test_limits_of_tasks_are_whole_seconds():
    with pytest.raises(click.BadParameter, match="whole number of seconds"):
        whole_duration("1.5")


def test_pairs_split_at_the_first_separator():
    assert equals("k=a=b") == ("k", "a=b")
    assert colon("k:") == ("k", "")


@pytest.mark.parametrize("text", ["", "k", "=v"])
def test_pairs_need_a_key_and_a_separator(text):
    with pytest.raises(click.BadParameter, match="has not the form k=v"):
        equals(text)
