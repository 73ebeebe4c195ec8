"""Any task as a message: what JSON says is what the binary form says."""

import base64
import zlib
from dataclasses import replace

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from swarmingpb import swarming_pb2 as pb

from botapi.api.prpc import codec
from botapi.api.prpc.call_headers import Encoding
from botapi.api.prpc.new_task_messages import asked_task
from botapi.api.prpc.task_messages import request_message, result_message
from botapi.domain import artifacts
from botapi.domain.item_sets import MAX_UNPACKED, ItemSet, read_items
from botapi.domain.names import new_request_id, task_id
from botapi.domain.task import Slice, Task, TaskRequest, TaskState

TEXTS = st.text(max_size=8)
MS = st.just(0) | st.integers(1, 2**45)
FLOATS = st.floats(-1e38, 1e38)
"""The library's reader refuses some of the last digits before the largest 32-bit number."""
SECONDS = st.none() | FLOATS
INTS = st.none() | st.integers(-(2**70), 2**70)
FLAT = st.lists(st.sampled_from(["os:Linux", "os:Mac", "id:vm:1", "pool:ci"]), max_size=4)
IDS = st.integers(0, 2**16 - 1).map(lambda n: task_id(new_request_id(1_772_604_367_089, n)))


def maybe(strategy):
    return st.none() | strategy


DIGESTS = st.builds(artifacts.CasDigest, hash=maybe(TEXTS), size_bytes=INTS)
CAS = st.builds(artifacts.CasReference, cas_instance=maybe(TEXTS), digest=maybe(DIGESTS))
PACKAGES = st.builds(
    artifacts.CipdPackage, package_name=maybe(TEXTS), version=maybe(TEXTS), path=maybe(TEXTS)
)
MANY_PACKAGES = st.lists(PACKAGES, max_size=2).map(tuple)
TOOK = maybe(st.builds(artifacts.Took, duration=SECONDS))
ITEMS = maybe(TEXTS | st.binary(max_size=9).map(lambda raw: base64.b64encode(raw).decode()))
TRANSFERS = maybe(
    st.builds(
        artifacts.TransferStats,
        duration=SECONDS,
        initial_number_items=INTS,
        initial_size=INTS,
        items_cold=ITEMS,
        items_hot=ITEMS,
    )
)
STATS = st.builds(
    artifacts.PerformanceStats,
    bot_overhead=FLOATS,
    cache_trim=TOOK,
    cipd=TOOK,
    cleanup=TOOK,
    named_caches=maybe(st.builds(artifacts.CacheStats, install=TOOK, uninstall=TOOK)),
    isolated=maybe(st.builds(artifacts.IsolatedStats, download=TRANSFERS, upload=TRANSFERS)),
)
TASKS = st.builds(
    Task,
    task_id=IDS,
    state=st.sampled_from(TaskState),
    name=TEXTS,
    user=TEXTS,
    pool=TEXTS,
    priority=st.integers(0, 255),
    tags=st.lists(TEXTS, max_size=3).map(tuple),
    created_ms=MS,
    modified_ms=MS,
    slice_index=st.integers(0, 7),
    bot_id=TEXTS,
    bot_dimensions=FLAT.map(tuple),
    started_ms=MS,
    completed_ms=MS,
    abandoned_ms=MS,
    exit_code=INTS,
    duration_s=SECONDS,
    failure=st.booleans(),
    cost_usd=FLOATS,
    cas_output_root=maybe(CAS),
    cipd_pins=maybe(
        st.builds(artifacts.CipdPins, client_package=maybe(PACKAGES), packages=maybe(MANY_PACKAGES))
    ),
    missing_cas=st.lists(CAS, max_size=2).map(tuple),
    missing_cipd=MANY_PACKAGES,
    deduped_from=st.just("") | IDS,
)
SLICES = st.builds(
    Slice,
    command=st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
    dimensions=st.dictionaries(
        TEXTS, st.lists(TEXTS, min_size=1, max_size=2, unique=True).map(tuple), max_size=2
    ),
    env=st.dictionaries(TEXTS, TEXTS, max_size=2),
    env_prefixes=st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2).map(tuple), max_size=2),
    relative_cwd=TEXTS,
    expiration_s=st.integers(30, 604_800),
    hard_timeout_s=st.integers(0, 601_140),
    wait_for_capacity=st.booleans(),
    caches=st.lists(st.builds(artifacts.NamedCache, TEXTS, TEXTS), max_size=2).map(tuple),
    outputs=st.lists(TEXTS, max_size=2).map(tuple),
    containment_type=st.integers(0, 3),
    idempotent=st.booleans(),
)
REQUESTS = st.builds(
    TaskRequest,
    task_id=st.just("") | IDS,
    name=TEXTS,
    priority=st.integers(0, 255),
    user=TEXTS,
    authenticated=TEXTS,
    tags=st.lists(TEXTS, max_size=3).map(tuple),
    slices=st.lists(SLICES, min_size=1, max_size=2).map(tuple),
    created_ms=MS,
    realm=TEXTS,
)


