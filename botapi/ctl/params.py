"""How values on the command line are read: durations, times, `k=v`, `k:v` and others.

Each is a function that click takes as a type; BadParameter is its one error.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from botapi.settings import duration_s


def duration(text: str) -> float:
    """Seconds in `90`, `90s`, `1.5s` or `2h30m`."""
    try:
        return duration_s(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def lasting(text: str) -> float:
    """As `duration`, of something that is to last: more than nothing."""
    seconds = duration(text)
    if seconds <= 0:
        raise click.BadParameter(
            f"{text!r} is no time at all; leave it out for 'until somebody ends it'"
        )
    return seconds


lasting.__name__ = "duration"  # what --help shows


@dataclass(frozen=True, slots=True)
class Bound:
    """At most so many, or so many of a hundred."""

    number: int
    is_percent: bool

    def of(self, count: int) -> int:
        """How many of `count` things that is, rounded down."""
        return count * self.number // 100 if self.is_percent else min(self.number, count)

    def __str__(self) -> str:
        return f"{self.number}%" if self.is_percent else str(self.number)


def bound(text: str) -> Bound:
    """A bound, of `3` or `25%`."""
    digits = text.removesuffix("%")
    is_percent = digits != text
    if not digits.isdecimal() or len(digits) > 6 or (is_percent and int(digits) > 100):
        raise click.BadParameter(f"{text!r} is neither a number, such as 3, nor a share, as 25%")
    return Bound(int(digits), is_percent)


bound.__name__ = "N|P%"


def whole_duration(text: str) -> int:
    """As `duration`, in whole seconds: what a task's limits are made of."""
    seconds = duration(text)
    if seconds != int(seconds):
        raise click.BadParameter(f"{text!r} is not a whole number of seconds")
    return int(seconds)


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    """A reader of two texts around a separator; the first may not be empty."""

    def read(text: str) -> tuple[str, str]:
        first, found, second = text.partition(separator)
        if not first or not found:
            raise click.BadParameter(f"{text!r} has not the form k{separator}v")
        return first, second

    read.__name__ = f"k{separator}v"  # what --help shows
    return read


equals = pair("=")
colon = pair(":")


_DAYS = {"today": 0, "yesterday": 1}
_DAY = re.compile(r"(today|yesterday)(?:\s+(\d{1,2}:\d{2}(?::\d{2})?))?")


def moment(text: str) -> str:
    """A time in RFC 3339 and UTC, of RFC 3339, `-2h`, `now`, `yesterday 14:00` or `2026-01-31`.

    A time without a zone is that of this machine.
    """
    now = datetime.now(UTC)  # noqa: TID251 - what a person means by now
    if text == "now":
        return _rfc3339(now)
    if text.startswith("-"):
        return _rfc3339(now - timedelta(seconds=duration(text[1:])))
    try:
        found = datetime.fromisoformat(_with_date(text, now))
    except ValueError:
        examples = "2026-01-31T14:00:00Z, -2h, today 9:30 or yesterday"
        raise click.BadParameter(f"{text!r} is not a time such as {examples}") from None
    return _rfc3339(found.astimezone(UTC))


def _with_date(text: str, now: datetime) -> str:
    """`yesterday 9:30` as a date and time."""
    found = _DAY.fullmatch(text)
    if found is None:
        return text
    day = (now.astimezone() - timedelta(days=_DAYS[found[1]])).date()
    return f"{day.isoformat()}T{(found[2] or '00:00').zfill(5)}"


def _rfc3339(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_dimension(text: str) -> tuple[str, str, int]:
    """Key, value and seconds of `k=v:secs`; the value may hold colons."""
    pair_text, colon_, span = text.rpartition(":")
    if not colon_:
        raise click.BadParameter(f"{text!r} has not the form k=v:secs")
    name, value = equals(pair_text)
    return name, value, whole_duration(span)


def pattern(text: str) -> re.Pattern[bytes]:
    """A regular expression for the bytes of an output."""
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}") from error
