"""What ends set in motion: children go with their parent, what the machines failed comes again."""

import pytest

from botapi import app as composition
from botapi.concurrency import Threads as ThreadForm
from botapi.domain.artifacts import CipdPackage
from botapi.domain.bot import LiveBot
from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind
from botapi.domain.completion import Cause, EndedBy, Ending, cause_of
from botapi.domain.names import run_id
from botapi.store import codec
from botapi.store.protocol import Outage, join_key
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.cancel_task import Actor, CancelBatch, cancel_task, queue_cancels
from botapi.transactions.create_task import create_task
from botapi.transactions.delete_bot import delete_bot
from botapi.transactions.offer_lease import Waiting, offer_leases
from botapi.transactions.update_bot import Stamp, update_bot
from botapi.transactions.update_task import Failure, Progress, end_with_error, update_task
from tests.factories import make_request, make_slice
from tests.fakes.wrapped_store import WrappedStore
from tests.scheduler.conftest import KEEP_MS, LIMIT_S, claim, connect
from tests.transactions.stores import POSTGRES, SQLITE, store_of

HOUR_S = 3_600


@pytest.fixture(params=["memory", SQLITE, POSTGRES])
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store


@pytest.fixture
def sweeps(settings, store, clock, rng):
    parts = composition.build(settings, store, ThreadForm(), clock, rng)
    yield parts.sweeps
    parts.release()


def submit(store, clock, number=1, parent=None, **more):
    if parent is not None:
        run = run_id(parent.task_id)
        more |= {"parent_task_id": run, "tags": (f"parent_task_id:{run}",)}
    request = make_request(number, now_ms=clock.now_ms(), **more)
    create_task(store, request, request_uuid="")
    return request


def task_of(store, request):
    (doc,) = store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc)


def run(store, clock, number=1, **more):
    request = submit(store, clock, number, **more)
    bot_id = f"vm{number}"
    connect(store, bot_id, clock.now_ms())
    claim(store, bot_id, request.task_id, clock.now_ms())
    assert task_of(store, request).state == "RUNNING"
    return request


def end(store, clock, request, ending=None):
    bot_id = task_of(store, request).bot_id
    ending = ending or Ending(EndedBy.BOT, 0, 1.0)
    of = request.task_id
    progress = Progress(bot_id, f"{bot_id}/1", of, 0, b"", ending, "", True, 10**9)
    return update_task(store, progress, Stamp(clock.now_ms(), f"end-{of}", KEEP_MS))


def die(store, clock, request):
    bot_id = task_of(store, request).bot_id
    live, bot = (
        *store.get(codec.LIVE, codec.live_key(bot_id)),
        *store.get(codec.BOT, join_key(bot_id)),
    )
    stamp = Stamp(clock.now_ms(), f"d{bot_id}", KEEP_MS)
    assert bot_missing(store, codec.read_live(live), codec.read_bot(bot), stamp)


def fail(store, clock, request, **more):
    """The bot says that it failed, not the task."""
    bot_id = task_of(store, request).bot_id
    ending = Ending(EndedBy.TASK_ERROR, error="no disk", **more)
    failure = Failure(bot_id, request.task_id, ending, "")
    end_with_error(store, failure, Stamp(clock.now_ms(), f"f-{bot_id}", KEEP_MS))


def cancel(store, clock, request, *, kill=False):
    actor = Actor("alice", "", f"cancel-{request.task_id}")
    return cancel_task(store, request.task_id, actor, kill_running=kill, now_ms=clock.now_ms())


def timers(store, what):
    keys = store.scan_keys(codec.DUE, "", "\U0010ffff", limit=1_000)
    return [key for key in keys if f"!{what}" in key]


def all_tasks(store):
    docs = store.scan(codec.TASK, "", "\U0010ffff", limit=1_000)
    return [codec.read_task(doc) for doc in docs]


ENDS = {
    "completed": end,
    "died": die,
    "failed": fail,
    "killed": lambda store, clock, request: cancel(store, clock, request, kill=True),
}


@pytest.mark.spec("5.9.p1", "5.5.2.14", "5.9.1.3", "13.1.59")
@pytest.mark.parametrize("how", ENDS)
def test_children_go_with_their_parent(store, clock, sweeps, how):
    parent = run(store, clock)
    waits = submit(store, clock, 2, parent)
    runs = run(store, clock, 3, parent=parent)
    stranger = submit(store, clock, 4)
    sweeps.do_due()
    assert task_of(store, waits).state == "PENDING"
    ENDS[how](store, clock, parent)
    sweeps.do_due()
    assert task_of(store, waits).state == "CANCELED"
    assert task_of(store, runs).killing
    assert task_of(store, stranger).state == "PENDING"
    end(store, clock, runs, Ending(EndedBy.BOT, -15, 1.0))
    causes = [cause_of(task_of(store, child)) for child in (waits, runs)]
    assert causes == [Cause.POLICY, Cause.POLICY]
    assert task_of(store, runs).error == "its parent task has ended"
    assert timers(store, "children") == []