def through(message, encoding):
    """The message that somebody reads who was sent this one."""
    body = codec.encode(message, encoding).removeprefix(codec.JSON_PREFIX)
    return codec.decode(body, encoding, type(message))


@pytest.mark.slow
@pytest.mark.spec("prpc:1.4.1.2", "prpc:1.4.1.4")
@given(task=TASKS, stats=maybe(STATS), with_cost=st.booleans())
def test_any_result_says_the_same_in_both_encodings(task, stats, with_cost):
    message = result_message(task, stats, with_cost=with_cost)
    assert through(message, Encoding.JSON) == message == through(message, Encoding.BINARY)
    assert message.HasField("performance_stats") == (stats is not None)
    assert message.state == pb.TaskState.Value(task.state)
    assert len(message.costs_usd) == (with_cost or bool(task.cost_usd and not task.deduped_from))
    assert all(pair.value for pair in message.bot_dimensions)


@pytest.mark.slow
@pytest.mark.spec("prpc:10.p4", "prpc:4.3.11", "prpc:4.3.6")
@given(request=REQUESTS)
def test_any_request_says_the_same_in_both_encodings(request):
    message = request_message(request)
    assert through(message, Encoding.JSON) == message == through(message, Encoding.BINARY)
    assert message.properties == message.task_slices[0].properties
    assert message.HasField("resultdb")


@pytest.mark.slow
@pytest.mark.spec("prpc:6.1.p1")
@given(request=REQUESTS)
def test_slices_that_were_told_are_understood_again(request):
    """What a web client copies from one task makes the same slices of the next."""
    message = request_message(replace(request, slices=request.slices))
    asked = asked_task(pb.NewTaskRequest(name="again", task_slices=message.task_slices))
    assert asked.problem is None
    told = request_message(replace(request, slices=asked.new.slices))
    if not request.is_termination:
        assert told.task_slices == message.task_slices


@pytest.mark.spec("prpc:4.4.21", "prpc:9.1.14")
def test_cost_is_one_entry_or_none_but_for_a_bots_tasks():
    task = Task("76d00eba71beef10", TaskState.COMPLETED, "t", "", "ci", 1, (), 1, 1)
    assert list(result_message(task).costs_usd) == []
    assert list(result_message(task, with_cost=True).costs_usd) == [0]
    assert list(result_message(replace(task, cost_usd=0.5)).costs_usd) == [0.5]


@pytest.mark.spec("prpc:4.p1")
def test_parts_of_the_statistics_without_data_are_absent():
    task = Task("76d00eba71beef10", TaskState.COMPLETED, "t", "", "ci", 1, (), 1, 1)
    empty = artifacts.PerformanceStats(
        bot_overhead=0.0,
        cipd=artifacts.Took(),
        named_caches=artifacts.CacheStats(),
        isolated=artifacts.IsolatedStats(download=artifacts.TransferStats()),
    )
    message = result_message(task, empty)
    assert message.HasField("performance_stats")
    assert json_format.MessageToDict(message.performance_stats) == {}


def pack(sizes):
    out, last = bytearray(), 0
    for size in sorted(sizes):
        value, last = size - last, size
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return zlib.compress(bytes(out))


@pytest.mark.spec("prpc:4.1.5", "prpc:4.1.6")
@given(sizes=st.lists(st.integers(0, 2**53), max_size=20))
def test_items_are_counted_and_summed(sizes):
    assert read_items(pack(sizes)) == ItemSet(len(sizes), sum(sizes))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"junk",
        zlib.compress(b"\x80"),
        zlib.compress(b"\x01")[:-1],
        zlib.compress(bytes(MAX_UNPACKED + 1)),
        zlib.compress(b"\xff" * (MAX_UNPACKED - 1) + b"\x01"),
        pack([2**53, 2**53 + 1]),
    ],
)
def test_what_is_no_set_of_items_counts_for_nothing(packed):
    assert read_items(packed) == ItemSet()
