"""Admission: a bounded number inside, a bounded number waiting, the rest told when to come back."""

import socket
import sys
import threading
from contextlib import ExitStack

import pytest

from botapi import admission
from botapi.admission import AT_ONCE, FEW, SPREAD_S, Admission
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.door import RETRY_AFTER_S
from botapi.store.protocol import Outage
from botapi.worker import queued_at
from tests.fakes.clock import FakeClock
from tests.fakes.sim_bot import BOT_PATH

HANDSHAKE = b"POST /swarming/api/v1/bot/handshake HTTP/1.1\r\n"
LIMIT_S = 20


@pytest.fixture
def doors():
    return Admission(Threads(), SystemClock(), SystemRng())


@pytest.fixture
def full(doors):
    """Every place taken."""
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            stack.enter_context(doors.place())
        yield doors


def enter_one(doors, entered):
    """On a thread of its own: wait for a place, note what came of it."""

    def enter():
        try:
            with doors.place():
                entered.append(None)
        except Refusal as refusal:
            entered.append(refusal)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    return thread


def test_a_place_that_is_left_goes_to_who_waits(doors):
    entered = []
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            stack.enter_context(doors.place())
        waiting = enter_one(doors, entered)
    waiting.join(LIMIT_S)
    assert entered == [None]
    with doors.place():
        pass


def test_who_waits_too_long_is_turned_away_and_leaves_no_trace(full, monkeypatch):
    monkeypatch.setattr(admission, "WAIT_S", 0.01)
    entered = []
    enter_one(full, entered).join(LIMIT_S)
    (refusal,) = entered
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    assert 1 <= refusal.retry_after_s <= SPREAD_S
    assert not full.is_behind()


def test_nobody_waits_behind_a_full_queue(full, monkeypatch):
    monkeypatch.setattr(admission, "MAX_WAITING", 0)
    with pytest.raises(Refusal) as refused, full.place():
        pass
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert full.is_behind()


def test_nobody_waits_while_the_process_is_late_but_a_free_place_is_given(doors, full):
    doors.note_late(admission.BEHIND_S + 0.1)
    with pytest.raises(Refusal), doors.place():
        pass
    other = Admission(Threads(), SystemClock(), SystemRng())
    other.note_late(admission.BEHIND_S + 0.1)
    with other.place():
        pass


def test_process_is_behind_when_many_wait_to_be_accepted_although_its_loop_is_in_time(doors):
    doors.note_late(0.0, admission.QUEUED)
    assert not doors.is_behind()
    doors.note_late(0.0, admission.QUEUED + 1)
    assert doors.is_behind()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it")
def test_connections_that_wait_to_be_accepted_are_counted():
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listener, ExitStack() as stack:
        assert queued_at(listener) == 0
        for _ in range(5):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        assert queued_at(listener) == 5
        listener.accept()[0].close()
        assert queued_at(listener) == 4
    assert queued_at(listener) == 0, "it is closed"


def test_times_to_come_back_are_spread_evenly(doors):
    drawn = [doors.come_back_s() for _ in range(3_000)]
    assert {1, SPREAD_S} <= set(drawn)
    assert min(drawn) >= 1
    assert max(drawn) == SPREAD_S
    by_tens = [sum(1 for wait in drawn if low < wait <= low + 10) for low in range(0, SPREAD_S, 10)]
    assert min(by_tens) > 350


def test_many_whom_the_store_cannot_serve_are_spread_and_few_come_back_soon():
    clock = FakeClock()
    doors = Admission(Threads(), clock, SystemRng())
    for _ in range(2):
        drawn = [doors.after_outage_s(HANDSHAKE, RETRY_AFTER_S) for _ in range(FEW + 1_000)]
        assert drawn[:FEW] == [RETRY_AFTER_S] * FEW
        assert {1, SPREAD_S} <= set(drawn[FEW:]) <= set(range(1, SPREAD_S + 1))
        clock.advance(1)


@pytest.mark.spec("0.5.1.4")
def test_bot_without_work_is_spread_in_an_outage_and_one_at_work_is_not(
    parts, make_bot, monkeypatch
):
    def away(*_keys):
        raise Outage("the disk is gone")

    bot = make_bot().start()
    monkeypatch.setattr(admission, "FEW", 0)
    monkeypatch.setattr(admission, "SPREAD_S", 0)
    monkeypatch.setattr(parts.store, "get", away)
    for path in ("rbe/session/create", "rbe/session/update", "event", "task_update"):
        bot.call("/" + path, status="OK", event="bot_log")
        assert bot.status == 503
        is_at_work = path in {"event", "task_update"}
        assert int(bot.headers["Retry-After"]) == (RETRY_AFTER_S if is_at_work else 1), path


