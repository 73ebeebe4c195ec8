"""The decision tree of a poll, in its order (bot-api 3.2, decisions 5 and 6)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.bot import Health
from botapi.domain.poll import (
    FOREVER_STREAK,
    PollFacts,
    Presented,
    Restart,
    Sleep,
    Update,
    Work,
    decide,
    sleep_s,
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
    ({"restart_asked": "stuck"}, Restart("asked by an operator: stuck", refresh=True)),
    ({"health": Health("q", "m")}, Sleep(60, 240, refresh=True)),
    ({"health": Health("", "m")}, Sleep(10, 60, refresh=True)),
    ({"rbe_idle": True}, Work(idle=True)),
    ({}, Work(idle=False)),
]


def by_the_table(facts):
    """Bot-api 3.2 written down once more, row by row, with nothing but conditions."""
    rows = [
        (facts.may_update and facts.version not in {"", facts.expected_version}, "update"),
        (facts.token == "broken", "session expired"),
        (facts.token == "superseded", "another process took this bot id over"),
        (facts.token == "absent", (300, 600)),
        (facts.hash_differs, "new bots.cfg config"),
        (facts.restart_asked != "", f"asked by an operator: {facts.restart_asked}"),
        (facts.health.quarantined != "", (60, 240)),
        (facts.health.maintenance != "", (10, 60)),
        (facts.rbe_idle, "bot_idle"),
        (True, "bot_polling"),
    ]
    return next(answer for matches, answer in rows if matches)


def shortly(decision):
    match decision:
        case Update(version):
            return "update" if version else None
        case Restart(message):
            return message
        case Sleep(low, high):
            return low, high
        case Work(idle):
            return "bot_idle" if idle else "bot_polling"


TEXTS = st.sampled_from(["", "because"])
FACTS = st.builds(
    PollFacts,
    token=st.sampled_from(Presented),
    version=st.sampled_from(["", "v0", "v1"]),
    expected_version=st.sampled_from(["v0", "v1"]),
    may_update=st.booleans(),
    hash_differs=st.booleans(),
    health=st.builds(Health, TEXTS, TEXTS),
    rbe_idle=st.booleans(),
    restart_asked=TEXTS,
)


@pytest.mark.spec("3.2.p1")
@given(facts=FACTS)
def test_poll_is_answered_as_the_table_read_naively(facts):
    decision = decide(facts)
    assert shortly(decision) == by_the_table(facts)
    keeps_token = facts.token is Presented.VALID and not isinstance(decision, Update)
    assert getattr(decision, "refresh", isinstance(decision, Work)) is keeps_token


STREAKS = [1.5, 2.25, 3.375, 5.063, 7.594, 11.39, 17.09, 25.63, 38.44, 57.67, 60, 60]


@pytest.mark.spec("3.4.p1", "3.4.2.1", "13.1.13")
@pytest.mark.parametrize(("streak", "seconds"), list(enumerate(STREAKS)))
def test_sleep_grows_with_the_streak(streak, seconds):
    assert sleep_s(streak, 60, 0.0) == pytest.approx(seconds, rel=1e-3)


@pytest.mark.spec("3.4.p1", "3.4.2.1", "13.1.13")
def test_sleep_is_a_second_one_time_in_twenty_and_never_over_its_cap():
    assert sleep_s(9, 60, 0.949) > 57
    assert sleep_s(9, 60, 0.95) == 1.0
    assert sleep_s(FOREVER_STREAK, 60, 0.0) == 60
    assert sleep_s(FOREVER_STREAK, 7, 0.0) == 7
    assert sleep_s(FOREVER_STREAK, 1_000, 0.0) == pytest.approx(86.498, rel=1e-3)


@pytest.mark.spec("3.2.1.1", "3.2.1.2", "3.2.1.3", "3.2.1.5", "3.2.1.6", "3.2.1.7", "3.2.1.8")
@pytest.mark.parametrize("row", range(len(ORDERED)))
def test_poll_is_answered_by_the_first_row_that_matches(row):
    """Each row is tried together with every later one: the earlier wins."""
    changes, decision = ORDERED[row]
    for later, _ in ORDERED[row:]:
        assert decide(replace(GOOD, **{**later, **changes})) == decision


def test_poll_never_updates_a_foreign_bot():
    assert decide(replace(GOOD, version="v0", may_update=False)) == Work(idle=False)


@pytest.mark.spec("3.2.1.1")
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
