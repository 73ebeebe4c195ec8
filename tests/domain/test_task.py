"""States change as the table says, and a final one never does."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from botapi.domain.completion import EndedBy, Ending, finish
from botapi.domain.task import (
    IllegalTransitionError,
    OutputPosition,
    PendingSlice,
    Task,
    TaskState,
    check_transition,
    is_final,
    lease_id,
)
from tests.factories import make_request, make_slice

LEGAL = {
    "PENDING": {"RUNNING", "CANCELED", "EXPIRED", "NO_RESOURCE", "BOT_DIED"},
    "RUNNING": {"COMPLETED", "TIMED_OUT", "KILLED", "CANCELED", "BOT_DIED", "CLIENT_ERROR"},
}
"""The arrows of bot-api 5.8, written down a second time."""


def make_task(state="RUNNING", **more):
    values = {
        "task_id": "76d00eba71beef10",
        "state": TaskState(state),
        "name": "t",
        "user": "",
        "pool": "default",
        "priority": 100,
        "tags": (),
        "created_ms": 1_000,
        "modified_ms": 1_000,
        "started_ms": 5_000,
    }
    return Task(**{**values, **more})


@pytest.mark.spec(
    "5.8.1.1",
    "5.8.1.2",
    "5.8.1.3",
    "5.8.1.4",
    "5.8.1.5",
    "5.8.1.6",
    "5.8.1.7",
    "5.8.1.8",
    "5.8.1.9",
    "5.8.1.10",
    "5.8.1.11",
)
@pytest.mark.parametrize("old", list(TaskState))
@pytest.mark.parametrize("new", list(TaskState))
def test_transition_is_allowed_exactly_when_the_table_says_so(old, new):
    if new in LEGAL.get(old, ()):
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransitionError, match=f"{old} never becomes {new}"):
            check_transition(old, new)


@pytest.mark.spec(
    "5.8.1.2",
    "5.8.1.3",
    "5.8.1.4",
    "5.8.1.5",
    "5.8.1.6",
    "5.8.1.7",
    "5.8.1.8",
    "5.8.1.9",
    "5.8.1.10",
    "5.8.1.11",
)
@pytest.mark.parametrize("state", list(TaskState))
def test_state_is_final_when_nothing_leaves_it(state):
    assert is_final(state) == (state not in LEGAL)
    assert make_task(state).is_final == (state not in LEGAL)


class Life(RuleBasedStateMachine):
    """Any sequence of attempts to change a task: one final state, for ever."""

    def __init__(self):
        super().__init__()
        self.task = make_task("PENDING")
        self.ended = None

    @rule(new=st.sampled_from(list(TaskState)))
    def become(self, new):
        try:
            check_transition(self.task.state, new)
        except IllegalTransitionError:
            return
        self.task = make_task(new)

    @rule(
        by=st.sampled_from(list(EndedBy)),
        exit_code=st.one_of(st.none(), st.integers(-5, 5)),
        timeout=st.booleans(),
        canceled=st.booleans(),
    )
    def end(self, by, exit_code, timeout, canceled):
        ending = Ending(by, exit_code=exit_code, hard_timeout=timeout, canceled=canceled)
        try:
            self.task = finish(self.task, ending, OutputPosition(), "1", 9_000)
        except IllegalTransitionError:
            assert self.task.state is not TaskState.RUNNING

    @invariant()
    def final_is_final(self):
        if self.ended is not None:
            assert self.task.state is self.ended
        elif self.task.is_final:
            self.ended = self.task.state


TestLife = pytest.mark.slow(Life.TestCase)


@pytest.mark.spec("10.4.p1")
def test_deadline_adds_the_expirations_of_the_slices_before():
    slices = [make_slice(expiration_s=10), make_slice(expiration_s=5)]
    request = make_request(slices=slices)
    assert [request.deadline_ms(i) - request.created_ms for i in (0, 1)] == [10_000, 15_000]


@pytest.mark.parametrize(
    ("command", "dimensions", "expected"),
    [
        ((), {"id": ("vm1",)}, True),
        (("true",), {"id": ("vm1",)}, False),
        ((), {"id": ("vm1",), "pool": ("p",)}, False),
        ((), {"pool": ("p",)}, False),
    ],
)
def test_termination_is_known_by_its_shape(command, dimensions, expected):
    request = make_request(slices=[make_slice(command=command, dimensions=dimensions)])
    assert request.is_termination is expected


def test_pool_of_a_slice_is_empty_when_it_has_none():
    assert make_slice(dimensions={"id": ("vm1",)}).pool == ""
    assert make_slice().pool == "default"


def test_lease_id_names_task_slice_and_retry():
    slot = PendingSlice("q!100!1!t", "q", "76d00eba71beef10", 2, 100, 1, 4, 3)
    assert lease_id(slot) == "local-76d00eba71beef10-2-3"


def test_order_among_the_heads_of_several_queues_is_that_within_one():
    def slot(queue, place):
        return PendingSlice(f"{queue}!{place}", queue, "t", 0, 0, 0, 0)

    slots = [slot("p", "050!2!b"), slot("z", "050!1!c"), slot("a", "100!0!a")]
    assert sorted(slots, key=lambda one: one.order) == [slots[1], slots[0], slots[2]]
