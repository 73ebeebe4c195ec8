"""Who comes first, in every order of the steps of two transactions: one end, nothing lost."""

import itertools
from dataclasses import replace

import pytest

from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind
from botapi.domain.claim import Run, Skip
from botapi.domain.completion import EndedBy, Ending
from botapi.domain.matching import queue_of
from botapi.domain.names import new_request_id, run_id, task_id
from botapi.domain.task import TaskState, is_final
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.bot_missing import bot_missing, kill_ignored, run_missing
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.claim_slice import BotVanished, Claimant
from botapi.transactions.create_task import ParentEnded, create_task
from botapi.transactions.delete_bot import delete_bot
from botapi.transactions.delete_queue import delete_queue
from botapi.transactions.expire_slice import expire_slice
from botapi.transactions.hold_duty import Fence, hold_duty
from botapi.transactions.offer_lease import Waiting, offer_leases, return_offer
from botapi.transactions.retry_task import retry_task
from botapi.transactions.skip_slice import skip_slice
from botapi.transactions.terminate_bot import terminate_bot, termination_request
from botapi.transactions.update_bot import Stamp, update_bot
from botapi.transactions.update_task import NotCurrent, Progress, update_task
from tests.factories import make_request, make_slice
from tests.scheduler.conftest import KEEP_MS, claim, connect
from tests.transactions.interleave import every_order, every_outcome
from tests.transactions.stores import store_of

NOW = 1_772_604_367_089
LATER = NOW + 10_000_000
DUTY_MS = 10_000
FINAL = {state for state in TaskState if is_final(state)}


class Stage:
    """A store, and situations in it: each has its own bot and task."""

    def __init__(self, store, orders):
        self.store, self._orders = store, orders
        self._numbers = itertools.count(1)

    def every(self, begin, first, second, check):
        """Play; at least one order in which each commits first, and one with a retry."""

        def situation():
            return begin(self).judged()

        count = self._orders(self.store, situation, [first, second], check)
        assert count >= 4
        return count

    def bot(self):
        bot_id = f"vm{next(self._numbers)}"
        connect(self.store, bot_id, NOW)
        return bot_id

    def task(self, **more):
        request = make_request(next(self._numbers), now_ms=NOW, **more)
        create_task(self.store, request, request_uuid="")
        return Situation(self.store, request)

    def pending(self, **more):
        return self.task(**more).on(self.bot())

    def running(self, **more):
        at = self.pending(**more)
        assert at.claims(self.store) == Run(is_retry=False)
        return at


