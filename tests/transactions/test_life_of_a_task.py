"""Every transaction, once and again: legal changes, the same answer, nothing half-written."""

import pytest

from botapi.domain.bot_event import RULES, BotUpdate, EventKind
from botapi.domain.claim import Run
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.output import Gap
from botapi.store import codec
from botapi.store.codec import LeaseSession
from botapi.store.protocol import join_key
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.claim_slice import BotVanished
from botapi.transactions.create_task import (
    DEDUP_KEEP_MS,
    TaskIdTaken,
    create_task,
    created_before,
)
from botapi.transactions.delete_task import delete_task
from botapi.transactions.expire_slice import expire_slice
from botapi.transactions.lease_session import close_lease_session, open_lease_session
from botapi.transactions.offer_lease import (
    Waiting,
    offer_leases,
    outstanding_offer,
    return_offer,
)
from botapi.transactions.update_bot import Stamp, update_bot
from botapi.transactions.update_task import (
    Accepted,
    Failure,
    Missing,
    NotCurrent,
    Progress,
    end_with_error,
    update_task,
)
from tests.factories import make_request, make_slice
from tests.scheduler.conftest import KEEP_MS, claim, connect
from tests.transactions.stores import dump

NOW = 1_772_604_367_089
ALICE = Actor("alice", "why not", "entry-1")


def submit(store, number=1, **more):
    request = make_request(number, now_ms=NOW, **more)
    assert create_task(store, request, request_uuid="").is_new
    return request


def task_of(store, request):
    (doc,) = store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc)


def bot_of(store, bot_id="vm1"):
    (doc,) = store.get(codec.BOT, join_key(bot_id))
    return codec.read_bot(doc)


def stamp(event_id="e", now_ms=NOW):
    return Stamp(now_ms, event_id, KEEP_MS)


def progress(request, output=b"", offset=0, ending=None, **more):
    values = {"dedup_key": "", "resends": True, "output_limit": 10**9}
    return Progress("vm1", "vm1/1", request.task_id, offset, output, ending, **{**values, **more})


def running(store, number=1, **more):
    request = submit(store, number, **more)
    connect(store, "vm1", NOW)
    assert claim(store, "vm1", request.task_id, NOW) == Run(is_retry=False) or store_retries(store)
    return request


def store_retries(store):
    """With injected faults the first answer may be that of the second try."""
    return hasattr(store, "faults")


def unchanged(store, act):
    before = dump(store)
    result = act()
    assert dump(store) == before
    return result


def left(store, *kinds):
    return [key for kind in kinds for key in store.scan_keys(kind, "", "\U0010ffff", limit=99)]


def kinds_of_events(store):
    docs = store.scan(codec.EVENT, "", "\U0010ffff", limit=100)
    return [str(codec.read_event(doc).kind) for doc in reversed(docs)]


@pytest.mark.spec("9.5.1.9", "5.8.1.3")
def test_create_makes_request_state_entry_and_timer(store):
    request = submit(store)
    task = task_of(store, request)
    assert (task.state, task.pool, task.created_ms) == ("PENDING", "default", NOW)
    assert left(store, codec.PEND) == [task.pend_key]
    due = codec.due_key(request.deadline_ms(0), "expire", request.task_id)
    assert left(store, codec.DUE) == [due]


def test_create_again_changes_nothing(store):
    request = submit(store)
    again = unchanged(store, lambda: create_task(store, request, request_uuid=""))
    assert again.task == task_of(store, request)


@pytest.mark.spec("9.4.1.7")
def test_create_refuses_an_id_that_is_taken(store):
    request = submit(store)
    other = make_request(1, now_ms=NOW, name="other")
    assert other.task_id == request.task_id
    with pytest.raises(TaskIdTaken):
        unchanged(store, lambda: create_task(store, other, request_uuid=""))


def test_create_tells_equal_requests_of_two_calls_apart_by_their_nonce(store):
    request = make_request(1, now_ms=NOW)
    assert create_task(store, request, request_uuid="", nonce="a").is_new
    assert create_task(store, request, request_uuid="", nonce="a").is_new
    with pytest.raises(TaskIdTaken):
        create_task(store, request, request_uuid="", nonce="b")


