"""What a bot was at, from its events: state by state, and over a span."""

import pytest

from botapi.domain.bot_event import BotEvent, EventKind
from botapi.domain.bot_timeline import (
    UNKNOWN,
    Interval,
    Share,
    as_it_was,
    is_dead,
    shares,
    timeline,
)

K = EventKind
RUN = "aaaa11"


def event(at_ms, kind, **more):
    fields = {
        "event_id": f"e{at_ms}", "message": "", "task_id": "", "session_id": "s", "version": "v",
        "external_ip": "ip", "authenticated_as": "a", "dimensions": ("id:b",), "quarantined": "",
        "maintenance": "",
    }  # fmt: skip
    return BotEvent(bot_id="b", at_ms=at_ms, kind=kind, **{**fields, **more})


@pytest.mark.parametrize(
    ("told", "status", "reason"),
    [
        (event(5, K.BOT_IDLE), "idle", ""),
        (event(5, K.REQUEST_TASK, task_id=RUN), "busy", ""),
        (event(5, K.TASK_COMPLETED, task_id=RUN), "idle", ""),
        (event(5, K.BOT_POLLING, quarantined="q", maintenance="m"), "quarantined", "q"),
        (event(5, K.BOT_POLLING, maintenance="m"), "maintenance", "m"),
        (event(5, K.BOT_POLLING, maintenance="paused by an operator: p"), "paused", "p"),
        (event(5, K.BOT_LOG, maintenance="paused by an operator: p", task_id=RUN), "draining", "p"),
        (
            event(5, K.BOT_POLLING, maintenance="m\npaused by an operator: p"),
            "maintenance",
            "m\npaused by an operator: p",
        ),
        (event(5, K.BOT_MISSING, message="gone", task_id=RUN), "dead", "gone"),
        (event(5, K.BOT_SHUTDOWN, quarantined="q", message="bye"), "dead", "bye"),
        (event(5, K.BOT_DELETED), "dead", ""),
    ],
)
def test_event_says_what_the_bot_was_at_from_then_on(told, status, reason):
    task_id = RUN if status in {"busy", "draining", "dead"} and told.task_id else ""
    assert timeline([], [told], 5, 9) == [Interval(5, 9, status, task_id, reason)]
    assert as_it_was(told, was_dead=False).status == status


def test_timeline_has_no_gap_and_is_unknown_before_the_first_event():
    within = [event(40, K.BOT_IDLE), event(20, K.REQUEST_TASK, task_id=RUN), event(10, K.BOT_IDLE)]
    assert timeline([], within, 0, 100) == [
        Interval(0, 10, UNKNOWN),
        Interval(10, 20, "idle"),
        Interval(20, 40, "busy", RUN),
        Interval(40, 100, "idle"),
    ]
    assert timeline([], [], 0, 100) == [Interval(0, 100, UNKNOWN)]


def test_timeline_joins_neighbours_that_say_the_same_and_leaves_out_what_took_no_time():
    within = [
        event(30, K.BOT_IDLE),
        event(20, K.BOT_IDLE),
        event(20, K.REQUEST_TASK, task_id=RUN),
        event(10, K.BOT_IDLE),
    ]
    assert timeline([], within, 10, 50) == [Interval(10, 50, "idle")]


def test_timeline_keeps_neighbours_apart_that_differ_in_task_or_reason():
    within = [
        event(40, K.BOT_POLLING, quarantined="r"),
        event(30, K.BOT_POLLING, quarantined="q"),
        event(20, K.REQUEST_TASK, task_id="bbbb11"),
        event(10, K.REQUEST_TASK, task_id=RUN),
    ]
    assert timeline([], within, 10, 50) == [
        Interval(10, 20, "busy", RUN),
        Interval(20, 30, "busy", "bbbb11"),
        Interval(30, 40, "quarantined", reason="q"),
        Interval(40, 50, "quarantined", reason="r"),
    ]


def test_timeline_begins_with_what_the_events_before_it_left():
    before = [event(8, K.BOT_LOG, message="late"), event(5, K.BOT_MISSING, message="gone")]
    assert timeline(before, [event(30, K.BOT_CONNECTED)], 10, 50) == [
        Interval(10, 30, "dead", reason="gone"),
        Interval(30, 50, "idle"),
    ]


def test_dead_bot_stays_dead_for_its_first_reason():
    within = [
        event(30, K.BOT_LOG, message="late"),
        event(20, K.BOT_MISSING, message="silent"),
        event(10, K.BOT_SHUTDOWN, message="bye"),
    ]
    assert timeline([], within, 10, 50) == [Interval(10, 50, "dead", reason="bye")]


def test_dead_is_told_by_the_newest_event_that_tells_it():
    assert is_dead([event(3, K.BOT_LOG), event(2, K.BOT_MISSING), event(1, K.BOT_IDLE)])
    assert not is_dead([event(3, K.BOT_LOG), event(2, K.BOT_IDLE), event(1, K.BOT_MISSING)])
    assert not is_dead([event(3, K.BOT_LOG)])
    assert not is_dead([])


def test_shares_sum_up_each_state_the_longest_first():
    found = [
        Interval(0, 10, "idle"),
        Interval(10, 70, "busy", RUN),
        Interval(70, 80, "idle"),
        Interval(80, 100, "dead", reason="gone"),
    ]
    assert shares(found) == [
        Share("busy", 60, 0.6),
        Share("dead", 20, 0.2),
        Share("idle", 20, 0.2),
    ]
