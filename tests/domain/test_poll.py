"""The decision tree of a poll, in its order (bot-api 3.2, decisions 5 and 6)."""

from dataclasses import replace

import pytest

from botapi.domain.bot import Health
from botapi.domain.poll import (
    PollFacts,
    Presented,
    Restart,
    Sleep,
    Update,
    Work,
    decide,
    treats_as_foreign,
)

GOOD = PollFacts(Presented.VALID, "v1", "v1", True, False, Health(), False)
ORDERED = [
    ({"version": "v0"}, Update("v1")),
    ({"token": Presented.BROKEN}, Restart("session expired", refresh=False)),
    (
        {"token": Presented.SUPERSEDED},
        Restart("another process took this bot id over", refresh=False),
    ),
    ({"token": Presented.ABSENT}, Sleep(300, 600, refresh=False)),
    ({"hash_differs": True}, Restart("new bots.cfg config", refresh=True)),
    ({"health": Health("q", "m")}, Sleep(60, 240, refresh=True)),
    ({"health": Health("", "m")}, Sleep(10, 60, refresh=True)),
    ({"rbe_idle": True}, Work(idle=True)),
    ({}, Work(idle=False)),
]


@pytest.mark.parametrize("row", range(len(ORDERED)))
def test_poll_is_answered_by_the_first_row_that_matches(row):
    """Each row is tried together with every later one: the earlier wins."""
    changes, decision = ORDERED[row]
    for later, _ in ORDERED[row:]:
        assert decide(replace(GOOD, **{**later, **changes})) == decision


def test_poll_never_updates_a_foreign_bot():
    assert decide(replace(GOOD, version="v0", may_update=False)) == Work(idle=False)


def test_poll_never_updates_a_bot_that_does_not_say_its_version():
    sick = replace(GOOD, version="", health=Health("no version"))
    assert decide(sick) == Sleep(60, 240, refresh=True)


@pytest.mark.parametrize(
    ("policy", "is_ours", "known", "foreign"),
    [
        ("skep", True, True, False),
        ("skep", True, False, False),
        ("skep", False, True, False),
        ("skep", False, False, True),
        ("keep", True, True, True),
        ("keep", False, False, True),
    ],
)
def test_bot_is_foreign_when_its_group_or_its_silence_says_so(policy, is_ours, known, foreign):
    assert treats_as_foreign(policy, is_ours=is_ours, known_version=known) is foreign