@pytest.mark.spec("9.5.1.5", "13.1.42")
def test_request_uuid_gives_the_first_task_for_seven_days(store):
    first = make_request(1, now_ms=NOW)
    create_task(store, first, request_uuid="u", nonce="a")
    later = make_request(2, now_ms=NOW + DEDUP_KEEP_MS - 1, name="other")
    known = unchanged(store, lambda: create_task(store, later, request_uuid="u", nonce="b"))
    assert (known.task.task_id, known.is_new) == (first.task_id, False)
    assert created_before(store, "user:test", "u", NOW).task_id == first.task_id
    assert created_before(store, "user:other", "u", NOW) is None
    assert created_before(store, "user:test", "", NOW) is None
    too_late = make_request(3, now_ms=NOW + DEDUP_KEEP_MS)
    assert create_task(store, too_late, request_uuid="u", nonce="c").is_new


@pytest.mark.spec("4.3.1.9", "5.8.1.2", "9.3.p1")
def test_claim_takes_slice_task_and_bot_in_one_step(store):
    request = running(store)
    task, bot = task_of(store, request), bot_of(store)
    assert (task.state, task.bot_id, task.session_id) == ("RUNNING", "vm1", "vm1/1")
    assert (task.started_ms, task.bot_dimensions) == (NOW, bot.dimensions)
    assert task.claim_id == f"vm1:claim-{request.task_id}"
    assert (bot.task_id, bot.task_name) == (request.task_id[:-1] + "1", "test")
    assert left(store, codec.PEND, codec.OFFER, codec.DUE) == []
    assert kinds_of_events(store) == ["bot_connected", "request_task"]


@pytest.mark.spec("4.3.1.7")
def test_claim_again_is_answered_alike_and_writes_nothing(store):
    request = running(store)
    again = unchanged(store, lambda: claim(store, "vm1", request.task_id, NOW + 5))
    assert again == Run(is_retry=True)


def test_claim_of_a_deleted_bot_changes_nothing(store):
    request = submit(store)
    with pytest.raises(BotVanished):
        unchanged(store, lambda: claim(store, "vm1", request.task_id, NOW))


@pytest.mark.spec("9.3.p3")
def test_claim_of_a_busy_bot_is_skipped(store):
    first = running(store)
    second = submit(store, 2)
    decision = unchanged(store, lambda: claim(store, "vm1", second.task_id, NOW))
    assert decision.reason == f"this bot is still running {first.task_id[:-1]}1"


def test_output_is_stored_once_and_completion_seals_it(store):
    request = running(store)
    update_task(store, progress(request, b"abc"), stamp())
    assert unchanged(store, lambda: update_task(store, progress(request, b"abc"), stamp()))
    gap = unchanged(store, lambda: update_task(store, progress(request, b"x", 9), stamp()))
    assert gap == Gap(3)
    ending = Ending(EndedBy.BOT, 0, 1.5)
    done = update_task(store, progress(request, b"bcd", 1, ending), stamp("end"))
    assert isinstance(done, Accepted)
    task = task_of(store, request)
    assert (task.state, task.exit_code, task.duration_s, task.output_bytes) == (
        "COMPLETED",
        0,
        1.5,
        4,
    )
    docs = store.scan(codec.OUT, *codec.output_range(request.task_id), limit=9)
    assert b"".join(codec.read_output(doc)[1] for doc in docs) == b"abcd"
    (doc,) = store.get(codec.OUTPOS, codec.output_position_key(request.task_id))
    assert codec.read_output_position(doc).sealed
    assert (bot_of(store).task_id, bot_of(store).last_finished_task) == (
        "",
        request.task_id[:-1] + "1",
    )
    assert kinds_of_events(store) == ["bot_connected", "request_task", "task_completed"]


def test_completion_by_another_call_is_late_and_changes_nothing(store):
    request = running(store)
    ending = Ending(EndedBy.BOT, 0, 1.5)
    update_task(store, progress(request, b"abc", 0, ending), stamp("end"))
    late = progress(request, b"xyz", 3, Ending(EndedBy.BOT, 9, 1.0))
    outcome = unchanged(store, lambda: update_task(store, late, stamp("other")))
    assert outcome == NotCurrent(f"this bot does not run {request.task_id}")


def test_update_of_another_session_changes_nothing(store):
    request = running(store)
    theirs = Progress("vm1", "vm1/2", request.task_id, 0, b"x", None, "", True, 10**9)
    outcome = unchanged(store, lambda: update_task(store, theirs, stamp()))
    assert outcome == NotCurrent("another process took this bot id over")
    nobody = Progress("vm9", "s", request.task_id, 0, b"x", None, "", True, 10**9)
    assert isinstance(unchanged(store, lambda: update_task(store, nobody, stamp())), NotCurrent)


