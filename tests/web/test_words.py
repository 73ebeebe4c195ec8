"""How facts are said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.web import words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""), (0, "0 s"), (0.123, "0.1 s"), (9.96, "10.0 s"), (59, "59 s"), (12.7, "12 s"),
        (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (7_500, "2 h 5 min"), (86_400, "1 d"),
        (604_800, "7 d"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_seconds(value, said):
    assert words.seconds(value) == said


def test_time_is_given_and_its_age():
    moment = "2026-03-04T06:06:07.089Z"
    said = words.ago(moment, words.epoch_ms("2026-03-04T06:07:07.500Z"))
    assert said == f'<time datetime="{moment}" title="{moment}">1 min ago</time>'
    assert words.ago(None, 0) == "never"


@pytest.mark.parametrize(
    ("data", "is_end", "text", "used"),
    [
        (b"", False, "", 0),
        (b"abc", False, "abc", 3),
        ("né".encode()[:-1], False, "n", 1),
        ("né".encode()[:-1], True, "n\ufffd", 2),
        ("€".encode()[:2], False, "", 0),
        ("😀".encode()[:3], False, "", 0),
        ("😀".encode(), False, "😀", 4),
        (b"\x80\x80\x80\x80", False, "\ufffd" * 4, 4),
        (b"a\r\nb\rc", True, "a\nb\nc", 6),
        (b"\x1b[1;31mred\x1b[0m\x1b]0;title\x07!", True, "red!", 25),
        (b"\x00\x07\x7f\t", True, "␀␇␡\t", 4),
    ],
)
def test_output_as_text(data, is_end, text, used):
    assert words.readable(data, is_end=is_end) == (text, used)


@given(text=st.text(), cut=st.integers(0, 40))
def test_text_read_in_two_pieces_is_the_same(text, cut):
    data = text.encode().replace(b"\x1b", b"").replace(b"\r", b"")
    first, used = words.readable(data[:cut], is_end=False)
    second, _ = words.readable(data[used:], is_end=True)
    assert first + second == words.readable(data, is_end=True)[0]
