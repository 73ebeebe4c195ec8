"""Health follows from what a bot reports (bot-api 6.2 to 6.4), and status from both."""

import pytest

from botapi.domain.bot import (
    MAX_HEALTH_CHARS,
    Bot,
    BotStatus,
    Health,
    explain_in_state,
    health_of,
    quarantine_from_dimensions,
    quarantine_from_state,
)

GENERIC = "Bot self-quarantined."


@pytest.mark.spec("6.2.1.1", "6.3.1.1", "6.3.1.2", "6.3.1.3")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, ""),
        (False, ""),
        (0, ""),
        (0.0, ""),
        ("", ""),
        ([], ""),
        ("no disk", "no disk"),
        ("false", "false"),
        (True, GENERIC),
        (1, GENERIC),
        (-0.5, GENERIC),
        (["x"], GENERIC),
        ([0], GENERIC),
        ({}, GENERIC),
        ({"a": 1}, GENERIC),
    ],
)
def test_quarantine_in_the_state_is_read_as_the_table_says(value, message):
    assert quarantine_from_state({"quarantined": value}) == message


@pytest.mark.spec("6.3.1.1")
def test_quarantine_is_none_when_the_state_does_not_speak_of_it():
    assert quarantine_from_state({}) == ""


@pytest.mark.spec("6.2.1.2")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], ""),
        ([""], ""),
        (["true"], GENERIC),
        (["TRUE"], GENERIC),
        (["1"], GENERIC),
        (["no disk", "true"], "no disk"),
        (["false"], "false"),
    ],
)
def test_quarantine_in_the_dimensions_is_its_first_value(values, message):
    assert quarantine_from_dimensions({"quarantined": values}) == message
    assert quarantine_from_dimensions({}) == ""


@pytest.mark.spec("9.1.1.6")
@pytest.mark.spec("6.2.1.1", "6.2.1.2", "6.4.p1")
@pytest.mark.parametrize(
    ("state", "dims", "complaints", "expected"),
    [
        ({}, {}, [], Health()),
        ({"quarantined": "a"}, {"quarantined": ["b"]}, [], Health("a")),
        ({"quarantined": True}, {"quarantined": ["b"]}, [], Health("b")),
        ({"quarantined": True}, {}, [], Health(GENERIC)),
        ({}, {"quarantined": ["1"]}, [], Health(GENERIC)),
        ({}, {}, ["x", "y"], Health("x\ny")),
        ({"quarantined": "a"}, {}, ["x"], Health("a\nx")),
        ({"maintenance": "disk"}, {}, [], Health("", "disk")),
        ({"maintenance": True}, {}, [], Health()),
        ({"maintenance": ""}, {}, [], Health()),
    ],
)
def test_health_joins_the_bots_word_and_our_complaints(state, dims, complaints, expected):
    health = health_of(state, dims, complaints)
    assert health == expected
    assert health.is_healthy == (expected == Health())


def test_health_is_cut_when_a_bot_says_too_much():
    health = health_of({"maintenance": "m" * 10_000}, {}, ["x" * 10_000])
    assert health.quarantined == "x" * MAX_HEALTH_CHARS + "..."
    assert health.maintenance == "m" * MAX_HEALTH_CHARS + "..."


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        ({"a": 1}, "", {"a": 1}),
        ({"a": 1}, "bad", {"a": 1, "quarantined": "bad"}),
        ({"quarantined": True}, f"{GENERIC}\nbad", {"quarantined": f"{GENERIC}\nbad"}),
        ({"quarantined": "mine"}, "mine\nbad", {"quarantined": "mine"}),
    ],
)
def test_state_explains_the_quarantine_unless_the_bot_did(state, message, expected):
    assert explain_in_state(state, Health(message)) == expected


PAUSED = "paused by an operator: p"


@pytest.mark.spec("9.1.1.13", "9.1.2.1", "9.1.2.2", "9.1.2.3", "9.1.2.4")
@pytest.mark.parametrize(
    ("more", "status", "composite"),
    [
        ({}, BotStatus.IDLE, (512, 128, 8, 1)),
        ({"idle_since_ms": 5}, BotStatus.IDLE, (512, 128, 8, 2)),
        ({"task_id": "11"}, BotStatus.BUSY, (512, 128, 8, 1)),
        ({"maintenance": "m"}, BotStatus.MAINTENANCE, (256, 128, 8, 1)),
        ({"maintenance": PAUSED, "pause": "p"}, BotStatus.PAUSED, (256, 128, 8, 1)),
        (
            {"maintenance": PAUSED, "pause": "p", "task_id": "11"},
            BotStatus.DRAINING,
            (256, 128, 8, 1),
        ),
        (
            {"maintenance": f"m\n{PAUSED}", "pause": "p"},
            BotStatus.MAINTENANCE,
            (256, 128, 8, 1),
        ),
        ({"quarantined": "q", "maintenance": "m"}, BotStatus.QUARANTINED, (256, 128, 4, 1)),
        ({"dead": True, "quarantined": "q"}, BotStatus.DEAD, (512, 64, 4, 1)),
    ],
)
def test_bot_has_one_status_and_four_integers(more, status, composite):
    bot = Bot("vm1", ("id:vm1",), 1, **more)
    assert (bot.status, bot.composite) == (status, composite)