class Situation:
    """One task, one bot, and what can be done to them; each act takes the store to do it in."""

    def __init__(self, store, request, bot_id=""):
        self.store, self.request, self.bot_id = store, request, bot_id

    def on(self, bot_id):
        self.bot_id = bot_id
        return self

    def task(self, of=""):
        (doc,) = self.store.get(codec.TASK, codec.task_key(of or self.request.task_id))
        return None if doc is None else codec.read_task(doc)

    def bot(self):
        (doc,) = self.store.get(codec.BOT, join_key(self.bot_id))
        return None if doc is None else codec.read_bot(doc)

    def judged(self):
        """What a sweep knows of the bot before anything happens."""
        (doc,) = self.store.get(codec.LIVE, codec.live_key(self.bot_id)) if self.bot_id else [None]
        self.judged_by = (codec.read_live(doc), self.bot()) if doc is not None else None
        return self

    def left(self, kind):
        """Timers, queue entries or offers of this task."""
        of = self.request.task_id
        keys = self.store.scan_keys(kind, "", "\U0010ffff", limit=10_000)
        return [key for key in keys if of in key or key == codec.task_key(of)]

    def is_tidy(self):
        """Nothing waits for a task that has ended or runs, but what its end set in motion."""
        timers = [key for key in self.left(codec.DUE) if "!expire!" in key]
        return self.left(codec.PEND) == self.left(codec.OFFER) == timers == []

    def events(self, kind):
        lo, hi = join_key(self.bot_id) + "!", join_key(self.bot_id) + '"'
        found = map(codec.read_event, self.store.scan(codec.EVENT, lo, hi, limit=99))
        return [event for event in found if event.kind == kind]

    def audited(self):
        docs = self.store.scan(codec.AUDIT, "", "\U0010ffff", limit=10_000)
        return [d for d in docs if d.body["target"] == f"task {self.request.task_id}"]

    def stamp(self, what, now_ms=NOW):
        return Stamp(now_ms, f"{what}-{self.request.task_id}", KEEP_MS)

    def claims(self, store):
        try:
            return claim(store, self.bot_id, self.request.task_id, NOW)
        except BotVanished:
            return Skip("deleted")

    def is_given(self, store):
        """A round of offers that claims for the bot; what it claimed, None for nothing."""
        call = CallInfo(f"{self.bot_id}/1", "127.0.0.1", "bot:test")
        by = Claimant(self.bot_id, call.session_id, 2, (), call, "", self.stamp("given"))
        queue = codec.queue_key(queue_of(self.request.slices[0].dimensions))
        waiting = [Waiting(self.bot_id, f"ls-{self.bot_id}", frozenset({queue}), by)]
        return offer_leases(store, [queue], waiting, NOW).claimed.get(self.bot_id)

    def takes(self, store):
        """The bot claims by itself what was claimed for it."""
        lease = f"local-{self.request.task_id}-0-0"
        return claim(store, self.bot_id, self.request.task_id, NOW + 1, lease)

    def cancels(self, store, name="alice", *, kill=False):
        actor = Actor(name, "", f"{name}-{self.request.task_id}")
        return cancel_task(store, self.request.task_id, actor, kill_running=kill, now_ms=NOW)

    def kills(self, store):
        return self.cancels(store, kill=True)

    def finishes(self, store):
        ending = Ending(EndedBy.BOT, 0, 1.0)
        of, session = self.request.task_id, f"{self.bot_id}/1"
        progress = Progress(self.bot_id, session, of, 0, b"out", ending, "", True, 10**9)
        return update_task(store, progress, self.stamp("end"))

    def dies(self, store):
        return bot_missing(store, *self.judged_by, self.stamp("dead"))

    def is_lost(self, store):
        return run_missing(store, *self.judged_by, self.stamp("lost"))

    def expires(self, store):
        return expire_slice(store, self.request.task_id, 0, LATER)

    def deleted(self, store):
        actor = Actor("alice", "", f"delete-{self.request.task_id}")
        return delete_bot(store, self.bot_id, actor, self.stamp("deleted"))


SLOW = pytest.mark.slow
REAL = ("sqlite", "postgres", "emulator")


@pytest.fixture(
    params=[
        ("memory", every_outcome),
        pytest.param(("memory", every_order), marks=SLOW),
        pytest.param(("sqlite", every_outcome), marks=SLOW),
        pytest.param(("postgres", every_outcome), marks=SLOW),
        pytest.param(("emulator", every_outcome), marks=SLOW),
    ],
    ids=["memory-outcomes", "memory-orders", *(f"{n}-outcomes" for n in REAL)],
)
def stage(request, clock, rng):
    engine, orders = request.param
    with store_of(request, clock, rng, engine) as store:
        yield Stage(store, orders)


def test_every_order_of_cancel_and_claim_has_one_winner(stage):
    def check(at, results):
        decision, canceled = results
        won = decision == Run(is_retry=False)
        assert canceled.canceled is not won
        assert at.task().state == ("RUNNING" if won else "CANCELED")
        assert at.bot().task_id == (run_id(at.request.task_id) if won else "")
        assert len(at.audited()) == (0 if won else 1)
        assert at.is_tidy()

    stage.every(Stage.pending, Situation.claims, Situation.cancels, check)


def only_for_its_bot(stage):
    """A pending task that no other bot fits."""
    bot_id = stage.bot()
    dims = {"pool": ("default",), "id": (bot_id,)}
    return stage.task(slices=[make_slice(dimensions=dims)]).on(bot_id)


