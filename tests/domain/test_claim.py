"""The referee of a claim: every step of bot-api 4.3 that decides."""

import pytest

from botapi.domain.bot import Bot
from botapi.domain.claim import Attempt, Run, Skip, Terminate, decide
from botapi.domain.matching import shard
from botapi.domain.task import Offer, PendingSlice
from tests.domain.test_task import make_task
from tests.factories import make_request, make_slice

REQUEST = make_request(slices=[make_slice(), make_slice(dimensions={"pool": ("default",)})])
EXIT = make_request(slices=[make_slice(command=(), dimensions={"id": ("vm1",)})])
PENDING = make_task("PENDING")
CLAIM = "vm1:lease"


def make_bot(**more):
    values = {"dimensions": ("id:vm1", "pool:default"), "first_seen_ms": 1, "session_id": "s"}
    return Bot("vm1", **{**values, **more})


def offer_to(bot_id):
    return Offer("lease", bot_id, 1, PendingSlice("k", "q", "t", 0, 100, 1, 4))


def decided(task=PENDING, request=REQUEST, offer=None, session="s", index=0, **bot):
    found = shard(request.slices[index].dimensions) if index < len(request.slices) else 0
    attempt = Attempt(session, CLAIM, index, bot.pop("shard", found))
    return decide(task, request, make_bot(**bot), offer, attempt)


@pytest.mark.spec("4.2.1.3")
def test_claim_runs_when_the_slice_is_pending_and_the_bot_free():
    assert decided() == Run(is_retry=False)
    assert decided(offer=offer_to("vm1")) == Run(is_retry=False)


@pytest.mark.spec("4.2.1.2", "4.3.1.7")
def test_claim_terminates_when_the_task_asks_for_it():
    assert decided(request=EXIT) == Terminate(is_retry=False)
    taken = make_task("RUNNING", claim_id=CLAIM)
    assert decided(taken, request=EXIT) == Terminate(is_retry=True)


@pytest.mark.spec("4.3.1.7")
@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED", "BOT_DIED", "KILLED"])
def test_claim_is_answered_again_when_it_is_ours(state):
    assert decided(make_task(state, claim_id=CLAIM)) == Run(is_retry=True)


@pytest.mark.spec("4.2.1.1", "4.3.1.2", "4.3.1.3", "4.3.1.5", "4.3.1.6")
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"index": 2}, "no such task"),
        ({"shard": 3}, "no such task"),
        ({"session": "older"}, "another process took this bot id over"),
        ({"dimensions": ("id:vm1",)}, "dimensions mismatch: the slice asks for pool:default"),
        ({"task": make_task("CANCELED")}, "slice has expired"),
        ({"task": make_task("EXPIRED")}, "slice has expired"),
        ({"task": make_task("PENDING", slice_index=1)}, "slice has expired"),
        ({"task": make_task("RUNNING", slice_index=1, claim_id=CLAIM)}, "slice has expired"),
        ({"task": make_task("RUNNING", claim_id="vm2:x")}, 'already claimed by "vm2:x"'),
        ({"offer": offer_to("vm2")}, 'offered to "vm2"'),
        ({"task_id": "aa11"}, "this bot is still running aa11"),
    ],
)
def test_claim_skips_with_a_reason(more, reason):
    assert decided(**more) == Skip(reason)


def test_claim_names_the_alternatives_that_are_missing():
    request = make_request(slices=[make_slice(dimensions={"os": ("Linux|Mac",)})])
    reason = "dimensions mismatch: the slice asks for os:Linux or os:Mac"
    assert decided(request=request) == Skip(reason)


@pytest.mark.spec("4.3.1.3")
def test_claim_says_mismatch_before_it_says_who_has_it():
    taken = make_task("RUNNING", claim_id="vm2:x")
    decision = decided(taken, dimensions=("id:vm1",))
    assert decision.reason.startswith("dimensions mismatch")
