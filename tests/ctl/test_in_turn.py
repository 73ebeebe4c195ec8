"""Many bots in turn: how many are away at a time, and when it ends."""

from collections.abc import Callable

import pytest

from botapi.ctl.errors import Conflict, Invalid, NotFound, TimedOut
from botapi.ctl.in_turn import (
    InTurn,
    Limits,
    Outcome,
    Result,
    limits_of,
    steer_within,
    when_free,
)
from botapi.ctl.params import bound
from botapi.ctl.steering import _has_started_over, _unless_dead

AT_MOST_2 = "at most 2 may be unavailable"


def bots_of(*statuses):
    return [
        {"bot_id": f"b{n}", "status": status, "session_id": "s1"}
        for n, status in enumerate(statuses, 1)
    ]


class Fleet:
    """Bots that are away for `looks` looks after they were asked; `stuck` never come back."""

    def __init__(self, bots, looks=2, stuck=(), refused=()):
        self.bots = {bot["bot_id"]: dict(bot) for bot in bots}
        self.looks, self.stuck, self.refused = looks, stuck, refused
        self.asked: list[str] = []
        self.left: dict[str, int] = {}
        self.most_away = 0

    def ask(self, bot_id):
        if bot_id in self.refused:
            raise Conflict(f"restart {bot_id}", "no")
        self.asked.append(bot_id)
        before = dict(self.bots[bot_id])
        if before["status"] == "idle":
            self.bots[bot_id]["status"] = "dead"
        self.left[bot_id] = self.looks
        self.most_away = max(self.most_away, len(self.left))
        return before

    def read(self, bot_id):
        bot = self.bots[bot_id]
        if bot_id in self.left and bot_id not in self.stuck:
            self.left[bot_id] -= 1
            if not self.left[bot_id]:
                del self.left[bot_id]
                status = "idle" if bot["status"] == "dead" else bot["status"]
                bot |= {"status": status, "session_id": "s2"}
        return dict(bot)


@pytest.fixture
def restart(monkeypatch) -> Callable[..., list[tuple[str, str, str]]]:
    """Restart a fleet; bot, result and reason of each."""
    monkeypatch.setattr("botapi.ctl.in_turn.LOOK_S", 0.0)

    def run(fleet, unavailable, failures=0, timeout_s=None):
        turns = InTurn(
            ask=fleet.ask,
            read=fleet.read,
            is_back=_has_started_over,
            settle=_unless_dead,
            limits=Limits(unavailable, failures),
            timeout_s=timeout_s,
        )
        steered = turns.steer([dict(bot) for bot in fleet.bots.values()])
        return [(one.bot_id, str(one.result), one.why) for one in steered]

    return run


@pytest.mark.parametrize("unavailable", [1, 2, 5])
def test_restart_has_no_more_bots_away_than_it_may(restart, unavailable):
    fleet = Fleet(bots_of("idle", "idle", "idle", "idle", "idle"))
    done = restart(fleet, unavailable)
    assert done == [(f"b{n}", "done", "") for n in range(1, 6)]
    assert fleet.most_away == unavailable
    assert fleet.asked == ["b1", "b2", "b3", "b4", "b5"]


def test_restart_counts_bots_that_are_unavailable_anyway(restart):
    fleet = Fleet(bots_of("idle", "quarantined", "idle", "idle"))
    assert {result for _id, result, _why in restart(fleet, 2)} == {"done"}
    assert fleet.asked == ["b2", "b1", "b3", "b4"]
    assert fleet.most_away == 2  # b2, which takes no room, and one other


def test_restart_ends_where_nothing_may_be_unavailable_any_more(restart):
    fleet = Fleet(bots_of("maintenance", "dead", "idle"))
    assert restart(fleet, 2) == [
        ("b1", "done", ""),
        ("b2", "not touched", "it is dead; it starts over by itself"),
        ("b3", "not touched", AT_MOST_2),
    ]
    assert fleet.asked == ["b1"]


def test_what_is_settled_is_not_left_for_others(restart, monkeypatch):
    def is_fine(bot):
        return Outcome(bot["bot_id"], Result.DONE, "idle") if bot["bot_id"] == "b3" else None

    monkeypatch.setattr(f"{__name__}._unless_dead", is_fine)
    fleet = Fleet(bots_of("idle", "idle", "idle"), refused=("b1",))
    assert [result for _id, result, _why in restart(fleet, 1)] == ["failed", "not touched", "done"]


