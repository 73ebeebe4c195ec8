"""Values on the command line."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from botapi.ctl.params import (
    bound,
    colon,
    duration,
    equals,
    lasting,
    moment,
    optional_dimension,
    whole_duration,
)


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


def ago(text):
    then = datetime.fromisoformat(moment(text))
    return datetime.now(UTC) - then


def test_moments_are_absolute_and_in_utc():
    assert moment("2026-01-31T14:00:00Z") == "2026-01-31T14:00:00.000Z"
    assert moment("2026-01-31T14:00:00.5+02:00") == "2026-01-31T12:00:00.500Z"
    assert ago("now") < timedelta(seconds=60)
    assert timedelta(hours=2) <= ago("-2h") < timedelta(hours=2, seconds=60)


def test_words_for_days_are_of_this_machine():
    for text, days, clock in (("today", 0, (0, 0)), ("yesterday 9:30", 1, (9, 30))):
        found = datetime.fromisoformat(moment(text)).astimezone()
        assert (found.hour, found.minute) == clock
        assert (datetime.now().astimezone().date() - found.date()).days == days


@pytest.mark.parametrize("text", ["", "soon", "-", "-2x", "yesterday noon", "25:00", "2026-13-01"])
def test_text_that_is_no_moment_is_refused(text):
    with pytest.raises(click.BadParameter):
        moment(text)


def test_optional_dimension_may_hold_colons():
    assert optional_dimension("k=a:b:2m") == ("k", "a:b", 120)
    for text in ("k=v", "kv:30", "k=v:soon", "k=v:1.5"):
        with pytest.raises(click.BadParameter):
            optional_dimension(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "%", "1234567"])
def test_bound_is_a_number_or_a_share(text):
    with pytest.raises(click.BadParameter, match="neither a number, such as 3, nor a share"):
        bound(text)


def test_what_is_to_last_lasts_more_than_nothing():
    assert lasting("1h") == 3600
    with pytest.raises(click.BadParameter, match="leave it out for 'until somebody ends it'"):
        lasting("0")
