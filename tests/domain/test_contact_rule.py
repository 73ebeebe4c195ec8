"""How long a silent bot is waited for (decisions 6, the contact rule)."""

import pytest

from botapi.domain.contact import may_run_on_s, silence_limit_s, silent_s


@pytest.mark.parametrize(
    ("death", "contact", "grace", "flush", "expected"),
    [
        (600, 300, 30, 0, 600),
        (600, 300, 30, 60, 660),
        (600, 300, 600, 60, 1020),
        (60, 300, 30, 0, 390),
        (1, 1, 0, 0, 61),
    ],
)
def test_limit_gives_the_bot_time_to_notice_and_to_stop(death, contact, grace, flush, expected):
    assert silence_limit_s(death, contact, grace, flush) == expected


@pytest.mark.parametrize(
    ("seen", "ready", "expected"), [(1_000, 0, 9.0), (1_000, 4_000, 6.0), (4_000, 1_000, 6.0)]
)
def test_silence_counts_only_while_the_server_could_have_heard(seen, ready, expected):
    assert silent_s(10_000, seen, ready) == expected


@pytest.mark.parametrize(
    ("contact", "state", "expected"),
    [
        (20, {"client": {"name": "skep"}}, 80),
        (900, {"client": {"name": "skep"}}, 960),
        (20, {"client": {"name": "other"}}, 660),
        (20, {"client": "skep"}, 660),
        (20, {}, 660),
        (20, None, 660),
        (900, None, 960),
    ],
)
def test_only_bots_of_ours_are_known_to_stop_sooner_than_usual(contact, state, expected):
    assert may_run_on_s(contact, state) == expected