@pytest.mark.parametrize(
    ("words", "is_deferred"),
    [
        (HANDSHAKE, True),
        (b"POST /swarming/api/v1/bot/poll HTTP/1.1\r\n", True),
        (b"POST /swarming/api/v1/bot/rbe/session/update HTTP/1.1\r\n", True),
        (b"GET /swarming/api/v1/bot/bot_code/abc HTTP/1.1\r\n", True),
        (b"GET /bootstrap?tok=x HTTP/1.1\r\n", True),
        (b"POST /swarming/api/v1/bot/claim HTTP/1.1\r\n", False),
        (b"POST /swarming/api/v1/bot/task_update/1 HTTP/1.1\r\n", False),
        (b"POST /swarming/api/v1/bot/task_error/1 HTTP/1.1\r\n", False),
        (b"POST /swarming/api/v1/bot/event HTTP/1.1\r\n", False),
        (b"GET /api/v1/tasks HTTP/1.1\r\n", False),
        (b"GET /readyz HTTP/1.1\r\n", False),
        (b"", False),
    ],
)
def test_a_process_that_is_behind_turns_away_only_bots_without_work(
    doors, words, is_deferred, monkeypatch
):
    monkeypatch.setattr(admission, "FEW", 0)
    assert doors.turned_away(words) == b""
    doors.note_late(admission.BEHIND_S + 0.1)
    assert bool(doors.turned_away(words)) is is_deferred
    doors.note_late(0.0)
    assert doors.turned_away(words) == b""


def test_connection_that_waited_for_long_is_turned_away_although_the_process_is_in_time(
    doors, monkeypatch
):
    monkeypatch.setattr(admission, "FEW", 0)
    assert doors.turned_away(HANDSHAKE, admission.WAITED_S) == b""
    assert doors.turned_away(HANDSHAKE, admission.WAITED_S + 0.1)
    assert doors.turned_away(b"POST /swarming/api/v1/bot/claim ", admission.WAITED_S + 0.1) == b""


def test_many_connections_of_one_moment_are_turned_away_before_the_loop_is_late(doors, monkeypatch):
    monkeypatch.setattr(admission, "FEW", 0)
    for _ in range(2):
        doors.note_late(0.0)
        for _ in range(admission.AT_A_TIME):
            doors.note_new()
            assert doors.turned_away(HANDSHAKE) == b""
        doors.note_new()
        assert doors.turned_away(HANDSHAKE)
        assert doors.turned_away(b"POST /swarming/api/v1/bot/claim ") == b""


@pytest.mark.parametrize(("queued", "few"), [(0, admission.FEW), (10_000, admission.FEW_QUEUED)])
def test_few_are_let_in_each_second_however_late_it_is(queued, few):
    clock = FakeClock()
    doors = Admission(Threads(), clock, SystemRng())
    doors.note_late(1.0, queued)
    for _ in range(2):
        assert [bool(doors.turned_away(HANDSHAKE)) for _ in range(40)] == [
            *([False] * few),
            *([True] * (40 - few)),
        ]
        clock.advance(1)


def test_the_short_answer_is_whole_http(doors, monkeypatch):
    monkeypatch.setattr(admission, "FEW", 0)
    doors.note_late(1.0)
    head, _, body = doors.turned_away(HANDSHAKE).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert first == "HTTP/1.1 429 Too Many Requests"
    assert int(headers["Content-Length"]) == len(body)
    assert 1 <= int(headers["Retry-After"]) <= SPREAD_S
    assert headers["Connection"] == "close"
    assert body.startswith(b"rpc error: code = ResourceExhausted desc = ")


def touched(*_args, **_more):
    raise AssertionError("the store was asked")


@pytest.mark.spec("0.5.1.4")
def test_a_handshake_without_a_place_is_429_before_the_store_is_touched(
    parts, client, make_bot, monkeypatch
):
    healthy, other = make_bot().start(), make_bot("vm2")
    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr(admission, "MAX_WAITING", 0)
        for _ in range(AT_ONCE):
            stack.enter_context(parts.admission.place())
        assert healthy.poll()["cmd"] == "rbe"
        for name in ("get", "scan", "scan_keys", "find", "transact"):
            patch.setattr(parts.store, name, touched)
        other.handshake()
        assert other.status == 429
        assert other.text.startswith("rpc error: code = ResourceExhausted desc = ")
        assert 1 <= int(other.headers["Retry-After"]) <= SPREAD_S
        assert other.headers["Connection"] == "close"
        assert client.get(f"{BOT_PATH}/server_ping").status_code == 200
        for path in (f"{BOT_PATH}/bot_code", "/bootstrap?tok=x"):
            assert client.get(path).status_code == 429, path
        assert client.post("/skep/v1/enroll", json={"bot_id": "vm2"}).status_code == 429
    assert other.handshake()["session"]


def test_a_slow_process_turns_nobody_away_while_few_come():
    clock = FakeClock()
    doors = Admission(Threads(), clock, SystemRng())
    doors.note_late(admission.BEHIND_S + 0.1)
    for _ in range(3):
        assert [doors.turned_away(HANDSHAKE) for _ in range(admission.FEW)] == [b""] * admission.FEW
        assert doors.turned_away(HANDSHAKE)
        clock.advance(1.0)