def both_are_met(stage, other, check):
    """A round of offers that claims, against another act; each of them comes first once."""
    seen = set()

    def look(at, results):
        seen.add(results[0] is None)
        check(at, results)

    stage.every(only_for_its_bot, Situation.is_given, other, look)
    assert seen == {True, False}


def test_every_order_of_cancel_and_a_round_that_claims_has_one_winner(stage):
    def check(at, results):
        given, canceled = results
        assert canceled.canceled is (given is None)
        assert at.task().state == ("CANCELED" if given is None else "RUNNING")
        assert at.bot().task_id == ("" if given is None else run_id(at.request.task_id))
        assert at.is_tidy()

    both_are_met(stage, Situation.cancels, check)


def test_every_order_of_expiry_and_a_round_that_claims_has_one_winner(stage):
    def check(at, results):
        given, _ = results
        assert at.task().state == ("EXPIRED" if given is None else "RUNNING")
        assert at.is_tidy()

    both_are_met(stage, Situation.expires, check)


def test_every_order_of_a_new_session_and_a_round_that_claims_leaves_no_run_alone(stage):
    """Either the new session finds the run and abandons it, or nothing is claimed for the old."""

    def connects(at, store):
        session = f"{at.bot_id}/2"
        call = CallInfo(session, "127.0.0.1", "bot:test", "v1")
        update = BotUpdate(EventKind.BOT_CONNECTED, dedup_key=session, call=call)
        return update_bot(store, at.bot_id, update, at.stamp("again"))

    def check(at, results):
        given, _ = results
        assert at.bot().task_id == ""
        if given is not None:
            assert at.task().state == "BOT_DIED"
            assert at.is_tidy()
        else:
            assert at.task().state == "PENDING"
            assert at.claims(at.store) == Skip("another process took this bot id over")

    both_are_met(stage, connects, check)


def test_every_order_of_deleting_a_bot_and_a_round_that_claims_leaves_no_run_alone(stage):
    def check(at, results):
        given, _ = results
        assert at.bot() is None
        assert at.task().state == ("PENDING" if given is None else "BOT_DIED")

    both_are_met(stage, Situation.deleted, check)


@pytest.mark.spec("5.9.1.2")
@pytest.mark.parametrize("what", ["the run", "the bot"])
def test_every_order_of_giving_up_what_was_silent_and_its_bot_taking_the_run_has_one_winner(
    stage, what
):
    """What was claimed for a bot that has not heard of it never begins after its end."""

    def begin(stage):
        at = only_for_its_bot(stage)
        assert at.is_given(at.store) is not None
        return at

    def check(at, results):
        is_given_up, said = results
        ended = Skip("the task has ended: BOT_DIED")
        assert said == (ended if is_given_up else Run(is_retry=True))
        assert at.task().state == ("BOT_DIED" if is_given_up else "RUNNING")
        assert at.bot().task_id == ("" if is_given_up else run_id(at.request.task_id))
        assert not at.bot().dead

    gives_up = Situation.dies if what == "the bot" else Situation.is_lost
    stage.every(begin, gives_up, Situation.takes, check)


def test_every_order_of_cancel_and_completion_lets_it_complete(stage):
    def check(at, results):
        _, canceled = results
        assert (canceled.canceled, at.task().state) == (False, "COMPLETED")
        assert (at.task().output_bytes, at.bot().task_id, at.audited()) == (3, "", [])

    stage.every(Stage.running, Situation.finishes, Situation.cancels, check)


@pytest.mark.spec("5.9.1.3", "5.9.1.5")
def test_every_order_of_kill_and_completion_has_one_end(stage):
    def check(at, results):
        done, killed = results
        assert at.task().state == ("KILLED" if killed.canceled else "COMPLETED")
        assert (done.task, at.task().killing, at.bot().task_id) == (at.task(), False, "")
        assert len(at.audited()) == killed.canceled

    stage.every(Stage.running, Situation.finishes, Situation.kills, check)


