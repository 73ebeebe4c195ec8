"""A new task that takes over a result, on every store: once and again, and in races."""

from dataclasses import replace

import pytest

from botapi.domain.completion import EndedBy, Ending
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.create_task import Original, create_task, find_original
from botapi.transactions.delete_task import delete_task
from botapi.transactions.finish_task import stage_finish
from tests.factories import make_request, make_slice
from tests.scheduler.conftest import claim, connect
from tests.transactions.stores import dump

NOW = 1_772_604_367_089
SLICE = make_slice(idempotent=True, properties_hash="h")


def request(number, **more):
    return make_request(number, now_ms=NOW, slices=[SLICE], **more)


@pytest.fixture
def original(store):
    """A success with the properties `h`."""
    first = request(1)
    create_task(store, first, request_uuid="")
    connect(store, "vm1", NOW)
    claim(store, "vm1", first.task_id, NOW)
    ending = Ending(EndedBy.BOT, exit_code=0, duration_s=1.0)
    store.transact(lambda txn: stage_finish(txn, first.task_id, ending, NOW + 5), label="test")
    return Original(first.task_id, "h", NOW)


def test_result_is_found_by_its_properties_and_age(store, original):
    assert find_original(store, request(2), NOW) == original
    assert find_original(store, request(2), NOW + 1) is None
    other = make_request(2, slices=[replace(SLICE, properties_hash="other")])
    assert find_original(store, other, NOW) is None
    assert find_original(store, make_request(2), NOW) is None


@pytest.mark.spec("10.5.1.2")
def test_create_from_an_original_twice_makes_one_finished_task(store, original):
    wanted = request(2)
    created = create_task(store, wanted, request_uuid="", nonce="n", original=original)
    assert (created.task.state, created.is_new) == ("COMPLETED", True)
    before = dump(store)
    again = create_task(store, wanted, request_uuid="", nonce="n", original=original)
    assert (again.task, dump(store)) == (created.task, before)
    assert store.scan(codec.PEND, "", "\U0010ffff", limit=1) == []


def test_task_runs_when_the_original_went_before_the_commit(store, original):
    assert delete_task(store, codec.task_key(original.task_id))
    created = create_task(store, request(2), request_uuid="", original=original)
    assert (created.task.state, created.task.deduped_from) == ("PENDING", "")
    (pending,) = store.scan(codec.PEND, "", "\U0010ffff", limit=2)
    assert pending.key == created.task.pend_key


@pytest.mark.parametrize("change", [{"properties_hash": "other"}, {"oldest_ms": NOW + 1}])
def test_task_runs_when_the_original_does_not_count(store, original, change):
    created = create_task(store, request(2), request_uuid="", original=replace(original, **change))
    assert created.task.state == "PENDING"


def test_uuid_of_a_copy_is_remembered(store, original):
    first = create_task(store, request(2), request_uuid="u", original=original)
    again = create_task(store, request(3), request_uuid="u")
    assert (again.task, again.is_new) == (first.task, False)
    (remembered,) = store.get(codec.DEDUP, join_key("rid", "user:test", "u"))
    assert remembered.body["task_id"] == first.task.task_id