@pytest.mark.parametrize("is_first", [True, False])
def test_child_of_a_parent_that_is_being_killed_goes_with_its_siblings(
    store, clock, sweeps, is_first
):
    """The kill has looked for children; the parent may run on for minutes."""
    parent = run(store, clock)
    if not is_first:
        submit(store, clock, 2, parent)
    cancel(store, clock, parent, kill=True)
    sweeps.do_due()
    clock.advance(1)
    late = submit(store, clock, 3, parent)
    sweeps.do_due()
    assert task_of(store, parent).killing
    assert task_of(store, late).state == "CANCELED"


def test_children_of_children_go_in_the_same_round(store, clock, sweeps):
    parent = run(store, clock)
    child = run(store, clock, 2, parent=parent)
    grandchild = run(store, clock, 3, parent=child)
    last = submit(store, clock, 4, grandchild)
    end(store, clock, parent)
    sweeps.do_due()
    assert task_of(store, child).killing
    assert task_of(store, grandchild).killing
    assert task_of(store, last).state == "CANCELED"


def test_task_without_children_sets_nothing_in_motion(store, clock):
    end(store, clock, run(store, clock))
    assert store.scan_keys(codec.DUE, "", "\U0010ffff", limit=9) == []


def test_tag_alone_makes_no_child(store, clock, sweeps):
    parent = run(store, clock)
    submit(store, clock, 2, parent)
    forged = submit(store, clock, 3, tags=(f"parent_task_id:{run_id(parent.task_id)}",))
    end(store, clock, parent)
    sweeps.do_due()
    assert task_of(store, forged).state == "PENDING"


def test_more_children_than_a_page_all_go(store, clock, sweeps, monkeypatch):
    monkeypatch.setattr("botapi.scheduler.follow_ups.CHILDREN_AT_ONCE", 2)
    parent = run(store, clock)
    children = [submit(store, clock, number, parent) for number in range(2, 9)]
    end(store, clock, parent)
    sweeps.do_due()
    assert {task_of(store, child).state for child in children} == {"CANCELED"}


def test_end_is_followed_up_without_waiting_for_a_round(store, clock, sweeps):
    """The sweeper hears of the timer: its next turn would be an hour away."""
    parent = run(store, clock)
    child = submit(store, clock, 2, parent)
    sweeps.round()
    canceled = ThreadForm().event()
    store.subscribe(lambda topic: canceled.set() if topic == f"task!{child.task_id}" else None)
    sweeps.wake = Patient(sweeps.wake)
    ThreadForm().spawn(sweeps.run)
    end(store, clock, parent)
    assert canceled.wait(LIMIT_S)
    sweeps.close()
    assert task_of(store, child).state == "CANCELED"


class Patient:
    """Waits until it is woken, whatever the time."""

    def __init__(self, inner):
        self.inner = inner
        self.set, self.clear = inner.set, inner.clear

    def wait(self, _seconds):
        return self.inner.wait(HOUR_S)


@pytest.mark.parametrize("how", ["died", "failed"])
def test_what_the_infrastructure_failed_is_made_anew(store, clock, sweeps, how):
    first = run(store, clock, max_retries=1, slices=[make_slice(env={"A": "1"})])
    clock.advance(7)
    ENDS[how](store, clock, first)
    sweeps.do_due()
    ended = task_of(store, first)
    assert (ended.state, cause_of(ended)) == ("BOT_DIED", Cause.INFRASTRUCTURE)
    (doc,) = store.get(codec.REQ, codec.task_key(ended.retried_as))
    again = codec.read_request(doc)
    assert (again.retry_of, again.retry_number, again.max_retries) == (first.task_id, 1, 1)
    assert (again.slices, again.name, again.authenticated) == (
        first.slices,
        first.name,
        first.authenticated,
    )
    assert again.created_ms == clock.now_ms()
    task = task_of(store, again)
    assert (task.state, task.retry_of) == ("PENDING", first.task_id)
    assert len(all_tasks(store)) == 2
    assert timers(store, "retry") == []


def delete(store, clock, bot_id, contact_s):
    stamp = Stamp(clock.now_ms(), "gone", KEEP_MS, contact_s)
    assert delete_bot(store, bot_id, Actor("alice", "", "delete"), stamp)


def replace(store, clock, bot_id, contact_s):
    """Another process connects with this id."""
    call = CallInfo("other/1", "127.0.0.1", "bot:test", "v1")
    update = BotUpdate(EventKind.BOT_CONNECTED, dedup_key="other/1", call=call)
    update_bot(store, bot_id, update, Stamp(clock.now_ms(), "other", KEEP_MS, contact_s))


