"""How long the server is asked to hold its answers."""

import pytest

from botapi.ctl.waiting import OutOfTime, Patience


class Hands:
    """A clock that is set by hand; pauses are noted."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pauses: list[float] = []

    def patience(self, allowed_s):
        return Patience(allowed_s, now=lambda: self.at, pause=self.pauses.append)


def test_holds_grow_up_to_what_the_server_allows():
    patience = Hands().patience(None)
    assert [patience.next_hold_s() for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]


def test_holds_end_with_the_time_allowed():
    hands = Hands()
    patience = hands.patience(5)
    assert patience.next_hold_s() == 1
    hands.at = 4.6
    assert patience.next_hold_s() == 1
    hands.at = 5
    assert patience.next_hold_s() == 0
    with pytest.raises(OutOfTime):
        patience.was_vain()


def test_server_that_does_not_hold_is_not_asked_in_a_hurry():
    hands = Hands()
    patience = hands.patience(None)
    patience.next_hold_s()
    patience.was_vain()
    assert hands.pauses == [0.5]
    patience.next_hold_s()
    hands.at = 2
    patience.was_vain()
    assert hands.pauses == [0.5]


def test_no_time_at_all_is_one_look():
    hands = Hands()
    patience = hands.patience(0)
    assert patience.next_hold_s() == 0
    with pytest.raises(OutOfTime):
        patience.was_vain()