@pytest.mark.spec("5.9.1.4")
def test_every_order_of_two_kills_kills_once(stage):
    def check(at, results):
        assert sorted(done.canceled for done in results) == [False, True]
        assert (at.task().state, at.task().killing, len(at.audited())) == ("RUNNING", True, 1)

    def kills_too(at, store):
        return at.cancels(store, "bob", kill=True)

    stage.every(Stage.running, Situation.kills, kills_too, check)


@pytest.mark.spec("5.3.1.6", "5.6.1.2")
def test_every_order_of_death_and_late_completion_has_one_end(stage):
    def check(at, results):
        died, _ = results
        task = at.task()
        assert at.bot().dead is died
        assert task.state == ("BOT_DIED" if died else "COMPLETED")
        in_result = at.store.scan_keys(codec.OUT, *codec.output_range(task.task_id), limit=9)
        late = at.store.scan_keys(codec.OUT, *codec.late_range(task.task_id), limit=9)
        is_completed = task.state == "COMPLETED"
        assert (len(in_result), len(late)) == ((1, 0) if is_completed else (0, 1))
        assert (task.output_bytes, task.late_bytes) == ((3, 0) if is_completed else (0, 3))
        assert (len(at.events("task_completed")), len(at.events("bot_missing"))) == (1, died)

    stage.every(Stage.running, Situation.dies, Situation.finishes, check)


def test_every_order_of_a_lost_run_and_its_completion_has_one_end(stage):
    def check(at, results):
        lost, done = results
        assert at.task().state == ("BOT_DIED" if lost and lost.changed else "COMPLETED")
        assert not isinstance(done, NotCurrent)
        assert at.bot().task_id == ""

    stage.every(Stage.running, Situation.is_lost, Situation.finishes, check)


def test_every_order_of_death_and_claim_leaves_no_run_without_a_bot(stage):
    def check(at, results):
        died, decision = results
        assert decision == Run(is_retry=False)
        assert len(at.events("bot_missing")) == died
        assert at.task().state == "RUNNING"
        assert (at.bot().dead, at.bot().task_id) == (False, run_id(at.request.task_id))
        assert at.is_tidy()

    stage.every(Stage.pending, Situation.dies, Situation.claims, check)


def test_every_order_of_expiry_and_claim_has_one_winner(stage):
    def check(at, results):
        expired, decision = results
        won = decision == Run(is_retry=False)
        assert (expired is None) is won
        assert at.task().state == ("RUNNING" if won else "EXPIRED")
        assert at.is_tidy()

    stage.every(Stage.pending, Situation.expires, Situation.claims, check)


def test_every_order_of_expiry_and_cancel_has_one_end(stage):
    def check(at, results):
        expired, canceled = results
        assert (expired is None) is canceled.canceled
        assert at.task().state == ("CANCELED" if canceled.canceled else "EXPIRED")
        assert at.is_tidy()

    stage.every(Stage.pending, Situation.expires, Situation.cancels, check)


def test_every_order_of_expiry_and_cancel_with_a_next_slice_forgets_both(stage):
    def begin(stage):
        slices = [make_slice(expiration_s=1), make_slice(expiration_s=10**7, env={"A": "1"})]
        return stage.pending(slices=slices)

    def check(at, results):
        assert (at.task().state, results[1].canceled) == ("CANCELED", True)
        assert at.is_tidy()

    stage.every(begin, Situation.expires, Situation.cancels, check)


def died(stage, **more):
    at = stage.running(max_retries=1, **more)
    at.judged().dies(stage.store)
    assert at.task().state == "BOT_DIED"
    (at.due,) = at.left(codec.DUE)
    return at


def retries(number):
    def act(at, store):
        new_id = task_id(new_request_id(NOW + 1, int(at.bot_id[2:]) * 4 + number))
        return retry_task(store, at.request.task_id, new_id, at.due, NOW + 1)

    return act