@pytest.mark.parametrize(("is_ours", "wait_s"), [(True, 300 + 60 + 45), (False, 600 + 60 + 45)])
@pytest.mark.parametrize("how", [delete, replace])
def test_retry_waits_while_the_older_process_may_run_on(store, clock, sweeps, how, is_ours, wait_s):
    first = run(store, clock, max_retries=1, slices=[make_slice(grace_period_s=45)])
    if is_ours:
        seen = LiveBot("vm1", clock.now_ms(), clock.now_ms(), {"client": {"name": "skep"}})
        store.transact(lambda txn: txn.put(codec.LIVE, codec.live_doc(seen)), label="seen")
    how(store, clock, "vm1", 300)
    assert task_of(store, first).state == "BOT_DIED"
    clock.advance(wait_s - 1)
    sweeps.do_due()
    assert len(all_tasks(store)) == 1
    clock.advance(2)
    sweeps.do_due()
    assert len(all_tasks(store)) == 2
    assert timers(store, "retry") == []


def test_retry_does_not_wait_when_the_bot_says_that_it_leaves(store, clock, sweeps):
    first = run(store, clock, max_retries=1)
    call = CallInfo("vm1/1", "127.0.0.1", "bot:test", "v1")
    update = BotUpdate(EventKind.BOT_SHUTDOWN, call=call)
    update_bot(store, "vm1", update, Stamp(clock.now_ms(), "bye", KEEP_MS))
    sweeps.do_due()
    assert task_of(store, first).retried_as


def test_retries_come_to_an_end(store, clock, sweeps):
    request = run(store, clock, max_retries=2)
    for number in range(2, 6):
        die(store, clock, request)
        sweeps.do_due()
        retried_as = task_of(store, request).retried_as
        if not retried_as:
            break
        (doc,) = store.get(codec.REQ, codec.task_key(retried_as))
        request = codec.read_request(doc)
        connect(store, f"vm{number}", clock.now_ms())
        claim(store, f"vm{number}", request.task_id, clock.now_ms())
    assert request.retry_number == 2
    assert len(all_tasks(store)) == 3


def test_task_that_asks_for_no_retry_gets_none(store, clock, sweeps):
    die(store, clock, run(store, clock))
    sweeps.do_due()
    assert len(all_tasks(store)) == 1


def killed_and_dead(store, clock, request):
    cancel(store, clock, request, kill=True)
    die(store, clock, request)


def bad_inputs(store, clock, request):
    missing = CipdPackage("tool", "v1", "t")
    fail(store, clock, request, missing_cipd=(missing,))


@pytest.mark.parametrize(
    ("how", "state"),
    [
        (killed_and_dead, "KILLED"),
        (bad_inputs, "CLIENT_ERROR"),
        (lambda s, c, r: end(s, c, r, Ending(EndedBy.BOT, 9, 1.0)), "COMPLETED"),
        (lambda s, c, r: end(s, c, r, Ending(EndedBy.BOT, hard_timeout=True)), "TIMED_OUT"),
    ],
)
def test_only_failures_of_the_infrastructure_are_retried(store, clock, sweeps, how, state):
    request = run(store, clock, max_retries=3)
    how(store, clock, request)
    sweeps.do_due()
    assert task_of(store, request).state == state
    assert len(all_tasks(store)) == 1


def test_slice_that_bots_keep_dropping_is_retried_as_another_task(store, clock, sweeps):
    request = submit(store, clock, max_retries=1)
    connect(store, "vm1", clock.now_ms())
    for _ in range(4):
        queue = task_of(store, request).pend_key.rsplit("!", 3)[0]
        waiting = [Waiting("vm1", "ls-vm1", frozenset({queue}))]
        offer_leases(store, [queue], waiting, clock.now_ms())
        clock.advance(61)
        sweeps.round()
    sweeps.do_due()
    ended = task_of(store, request)
    assert ended.state == "BOT_DIED"
    assert task_of(store, make_request(task_id=ended.retried_as)).state == "PENDING"


def test_child_of_an_ended_parent_is_not_retried(store, clock, sweeps):
    parent = run(store, clock)
    child = run(store, clock, 2, parent=parent, max_retries=1)
    die(store, clock, child)
    end(store, clock, parent)
    sweeps.do_due()
    assert (task_of(store, child).retried_as, len(all_tasks(store))) == ("", 2)
    assert timers(store, "retry") == []


def batch(requests, number=1, *, kill=False):
    ids = tuple(request.task_id for request in requests)
    return CancelBatch(ids, kill, "alice", "why not", f"batch{number}", 1_772_604_367_089)


