"""The channel of a bot (bot-api 8.3; vectors of Appendix B)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.channel import bucket


@pytest.mark.parametrize(
    ("bot_id", "number"), [("vm1-m1", 95), ("vm2-m1", 5), ("bot-0", 41), ("bot-7", 72)]
)
@pytest.mark.spec("8.3.p1", "B.1.6")
def test_bucket_is_that_of_the_specification(bot_id, number):
    assert bucket(bot_id) == number


@given(bot_id=st.text(max_size=300))
def test_bucket_is_from_0_to_99(bot_id):
    assert 0 <= bucket(bot_id) < 100


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 99, 100])
def test_part_of_the_fleet_below_a_percent_is_about_that_percent(percent):
    below = sum(bucket(f"bot-{n}") < percent for n in range(1000))
    assert abs(below - 10 * percent) <= 45  # three standard deviations at most
    if percent == 100:
        assert below == 1000


def test_smaller_part_is_within_the_larger_one():
    ids = [f"bot-{n}" for n in range(1000)]
    fifth = {bot_id for bot_id in ids if bucket(bot_id) < 20}
    assert fifth < {bot_id for bot_id in ids if bucket(bot_id) < 60}
