"""When one task's result stands for another: the hash of all properties, and what is copied."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.artifacts import CasDigest, CasReference, CipdInput, CipdPackage, NamedCache
from botapi.domain.deduplication import finished_as, is_usable, properties_hash
from botapi.domain.task import Slice, Task, TaskState
from tests.factories import make_slice

NOW = 1_772_604_367_089
PLAIN = make_slice(idempotent=True)
OTHERS = {
    "command": ("/bin/false",),
    "dimensions": {"pool": ("default",), "os": ("Linux",)},
    "env": {"A": "1"},
    "env_prefixes": {"A": ("1",)},
    "relative_cwd": "x",
    "hard_timeout_s": 60,
    "io_timeout_s": 60,
    "grace_period_s": 60,
    "caches": (NamedCache("a", "b"),),
    "cas_input_root": CasReference("i", CasDigest("h", 1)),
    "cipd_input": CipdInput("s", CipdPackage("c", "v", ""), (CipdPackage("p", "v", "x"),)),
    "outputs": ("o",),
    "containment_type": 2,
    "lower_priority": True,
    "limit_processes": 1,
    "limit_total_committed_memory": 1,
    "idempotent": False,
}
NO_PROPERTIES = {"expiration_s": 60, "wait_for_capacity": True, "properties_hash": "x"}


def hash_of(slice_, secret=b"", secrets=None):
    return properties_hash(slice_, secret, secrets or {})


@pytest.mark.spec("10.5.1.2")
@pytest.mark.parametrize("name", OTHERS)
def test_every_property_changes_the_hash(name):
    assert hash_of(replace(PLAIN, **{name: OTHERS[name]})) != hash_of(PLAIN)


@pytest.mark.spec("10.5.1.2")
def test_secrets_are_properties():
    with_secret = replace(PLAIN, has_secret_bytes=True)
    hashes = {
        hash_of(PLAIN),
        hash_of(with_secret, b"a"),
        hash_of(with_secret, b"b"),
        hash_of(PLAIN, secrets={"A": "npm"}),
        hash_of(PLAIN, secrets={"A": "other"}),
    }
    assert len(hashes) == 5
    assert hash_of(PLAIN, b"of another slice") == hash_of(PLAIN)


@pytest.mark.parametrize("name", NO_PROPERTIES)
def test_how_long_a_slice_waits_does_not_change_the_hash(name):
    assert hash_of(replace(PLAIN, **{name: NO_PROPERTIES[name]})) == hash_of(PLAIN)


def test_every_field_of_a_slice_is_a_property_or_known_not_to_be():
    names = {field.name for field in fields(Slice)}
    assert names == OTHERS.keys() | NO_PROPERTIES.keys() | {"has_secret_bytes"}


def test_order_in_which_a_task_is_written_down_does_not_change_the_hash():
    one = make_slice(env={"A": "1", "B": "2"}, dimensions={"pool": ("p",), "os": ("a", "b")})
    other = make_slice(env={"B": "2", "A": "1"}, dimensions={"os": ("b", "a"), "pool": ("p",)})
    assert hash_of(one) == hash_of(other)


texts = st.text('ab",:[]{}\\', max_size=4)
slices = st.builds(
    make_slice,
    command=st.lists(texts, max_size=3).map(tuple),
    env=st.dictionaries(texts, texts, max_size=2),
    env_prefixes=st.dictionaries(texts, st.lists(texts, max_size=2).map(tuple), max_size=2),
    outputs=st.lists(texts, max_size=2).map(tuple),
    relative_cwd=texts,
)


@pytest.mark.spec("10.5.1.2")
@given(slices, slices)
def test_hashes_are_equal_for_equal_properties_only(one, other):
    assert (hash_of(one) == hash_of(other)) == (one == other)


def task(**more):
    values = {
        "task_id": "76d00eba71beef10",
        "state": TaskState.COMPLETED,
        "name": "n",
        "user": "",
        "pool": "default",
        "priority": 100,
        "tags": (),
        "created_ms": NOW,
        "modified_ms": NOW + 5,
        "properties_hash": "h",
    }
    return Task(**{**values, **more})


@pytest.mark.spec("10.5.1.2")
@pytest.mark.parametrize(
    ("more", "is_good"),
    [
        ({}, True),
        ({"created_ms": NOW - 1}, False),
        ({"properties_hash": "other"}, False),
        ({"properties_hash": ""}, False),
        ({"state": TaskState.RUNNING}, False),
        ({"deduped_from": "76d00eba71beef11"}, False),
    ],
)
def test_only_a_young_success_of_its_own_is_used_again(more, is_good):
    assert is_usable(task(**more), "h", NOW) is is_good


@pytest.mark.spec("10.5.1.2", "9.5.1.6")
def test_new_task_has_the_result_of_the_original_and_stays_itself():
    original = task(
        bot_id="vm1",
        bot_dimensions=("id:vm1",),
        started_ms=NOW + 1,
        completed_ms=NOW + 4,
        exit_code=0,
        duration_s=1.5,
        output_bytes=7,
        cost_usd=0.25,
        session_id="s",
        claim_id="c",
        slice_index=1,
        cas_output_root=CasReference("i", CasDigest("h", 1)),
    )
    new = task(
        task_id="76d00eba71bee010",
        state=TaskState.PENDING,
        created_ms=NOW + 9,
        modified_ms=NOW + 9,
        properties_hash="",
    )
    done = finished_as(new, original)
    assert (done.task_id, done.created_ms, done.modified_ms) == (new.task_id, NOW + 9, NOW + 9)
    assert (done.state, done.bot_id, done.exit_code) == (TaskState.COMPLETED, "vm1", 0)
    assert (done.started_ms, done.completed_ms) == (NOW + 1, NOW + 4)
    assert (done.output_bytes, done.cas_output_root) == (7, original.cas_output_root)
    assert (done.deduped_from, done.cost_saved_usd) == ("76d00eba71beef11", 0.25)
    assert (done.cost_usd, done.slice_index, done.properties_hash) == (0.0, 0, "")
    assert (done.session_id, done.claim_id, done.pend_key) == ("", "", "")
    assert done.output_task_id == original.task_id
    assert new.output_task_id == new.task_id
