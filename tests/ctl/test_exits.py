"""Exit codes: the mapping of states, and the priority when several apply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.ctl import exits
from botapi.ctl.exits import Exit


@pytest.mark.parametrize(
    ("state", "more", "code"),
    [
        ("COMPLETED", {"exit_code": 0}, Exit.DONE),
        ("COMPLETED", {"exit_code": 3}, Exit.FAILED),
        ("COMPLETED", {"exit_code": None}, Exit.FAILED),
        ("TIMED_OUT", {}, Exit.FAILED),
        ("CLIENT_ERROR", {}, Exit.FAILED),
        ("CLIENT_ERROR", {"cause": "infrastructure"}, Exit.INFRASTRUCTURE),
        ("CANCELED", {}, Exit.CANCELED),
        ("KILLED", {}, Exit.CANCELED),
        ("BOT_DIED", {}, Exit.INFRASTRUCTURE),
        ("EXPIRED", {}, Exit.INFRASTRUCTURE),
        ("NO_RESOURCE", {}, Exit.INFRASTRUCTURE),
        ("PENDING", {}, Exit.INCOMPLETE),
        ("RUNNING", {}, Exit.INCOMPLETE),
    ],
)
def test_task_has_the_code_of_its_state(state, more, code):
    assert exits.of_task({"state": state, **more}) is code


@given(
    st.lists(
        st.sampled_from(
            [Exit.DONE, Exit.FAILED, Exit.INCOMPLETE, Exit.CANCELED, Exit.INFRASTRUCTURE]
        )
    )
)
def test_worst_code_is_the_first_of_11_10_1_8(codes):
    expected = next((code for code in (11, 10, 1, 8) if code in codes), 0)
    assert exits.worst(codes) == expected


@pytest.mark.parametrize(("code", "shown"), [(0, 0), (7, 7), (125, 125), (126, 125), (-9, 125)])
def test_own_code_of_a_task_is_at_most_125(code, shown):
    assert exits.of_command({"state": "COMPLETED", "exit_code": code}) == shown


def test_own_code_is_the_usual_one_when_the_task_did_not_complete():
    assert exits.of_command({"state": "TIMED_OUT", "exit_code": -9}) is Exit.FAILED
    assert exits.of_command({"state": "BOT_DIED", "exit_code": None}) is Exit.INFRASTRUCTURE
