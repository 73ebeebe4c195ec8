"""Pieces in any order give exactly the text, and what is missing is counted exactly."""

from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.output import Append, Gap, place
from botapi.domain.task import OutputPosition

HUGE = 10**9
texts = st.binary(max_size=60)
spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=25)


class Stored:
    """What a store would hold, fed through `place`."""

    def __init__(self, limit=HUGE):
        self.position = OutputPosition()
        self.bytes = b""
        self.limit = limit

    def send(self, text, start, end, *, may_skip=False):
        """Send text[start:end]; after a gap the bot sends from the stored length on."""
        placed = place(self.position, start, text[start:end], limit=self.limit, may_skip=may_skip)
        if isinstance(placed, Gap):
            assert placed.committed == self.position.committed + self.position.missing_bytes
            assert placed.committed < start
            return self.send(text, placed.committed, end)
        assert placed.offset == len(self.bytes)
        self.bytes += placed.data
        self.position = placed.position
        assert self.position.committed == len(self.bytes)
        return None


@given(texts, spans)
def test_output_is_the_text_whatever_order_its_pieces_come_in(text, pieces):
    stored = Stored()
    for start, length in pieces:
        at = min(start, len(text))
        stored.send(text, at, at + length)
        assert text.startswith(stored.bytes)
    stored.send(text, len(stored.bytes), len(text))
    assert stored.bytes == text
    assert stored.position == OutputPosition(committed=len(text))


@given(texts, spans, st.integers(0, 70))
def test_output_over_the_limit_is_counted_exactly(text, pieces, limit):
    stored = Stored(limit)
    for start, length in pieces:
        at = min(start, len(text))
        stored.send(text, at, at + length)
    stored.send(text, 0, len(text))
    kept = min(limit, len(text))
    assert stored.bytes == text[:kept]
    missing = len(text) - kept
    assert stored.position == OutputPosition(kept, missing, limit_hit=missing > 0)


@given(texts, st.integers(0, 60), st.integers(0, 40), st.integers(0, 70))
def test_output_skipped_at_the_end_is_counted_exactly(text, cut, gap, limit):
    stored = Stored(limit)
    first, rest = text[:cut], text[cut + gap :]
    stored.send(first, 0, len(first))
    place_at = len(first) + gap
    placed = place(stored.position, place_at, rest, limit=limit, may_skip=True)
    assert isinstance(placed, Append)
    total = place_at + len(rest)
    kept = placed.position.committed
    assert kept == min(limit, len(first) + len(rest))
    assert kept + placed.position.missing_bytes == total


def test_output_known_already_is_acknowledged_and_not_stored():
    position = OutputPosition(committed=5)
    assert place(position, 0, b"abcde", limit=HUGE, may_skip=False) == Append(5, b"", position)


def test_empty_output_beyond_the_stored_length_is_a_gap():
    assert place(OutputPosition(5), 9, b"", limit=HUGE, may_skip=False) == Gap(5)