def test_every_order_of_two_retries_makes_one_task(stage):
    def check(at, results):
        made = [task for task in results if task is not None]
        assert len(made) == 1
        assert (at.task().retried_as, made[0].retry_of) == (made[0].task_id, at.request.task_id)
        assert at.left(codec.DUE) == []

    stage.every(died, retries(1), retries(2), check)


def test_every_order_of_retry_and_cancel_leaves_the_end_as_it_is(stage):
    def check(at, results):
        made, canceled = results
        assert (canceled.canceled, at.task().state) == (False, "BOT_DIED")
        assert at.task(made.task_id).state == "PENDING"

    stage.every(died, retries(1), Situation.kills, check)


def child_of(at, number=0):
    run = run_id(at.request.task_id)
    number = int(at.bot_id[2:]) * 4 + 3 + number
    tags = (f"parent_task_id:{run}",)
    return make_request(number, now_ms=NOW + 2, parent_task_id=run, tags=tags)


def creates_child(at, store):
    child = child_of(at)
    try:
        return create_task(store, child, request_uuid="").task
    except ParentEnded:
        return None


@pytest.mark.spec("5.9.p1")
@pytest.mark.parametrize("end", [Situation.finishes, Situation.dies, Situation.deleted])
def test_every_order_of_a_parents_end_and_its_childs_beginning_lets_none_escape(stage, end):
    def check(at, results):
        _, child = results
        timers = [key for key in at.left(codec.DUE) if "!children!" in key]
        assert at.task().state in FINAL
        assert at.task().has_children is (child is not None)
        assert len(timers) == (0 if child is None else 1)
        assert (at.task(child_of(at).task_id) is None) is (child is None)

    stage.every(Stage.running, end, creates_child, check)


def test_every_order_of_a_parents_end_and_its_childs_retry_lets_none_escape(stage):
    def begin(stage):
        parent = stage.running()
        run = run_id(parent.request.task_id)
        child = died(stage, parent_task_id=run, tags=(f"parent_task_id:{run}",))
        child.parent = parent
        return child

    def check(at, results):
        made, _ = results
        assert at.parent.task().state == "COMPLETED"
        timers = [key for key in at.parent.left(codec.DUE) if "!children!" in key]
        assert len(timers) == 1
        assert made is None or at.task(made.task_id).state == "PENDING"
        assert at.left(codec.DUE) == []

    stage.every(begin, retries(1), lambda at, store: at.parent.finishes(store), check)


def terminates(number):
    def act(at, store):
        new_id = task_id(new_request_id(NOW + 1, int(at.bot_id[2:]) * 4 + number))
        request = termination_request(
            at.bot_id, new_id, caller="user:a", reason="", instance="", now_ms=NOW + 1
        )
        actor = Actor("a", "", f"t{number}-{at.bot_id}")
        return terminate_bot(store, request, actor)

    return act


@pytest.mark.spec("10.6.p1")
def test_every_order_of_two_terminations_makes_one_task(stage):
    def check(at, results):
        assert sorted(made.is_new for made in results) == [False, True]
        assert results[0].task.task_id == results[1].task.task_id
        tags = [frozenset({f"t:id:{at.bot_id}"})]
        assert len(at.store.find(codec.TASK, tags, after=None, limit=9).docs) == 1

    stage.every(Stage.pending, terminates(1), terminates(2), check)


def test_every_order_of_deletion_and_claim_leaves_no_run_without_a_bot(stage):
    def check(at, results):
        deleted, decision = results
        assert (deleted, at.bot()) == (True, None)
        is_run = isinstance(decision, Run)
        assert at.task().state == ("BOT_DIED" if is_run else "PENDING")
        assert at.is_tidy() is is_run

    stage.every(Stage.pending, Situation.deleted, Situation.claims, check)


def test_every_order_of_deletion_and_completion_has_one_end(stage):
    def check(at, results):
        assert at.task().state in {"BOT_DIED", "COMPLETED"}
        assert at.bot() is None
        assert len(at.events("bot_deleted")) == 1

    stage.every(Stage.running, Situation.deleted, Situation.finishes, check)


