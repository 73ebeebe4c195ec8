"""How a run ends: every row of bot-api 5.5."""

import pytest

from botapi.domain.artifacts import CasDigest, CasReference, CipdPins, PerformanceStats
from botapi.domain.bot_event import EventKind
from botapi.domain.completion import (
    Cause,
    EndedBy,
    Ending,
    cause_of,
    event_of,
    final_state,
    finish,
)
from botapi.domain.task import IllegalTransitionError, OutputPosition, TaskState
from tests.domain.test_task import make_task

NOW = 17_500
NOTHING = OutputPosition()
CAS = CasReference("i", CasDigest("ab", 1))
BOT, ERROR, GONE = EndedBy.BOT, EndedBy.TASK_ERROR, EndedBy.ABANDONED


@pytest.mark.spec("5.5.p1", "5.5.1.1", "5.5.1.2", "5.5.1.3", "5.5.1.4", "5.5.1.5", "5.5.1.6")
@pytest.mark.parametrize(
    ("killing", "ending", "expected"),
    [
        (False, Ending(BOT, canceled=True), "CANCELED"),
        (True, Ending(BOT, canceled=True), "CANCELED"),
        (False, Ending(BOT, canceled=True, hard_timeout=True, exit_code=0), "CANCELED"),
        (False, Ending(BOT, hard_timeout=True), "TIMED_OUT"),
        (False, Ending(BOT, io_timeout=True, exit_code=0), "TIMED_OUT"),
        (True, Ending(BOT, hard_timeout=True), "TIMED_OUT"),
        (True, Ending(BOT, exit_code=-15), "KILLED"),
        (True, Ending(ERROR), "KILLED"),
        (True, Ending(ERROR, missing_cas=(CAS,)), "KILLED"),
        (True, Ending(GONE), "KILLED"),
        (False, Ending(ERROR, missing_cas=(CAS,)), "CLIENT_ERROR"),
        (False, Ending(ERROR), "BOT_DIED"),
        (False, Ending(GONE), "BOT_DIED"),
        (False, Ending(BOT, exit_code=0), "COMPLETED"),
        (False, Ending(BOT, exit_code=3), "COMPLETED"),
    ],
)
def test_final_state_is_the_first_row_that_matches(killing, ending, expected):
    assert final_state(make_task(killing=killing), ending) == expected


def end(task, ending, output=NOTHING):
    return finish(task, ending, output, "2", NOW)


def ended(ending, **more):
    """What the end sets, as one tuple."""
    task = end(make_task(**more), ending)
    assert (task.modified_ms, task.completed_ms, task.killing) == (NOW, NOW, False)
    return (
        task.state,
        task.exit_code,
        task.duration_s,
        task.failure,
        task.internal_failure,
        task.abandoned_ms,
    )


@pytest.mark.spec(
    "5.5.2.1", "5.5.2.2", "5.5.2.4", "5.5.2.5", "5.5.2.6", "5.5.2.7", "5.5.2.8", "5.5.2.9"
)
@pytest.mark.parametrize(
    ("ending", "more", "expected"),
    [
        (Ending(BOT, 0, 2.5), {}, ("COMPLETED", 0, 2.5, False, False, 0)),
        (Ending(BOT, 3, 2.5), {}, ("COMPLETED", 3, 2.5, True, False, 0)),
        (Ending(BOT, hard_timeout=True), {}, ("TIMED_OUT", -1, 12.5, True, False, 0)),
        (Ending(BOT, 0, 1.0, io_timeout=True), {}, ("TIMED_OUT", 0, 1.0, True, False, 0)),
        (Ending(BOT, 7, 1.0, canceled=True), {}, ("CANCELED", None, None, False, False, 0)),
        (Ending(GONE), {}, ("BOT_DIED", -1, 12.5, True, True, NOW)),
        (Ending(ERROR), {}, ("BOT_DIED", -1, 12.5, True, True, NOW)),
        (Ending(ERROR, missing_cas=(CAS,)), {}, ("CLIENT_ERROR", -1, 12.5, True, True, NOW)),
        (
            Ending(BOT, -15, 1.0),
            {"killing": True, "abandoned_ms": 6_000},
            ("KILLED", -15, 1.0, True, False, 6_000),
        ),
        (
            Ending(GONE),
            {"killing": True, "abandoned_ms": 6_000},
            ("KILLED", -1, 12.5, True, True, 6_000),
        ),
    ],
)
def test_finish_sets_what_the_table_says(ending, more, expected):
    assert ended(ending, **more) == expected


@pytest.mark.spec("5.1.1.11")
def test_finish_keeps_the_greatest_cost_and_the_error():
    task = end(make_task(cost_usd=2.0), Ending(GONE, cost_usd=1.0, error="gone"))
    assert (task.cost_usd, task.error) == (2.0, "gone")
    assert end(make_task(cost_usd=2.0), Ending(BOT, 0, 1.0, cost_usd=3.0)).cost_usd == 3.0


@pytest.mark.parametrize("state", [s for s in TaskState if s is not TaskState.RUNNING])
def test_finish_refuses_a_task_that_does_not_run(state):
    with pytest.raises(IllegalTransitionError):
        end(make_task(state), Ending(BOT, 0, 1.0))


@pytest.mark.parametrize("state", list(TaskState))
def test_event_of_an_end_is_killed_only_for_a_killed_task(state):
    expected = EventKind.TASK_KILLED if state == "KILLED" else EventKind.TASK_COMPLETED
    assert event_of(make_task(state)) is expected


@pytest.mark.parametrize(
    ("state", "failure", "expected"),
    [
        ("PENDING", False, None),
        ("RUNNING", False, None),
        ("COMPLETED", False, None),
        ("COMPLETED", True, Cause.USER),
        ("TIMED_OUT", True, Cause.POLICY),
        ("BOT_DIED", True, Cause.INFRASTRUCTURE),
        ("EXPIRED", False, Cause.INFRASTRUCTURE),
        ("NO_RESOURCE", False, Cause.INFRASTRUCTURE),
        ("CANCELED", False, Cause.OPERATOR),
        ("KILLED", True, Cause.OPERATOR),
        ("CLIENT_ERROR", True, Cause.USER),
    ],
)
def test_cause_says_who_is_to_blame(state, failure, expected):
    assert cause_of(make_task(state, failure=failure)) is expected


@pytest.mark.spec("5.5.2.10", "5.5.2.11", "5.5.2.12")
def test_finish_states_the_output_and_what_the_call_said_even_nothing():
    pins, stats = CipdPins(), PerformanceStats(1.0)
    said = Ending(BOT, 0, 1.0, cas_output_root=CAS, cipd_pins=pins, performance=stats)
    task = end(make_task(server_versions=("1", "2")), said, OutputPosition(7, 3))
    assert (task.output_bytes, task.missing_bytes, task.server_versions) == (7, 3, ("1", "2"))
    assert (task.cas_output_root, task.cipd_pins, task.performance) == (CAS, pins, stats)
    before = make_task(cas_output_root=CAS, cipd_pins=pins, server_versions=("3",))
    task = end(before, Ending(BOT, 0, 1.0))
    assert (task.cas_output_root, task.cipd_pins, task.performance) == (None, None, None)
    assert task.server_versions == ("2", "3")