def test_update_of_a_task_nobody_knows_is_missing(store):
    connect(store, "vm1", NOW)
    assert update_task(store, progress(make_request(7)), stamp()) == Missing()


def test_output_over_its_limit_is_stated_in_the_result(store):
    request = running(store)
    update_task(store, progress(request, b"abcdef", output_limit=4), stamp())
    ending = Ending(EndedBy.BOT, 0, 1.0)
    update_task(store, progress(request, b"gh", 6, ending, output_limit=4), stamp("end"))
    task = task_of(store, request)
    assert (task.output_bytes, task.missing_bytes) == (4, 4)


def test_task_error_ends_the_run_once(store):
    request = running(store)
    ending = Ending(EndedBy.TASK_ERROR, error="no disk")

    def fail(event_id):
        failure = Failure("vm1", request.task_id, ending, "")
        return end_with_error(store, failure, stamp(event_id))

    fail("one")
    assert task_of(store, request).state == "BOT_DIED"
    assert isinstance(unchanged(store, lambda: fail("two")), NotCurrent)
    assert kinds_of_events(store)[-1] == "task_error"


@pytest.mark.spec("5.9.1.1")
def test_cancel_ends_a_pending_task_and_withdraws_everything(store):
    request = submit(store)
    done = cancel_task(store, request.task_id, ALICE, kill_running=False, now_ms=NOW + 9)
    assert (done.canceled, done.was_running, done.task.state) == (True, False, "CANCELED")
    assert (done.task.completed_ms, done.task.abandoned_ms) == (NOW + 9, NOW + 9)
    assert left(store, codec.PEND, codec.OFFER, codec.DUE) == []
    (audit,) = store.scan(codec.AUDIT, "", "\U0010ffff", limit=9)
    assert (audit.body["actor"], audit.body["verb"]) == ("alice", "task.cancel")
    assert audit.body["reason"] == "why not"


@pytest.mark.spec("5.9.1.2", "5.9.1.3", "5.9.1.4", "5.9.1.5")
def test_cancel_of_each_state_answers_as_the_table_says(store):
    """bot-api 5.9, row by row."""
    request = running(store)

    def cancel(entry, *, kill):
        actor = Actor("alice", "", entry)
        done = cancel_task(store, request.task_id, actor, kill_running=kill, now_ms=NOW + 9)
        return done.canceled, done.was_running

    assert unchanged(store, lambda: cancel("a", kill=False)) == (False, True)
    assert cancel("b", kill=True) == (True, True)
    task = task_of(store, request)
    assert (task.state, task.killing, task.abandoned_ms) == ("RUNNING", True, NOW + 9)
    assert unchanged(store, lambda: cancel("c", kill=True)) == (False, True)
    stop = update_task(store, progress(request, b"x"), stamp())
    assert stop.must_stop == "being killed"
    ending = Ending(EndedBy.BOT, -15, 1.0)
    update_task(store, progress(request, b"", 1, ending), stamp("end"))
    task = task_of(store, request)
    assert (task.state, task.abandoned_ms, task.killing) == ("KILLED", NOW + 9, False)
    assert unchanged(store, lambda: cancel("d", kill=True)) == (False, False)
    assert kinds_of_events(store)[-1] == "task_killed"
    nobody = cancel_task(store, make_request(9).task_id, ALICE, kill_running=True, now_ms=NOW)
    assert nobody is None


def offered(store, request, bot_id="vm1"):
    queue = task_of(store, request).pend_key.rsplit("!", 3)[0]
    waiting = [Waiting(bot_id, f"ls-{bot_id}", frozenset({queue}))]
    offer_leases(store, [queue], waiting, NOW)
    (doc,) = store.get(codec.LSESSION, join_key(bot_id))
    return outstanding_offer(store, codec.read_lease_session(doc))


def test_offer_is_outstanding_until_it_is_returned_once(store):
    request = submit(store)
    connect(store, "vm1", NOW)
    offer = offered(store, request)
    assert offer.lease_id == f"local-{request.task_id}-0-0"
    assert left(store, codec.PEND) == []
    assert offered(store, request) == offer
    return_offer(store, offer, NOW, "x")
    (doc,) = store.scan(codec.PEND, "", "\U0010ffff", limit=9)
    assert codec.read_pending(doc).retry_count == 1
    assert not unchanged(store, lambda: return_offer(store, offer, NOW, "x"))