def test_cancellations_that_were_queued_survive_the_process(settings, store, clock, rng):
    requests = [submit(store, clock, number) for number in range(5)]
    queue_cancels(store, batch(requests))
    queue_cancels(store, batch(requests))
    other = composition.build(settings, store, ThreadForm(), clock, rng)
    assert other.sweeps.round()["slices"] >= 1
    assert {task_of(store, request).state for request in requests} == {"CANCELED"}
    assert timers(store, "cancel") == []
    other.release()


class Failing(WrappedStore):
    """The store goes away in the middle of a batch."""

    def __init__(self, inner, left):
        super().__init__(inner)
        self.left = left

    def attempt(self, fn, *, timeout_s):
        if self.left == 0:
            raise Outage("gone")
        self.left -= 1
        return self.inner.attempt(fn, timeout_s=timeout_s)


@pytest.mark.parametrize("left", range(1, 8))
def test_batch_that_was_broken_off_is_done_again(settings, store, clock, rng, left):
    requests = [submit(store, clock, number) for number in range(5)]
    queue_cancels(store, batch(requests))
    broken = composition.build(settings, Failing(store, left), ThreadForm(), clock, rng)
    broken.sweeps.do_due()
    clock.advance(11)
    whole = composition.build(settings, store, ThreadForm(), clock, rng)
    whole.sweeps.do_due()
    assert {task_of(store, request).state for request in requests} == {"CANCELED"}
    entries = [d.body["verb"] for d in store.scan(codec.AUDIT, "", "\U0010ffff", limit=99)]
    assert sorted(entries) == ["task.cancel"] * 5 + ["tasks.cancel"]
    for parts in (broken, whole):
        parts.release()


def test_run_that_its_bot_does_not_end_is_told_to_stop_and_then_given_up(store, clock, sweeps):
    request = run(store, clock, slices=[make_slice(hard_timeout_s=60, grace_period_s=30)])

    def hours(count):
        for _ in range(int(count * HOUR_S / 300)):
            clock.advance(300)
            sweeps.last_seen.touch("vm1", clock.now_ms(), is_run=True)
            sweeps.round()

    hours(1)
    assert not task_of(store, request).killing
    hours(0.25)
    task = task_of(store, request)
    assert (task.killing, task.stopped_by_policy) == (True, True)
    hours(0.25)
    task = task_of(store, request)
    assert (task.state, cause_of(task)) == ("KILLED", Cause.POLICY)
    assert task.error == "the bot did not stop it in time"


@pytest.mark.parametrize("hard_timeout_s", [0, 5 * HOUR_S])
def test_run_within_its_limits_is_left_alone(store, clock, sweeps, hard_timeout_s):
    request = run(store, clock, slices=[make_slice(hard_timeout_s=hard_timeout_s)])
    for _ in range(50):
        clock.advance(300)
        sweeps.last_seen.touch("vm1", clock.now_ms(), is_run=True)
        sweeps.round()
    assert not task_of(store, request).killing


def test_queue_that_nobody_uses_goes_after_a_week(store, clock, sweeps):
    first = submit(store, clock, 1)
    cancel(store, clock, first)
    kept = submit(store, clock, 2, slices=[make_slice(dimensions={"pool": ("other",)})])
    clock.advance(7 * 24 * HOUR_S - 1)
    sweeps.round()
    assert len(store.scan_keys(codec.QUEUE, "", "\U0010ffff", limit=9)) == 2
    create_task(store, make_request(3, clock.now_ms(), slices=kept.slices), request_uuid="")
    clock.advance(HOUR_S)
    assert sweeps.round()["queues"] == 1
    (left,) = store.scan_keys(codec.QUEUE, "", "\U0010ffff", limit=9)
    assert left.startswith("other!")
    again = submit(store, clock, 4)
    assert len(store.scan_keys(codec.QUEUE, "", "\U0010ffff", limit=9)) == 2
    assert task_of(store, again).state == "PENDING"


def test_two_sweepers_at_once_do_everything_once(settings, store, clock, rng, threads):
    """One was paused while it held the duty; both think that it is theirs."""
    parent = run(store, clock)
    child = run(store, clock, 2, parent=parent, max_retries=1)
    waits = [submit(store, clock, number, parent) for number in range(3, 8)]
    die(store, clock, run(store, clock, 20, max_retries=1))
    queue_cancels(store, batch(waits[:3]))
    end(store, clock, parent)
    both = [composition.build(settings, store, ThreadForm(), clock, rng) for _ in range(2)]
    for parts in both:
        parts.sweeps.held_until_ms = clock.now_ms() + 60_000
        threads.start(parts.sweeps.do_due)
    threads.join()
    states = [task_of(store, request).state for request in waits]
    assert states == ["CANCELED"] * 5
    assert task_of(store, child).killing
    assert sum(bool(task.retry_of) for task in all_tasks(store)) == 1
    assert not [
        key
        for key in store.scan_keys(codec.DUE, "", "\U0010ffff", limit=99)
        if "!expire!" not in key
    ]
    for parts in both:
        parts.release()