def own_queue(stage, **more):
    """A task whose queue nobody else uses, last filled long ago."""
    at = stage.pending(slices=[make_slice(dimensions={"pool": (f"p{stage.bot()}",)})], **more)
    at.queue = at.task().pend_key.rsplit("!", 3)[0]
    return at


def deletes_queue(at, store):
    return delete_queue(store, at.queue, LATER - 1)


def test_every_order_of_filling_and_removing_a_queue_keeps_a_filled_one(stage):
    def begin(stage):
        at = own_queue(stage)
        at.cancels(stage.store)
        at.again = replace(at.request, task_id=child_of(at).task_id, created_ms=LATER * 2)
        return at

    def check(at, results):
        assert at.task(at.again.task_id).state == "PENDING"
        assert at.store.get(codec.QUEUE, at.queue) != [None]

    def fills(at, store):
        return create_task(store, at.again, request_uuid="")

    stage.every(begin, fills, deletes_queue, check)


def test_every_order_of_returning_an_offer_and_removing_its_queue_keeps_it(stage):
    def begin(stage):
        at = own_queue(stage)
        waiting = [Waiting(at.bot_id, f"ls-{at.bot_id}", frozenset({at.queue}))]
        (at.offer,) = offer_leases(stage.store, [at.queue], waiting, NOW).offers.values()
        return at

    def check(at, results):
        assert results[0] is True
        assert len(at.left(codec.PEND)) == 1
        assert at.store.get(codec.QUEUE, at.queue) != [None]

    def returns(at, store):
        return return_offer(store, at.offer, LATER * 2, "late")

    stage.every(begin, returns, deletes_queue, check)


def test_every_order_of_skipping_and_claiming_has_one_winner(stage):
    def begin(stage):
        number = hold_duty(stage.store, "sweeper", "one", now_ms=NOW, for_ms=DUTY_MS)
        at = stage.pending()
        at.fence = Fence("sweeper", "one", number)
        return at

    def skips(at, store):
        return skip_slice(store, at.request.task_id, 0, NOW, at.fence)

    def check(at, results):
        skipped, decision = results
        won = decision == Run(is_retry=False)
        assert (skipped is None) is won
        assert at.task().state == ("RUNNING" if won else "NO_RESOURCE")
        assert at.is_tidy()

    stage.every(begin, skips, Situation.claims, check)


def test_every_order_of_skipping_and_a_change_of_duty_is_fenced(stage):
    def begin(stage):
        number = hold_duty(stage.store, "sweeper", "one", now_ms=NOW, for_ms=DUTY_MS)
        at = stage.pending()
        at.fence = Fence("sweeper", "one", number)
        return at

    def skips(at, store):
        return skip_slice(store, at.request.task_id, 0, NOW, at.fence)

    def takes_over(_at, store):
        return hold_duty(store, "sweeper", "two", now_ms=NOW + DUTY_MS, for_ms=1)

    seen = set()

    def check(at, results):
        skipped, fence = results
        seen.add(skipped is None)
        assert fence > at.fence.number
        assert at.task().state == ("PENDING" if skipped is None else "NO_RESOURCE")
        hold_duty(at.store, "sweeper", "one", now_ms=LATER, for_ms=1)

    def begin_after(stage):
        stage.store.transact(lambda txn: txn.delete(codec.DUTY, "sweeper"), label="test")
        return begin(stage)

    stage.every(begin_after, skips, takes_over, check)
    assert seen == {True, False}


def test_every_order_of_giving_up_and_completing_a_killed_run_has_one_end(stage):
    def begin(stage):
        at = stage.running()
        at.kills(stage.store)
        return at

    def gives_up(at, store):
        run = run_id(at.request.task_id)
        return kill_ignored(store, at.bot_id, run, NOW, at.stamp("given up"))

    def check(at, results):
        gave_up, _ = results
        assert at.task().state == "KILLED"
        assert at.task().internal_failure is bool(gave_up and gave_up.changed)

    stage.every(begin, gives_up, Situation.finishes, check)