@pytest.mark.spec("10.4.1.3", "13.1.18")
def test_offer_dropped_too_often_goes_on_to_the_next_slice(store):
    slices = [make_slice(), make_slice(env={"A": "1"})]
    request = submit(store, slices=slices)
    connect(store, "vm1", NOW)
    for _ in range(4):
        return_offer(store, offered(store, request), NOW, "x")
    task = task_of(store, request)
    assert (task.state, task.slice_index) == ("PENDING", 1)
    assert offered(store, request).lease_id == f"local-{request.task_id}-1-0"


def test_offer_is_not_made_to_a_closed_or_foreign_lease_session(store):
    request = submit(store)
    connect(store, "vm1", NOW)
    close_lease_session(store, "vm1", "ls-vm1")
    assert offered(store, request) is None
    open_lease_session(store, LeaseSession("vm1", "ls-new", "vm1/1", NOW))
    assert offered(store, request) is None
    assert len(left(store, codec.PEND)) == 1
    assert unchanged(store, lambda: close_lease_session(store, "vm1", "ls-vm1")) is None
    assert unchanged(store, lambda: close_lease_session(store, "vm9", "x")) is None


def test_new_lease_session_of_a_bot_keeps_its_offer(store):
    request = submit(store)
    connect(store, "vm1", NOW)
    offer = offered(store, request)
    open_lease_session(store, LeaseSession("vm1", "ls-new", "vm1/1", NOW))
    (doc,) = store.get(codec.LSESSION, join_key("vm1"))
    assert outstanding_offer(store, codec.read_lease_session(doc)) == offer


@pytest.mark.spec("10.4.1.1", "5.8.1.4")
def test_expiry_counts_only_for_the_slice_that_waits(store):
    slices = [make_slice(expiration_s=1), make_slice(expiration_s=1)]
    request = submit(store, slices=slices)
    assert unchanged(store, lambda: expire_slice(store, request.task_id, 0, NOW + 999)) is None
    expire_slice(store, request.task_id, 0, NOW + 1_000)
    assert task_of(store, request).slice_index == 1
    assert unchanged(store, lambda: expire_slice(store, request.task_id, 0, NOW + 9_000)) is None
    expire_slice(store, request.task_id, 1, NOW + 2_000)
    assert task_of(store, request).state == "EXPIRED"
    assert unchanged(store, lambda: expire_slice(store, request.task_id, 1, NOW + 9_000)) is None
    assert expire_slice(store, make_request(8).task_id, 0, NOW) is None


@pytest.mark.spec("5.6.1.2", "5.6.1.3", "5.8.1.6", "9.6.1.1", "9.3.p11")
def test_missing_bot_dies_once_with_its_run(store):
    request = running(store)
    (doc,) = store.get(codec.LIVE, codec.live_key("vm1"))
    live = codec.read_live(doc)
    bot_missing(store, live, bot_of(store), stamp("m", NOW + 700_000))
    assert task_of(store, request).state == "BOT_DIED"
    assert task_of(store, request).error == "the bot went on without it: bot_missing"
    assert left(store, codec.LSESSION) == []
    assert not unchanged(store, lambda: bot_missing(store, live, bot_of(store), stamp("n")))


def test_event_without_a_uuid_is_counted_once_per_call(store):
    connect(store, "vm1", NOW)
    for event_id in ("a", "b"):
        update_bot(store, "vm1", BotUpdate(EventKind.BOT_LOG, message="m"), stamp(event_id))
    assert kinds_of_events(store) == ["bot_connected", "bot_log", "bot_log"]
    assert bot_of(store).event_count == 3


@pytest.mark.spec("9.3.p5")
def test_event_of_a_bot_nobody_knows_creates_it_only_when_its_kind_may(store):
    for kind in EventKind:
        update = BotUpdate(kind, task_id="aa11")
        made = update_bot(store, f"bot-{kind}", update, stamp(), first_dimensions=("id:x",))
        (doc,) = store.get(codec.BOT, join_key(f"bot-{kind}"))
        assert (doc is not None) == (made is not None) == RULES[kind].creates


def test_delete_spares_a_task_that_goes_on(store):
    request = running(store)
    key = codec.task_key(request.task_id)
    assert unchanged(store, lambda: delete_task(store, key)) is False
    update_task(store, progress(request, b"", 0, Ending(EndedBy.BOT, 0, 1.0)), stamp("end"))
    assert delete_task(store, key) is True
    assert delete_task(store, key) is True
    assert left(store, codec.TASK, codec.REQ, codec.OUTPOS) == []