def test_restart_goes_on_when_an_unavailable_bot_comes_back(restart):
    fleet = Fleet(bots_of("idle", "paused", "idle"))
    fleet.stuck = ("b2",)
    real = fleet.read

    def read(bot_id):
        if bot_id == "b2":
            fleet.bots["b2"] |= {"status": "idle", "session_id": "s2"}
        return real(bot_id)

    fleet.read = read
    assert {result for _id, result, _why in restart(fleet, 1)} == {"done"}


def test_restart_stops_after_more_failures_than_it_may_have(restart):
    fleet = Fleet(bots_of(*["idle"] * 5), refused=("b1", "b3"))
    assert restart(fleet, 1, failures=1) == [
        ("b1", "failed", "restart b1: no"),
        ("b2", "done", ""),
        ("b3", "failed", "restart b3: no"),
        ("b4", "not touched", "more than 1 failed"),
        ("b5", "not touched", "more than 1 failed"),
    ]
    assert fleet.asked == ["b2"]


def test_restart_counts_a_bot_that_does_not_come_back_as_failed(restart):
    fleet = Fleet(bots_of("idle", "idle"), stuck=("b1",))
    assert restart(fleet, 1, timeout_s=0) == [
        ("b1", "failed", "did not come back in the time given; it is still asked to"),
        ("b2", "not touched", "more than 0 failed"),
    ]


def test_restart_counts_a_bot_that_is_gone_as_failed(restart):
    fleet = Fleet(bots_of("idle"))

    def read(bot_id):
        raise NotFound(f"bot {bot_id}", "there is none")

    fleet.read = read
    assert restart(fleet, 1) == [("b1", "failed", "bot b1: there is none")]


def test_restarted_bot_is_back_with_a_new_session_and_when_it_may_work_again():
    idle, paused = bots_of("idle", "paused")
    assert not _has_started_over(idle, idle)
    assert not _has_started_over(idle, idle | {"session_id": "s2", "status": "quarantined"})
    assert _has_started_over(idle, idle | {"session_id": "s2", "status": "busy"})
    assert _has_started_over(paused, paused | {"session_id": "s2"})


def steered(bots, limits, refused=()):
    fleet = Fleet(bots, refused=refused)
    outcomes = steer_within(fleet.ask, bots, limits, lambda _bot: None)
    return [(str(one.result), one.why) for one in outcomes]


def test_steering_leaves_those_alone_that_would_be_too_many():
    bots = bots_of("idle", "dead", "busy", "paused", "idle")
    assert steered(bots, Limits(3, 0)) == [
        ("done", ""),
        ("done", ""),
        ("not touched", "at most 3 may be unavailable"),
        ("done", ""),
        ("not touched", "at most 3 may be unavailable"),
    ]


def test_steering_stops_after_more_failures_than_it_may_have():
    bots = bots_of("idle", "idle", "idle")
    assert steered(bots, Limits(1, 0), refused=("b1",)) == [
        ("failed", "restart b1: no"),
        ("not touched", "more than 0 failed"),
        ("not touched", "more than 0 failed"),
    ]
    assert steered(bots, Limits(1, 1), refused=("b1",)) == [
        ("failed", "restart b1: no"),
        ("done", ""),
        ("not touched", "at most 1 may be unavailable"),
    ]


def test_wait_that_ends_too_early_is_a_failure_of_those_that_were_steered_only():
    def wait(bot_id):
        raise TimedOut(bot_id, "still runs task a0")

    left = Outcome("b1", Result.LEFT, "idle", AT_MOST_2)
    assert when_free(left, wait) == left
    late = when_free(Outcome("b1", Result.DONE, "draining"), wait)
    assert (late.result, late.why, late.is_late) == ("failed", "b1: still runs task a0", True)


def test_limits_are_numbers_or_shares_of_the_chosen_bots():
    assert limits_of(10, bound("25%"), bound("10%")) == Limits(2, 1)
    assert limits_of(10, bound("30"), None) == Limits(10, 0)
    assert limits_of(3, None, bound("5")) == Limits(3, 3)
    with pytest.raises(Invalid, match=r"10% of 5 bot.s. is none"):
        limits_of(5, bound("10%"), None)
