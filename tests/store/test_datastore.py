"""The Datastore engine: the suite, plain and wrapped, and what only this service has."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.api_core import exceptions as google
from google.auth.exceptions import RefreshError
from hypothesis import given
from hypothesis import strategies as st

from botapi import engines, metrics
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.store.datastore_calls import EMULATOR, Calls, Until
from botapi.store.datastore_entities import Place, key_query, to_key, to_name
from botapi.store.datastore_txn import MAX_TXN_BYTES
from botapi.store.protocol import (
    MAX_BODY_BYTES,
    MAX_TAG_BYTES,
    MAX_TAGS,
    Ambiguous,
    Conflict,
    Outage,
    StoreError,
    TooLarge,
)
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import SharedConformance, StoreConformance
from tests.store.conformance.support import (
    any_of,
    counted,
    doc,
    increment,
    keys_of,
    put,
    together,
)

ROOT = Path(__file__).resolve().parents[2]

EMULATOR_FAULTS = {
    "test_scan_orders_keys_by_their_bytes": "compares names by UTF-16 units",
    "test_large_bodies_of_one_transaction_come_back_whole": "takes 4 MiB in a call, not 10",
    "test_documents_of_one_transaction_are_limited": "needs over 10 s to delete 10,000",
}
"""What Google's emulator does otherwise (test_emulator_faults.py); the service is not spared."""


def opened(address):
    return closing(engines.open_address(address, None, Threads(), SystemClock(), SystemRng()))


@pytest.fixture
def address(emulator):
    return emulator.new_address()


@pytest.fixture
def datastore(address):
    with opened(address) as store:
        yield store


@pytest.fixture
def spared(request, emulator):
    fault = EMULATOR_FAULTS.get(request.node.originalname)
    if fault and not emulator.real:
        pytest.skip(f"the emulator {fault}")


class Slow:
    """Every call is a journey of milliseconds, and an emulator answers one at a time."""

    model_examples = 4
    model_steps = 10
    races = 3
    many = 550
    big_docs = 5
    patience_s = 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("spared")
class TestDatastoreStore(Slow, StoreConformance):
    @pytest.fixture
    def store(self, datastore):
        return datastore


@pytest.mark.slow
@pytest.mark.usefixtures("spared")
class TestDatastoreStoreTwice(Slow, StoreConformance):
    @pytest.fixture
    def store(self, datastore):
        return TwiceStore(datastore)


@pytest.mark.slow
@pytest.mark.usefixtures("spared")
class TestDatastoreStoreFaulty(Slow, StoreConformance):
    @pytest.fixture
    def store(self, datastore):
        return FaultyStore(datastore, seed=1, before=0.1)


@pytest.mark.slow
class TestDatastoreProcesses(Slow, SharedConformance):
    """Several processes on one namespace."""

    crowd = 80
    rounds = 4


def sent(store, monkeypatch, error=None, *, apply=True, times=1):
    """Count the commits that are sent; the first ones apply or not, and then fail."""
    calls, send = [], store.calls.send_commit

    def wrapped(request, timeout_s):
        calls.append(timeout_s)
        failing = error is not None and len(calls) <= times
        if apply or not failing:
            send(request, timeout_s)
        if failing:
            raise error

    monkeypatch.setattr(store.calls, "send_commit", wrapped)
    return calls


def billed(did):
    return metrics.STORE_DOCUMENTS[did,]._value.get()


@pytest.mark.slow
def test_loser_of_two_transactions_runs_again(datastore):
    put(datastore, "count", doc("counter", n=0))
    runs, read, written = [], threading.Event(), threading.Event()

    def slow(txn):
        (found,) = txn.get("count", "counter")
        runs.append(found.body["n"])
        read.set()
        written.wait(20.0)
        txn.put("count", doc("counter", n=found.body["n"] + 1))

    def fast():
        read.wait(20.0)
        increment(datastore)
        written.set()

    together(lambda: datastore.transact(slow, label="slow"), fast)
    assert runs == [0, 1]
    assert counted(datastore) == 2


@pytest.mark.slow
def test_no_increment_is_lost_when_four_threads_contend(datastore):
    together(*[lambda: [increment(datastore) for _ in range(20)]] * 4)
    assert counted(datastore) == 80


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [google.ServiceUnavailable, google.DeadlineExceeded, google.InternalServerError]
)
def test_commit_is_ambiguous_when_it_was_applied_and_reported_failed(datastore, monkeypatch, error):
    calls = sent(datastore, monkeypatch, error("gone"))

    def insert(txn):
        txn.put("thing", doc("k"))

    with pytest.raises(Ambiguous):
        datastore.attempt(insert, timeout_s=5.0)
    assert datastore.get("thing", "k") == [doc("k")]
    datastore.transact(insert, label="test")
    assert len(calls) == 2


def test_rollback_says_nothing_when_there_are_no_credentials_any_more(monkeypatch):
    monkeypatch.setenv(EMULATOR, "127.0.0.1:1")
    calls = Calls(Place("project"), Threads())

    def refresh(**_):
        raise RefreshError("no answer from the metadata server")

    monkeypatch.setattr(calls._client, "rollback", refresh)
    calls.rollback(b"begun", Until(SystemClock(), 5.0))
    calls.close()


@pytest.mark.slow
def test_calls_from_native_threads_end_under_a_loop():
    server = grpc.server(ThreadPoolExecutor(4))  # it knows no method, and says so
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.store.datastore_threads"],
        cwd=ROOT,
        env={**os.environ, EMULATOR: f"127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    server.stop(None)
    assert ended.stdout.split() == ["40"]


@pytest.mark.slow
def test_transaction_runs_again_when_its_commit_was_aborted(datastore, monkeypatch):
    calls = sent(datastore, monkeypatch, google.Aborted("contention"), apply=False)
    with pytest.raises(Conflict):
        datastore.attempt(lambda txn: txn.put("thing", doc("k")), timeout_s=5.0)
    put(datastore, "thing", doc("k"))
    assert len(calls) == 2


@pytest.mark.slow
def test_write_is_refused_before_it_is_sent_when_the_commit_would_be_too_large(
    datastore, monkeypatch
):
    calls = sent(datastore, monkeypatch)
    large = doc("k", data=bytes(MAX_BODY_BYTES - 64))
    tags = [f"{n:03}".ljust(MAX_TAG_BYTES, "x") for n in range(MAX_TAGS)]
    with pytest.raises(TooLarge, match="entity"):
        put(datastore, "thing", doc("k", *tags, data=large.body["data"]))
    with pytest.raises(TooLarge, match=f"transaction, the limit is {MAX_TXN_BYTES}"):
        put(datastore, "thing", *(doc(f"k{n}", data=large.body["data"]) for n in range(11)))
    assert calls == []
    datastore.write_many(("thing", doc(f"k{n}", data=large.body["data"])) for n in range(4))
    assert len(calls) == 2


@pytest.mark.slow
def test_many_keys_are_looked_up_in_parts(datastore):
    put(datastore, "thing", doc("k1000"))
    found = datastore.get("thing", *(f"k{n:04}" for n in range(1_001)))
    assert [each.key for each in found if each] == ["k1000"]


@pytest.mark.slow
def test_pages_of_alternatives_follow_each_other_when_documents_come_and_go(datastore):
    put(datastore, "bot", *(doc(f"b{n:02}", f"os:{n % 3}", f"p:{n % 2}") for n in range(24)))
    wanted = [any_of("os:0", "os:1"), any_of("p:0", "p:x")]
    first = datastore.find("bot", wanted, after=None, limit=3)
    assert keys_of(first.docs) == ["b00", "b04", "b06"]
    put(datastore, "bot", doc("b05", "os:0", "p:x"), doc("b07", "os:1", "p:0"), doc("b10"))
    second = datastore.find("bot", wanted, after=first.after, limit=4)
    assert keys_of(second.docs) == ["b07", "b12", "b16", "b18"]
    assert datastore.find("bot", wanted, after=second.after, limit=4).after is None


def test_queries_need_no_composite_index():
    query = key_query(Place("p"), "bot", tags=["a", "b"], bounds=[(">", "a"), ("<", "z")])
    filters = [each.property_filter for each in query.filter.composite_filter.filters]
    assert [each.property.name for each in filters] == ["t", "t", "__key__", "__key__"]
    assert [each.property.name for each in query.order] == ["__key__"]


@pytest.mark.slow
def test_kind_without_tags_has_no_index_entries_of_its_own(datastore):
    put(datastore, "live", doc("k", n=1))
    ((entity,), _) = datastore.calls.lookup([("live", "k")], datastore._until())
    assert [value.exclude_from_indexes for value in entity.properties.values()] == [True]


@pytest.mark.slow
def test_billed_documents_are_counted(datastore):
    before = {did: billed(did) for did in ("read", "write", "delete", "key")}

    def work(txn):
        txn.get("thing", "a", "b")
        txn.put("thing", doc("a"))
        txn.delete("thing", "b")

    datastore.transact(work, label="test")
    datastore.scan_keys("thing", "a", "z", limit=9)
    assert {did: billed(did) - old for did, old in before.items()} == {
        "read": 3,
        "write": 1,
        "delete": 1,
        "key": 1,
    }


@pytest.mark.slow
def test_take_looks_beside_the_head_after_a_conflict(datastore):
    put(datastore, "pend", *(doc(f"q!{n:02}") for n in range(40)))

    def head():
        return datastore.take("pend", [("q!", "q~")], 1, lambda t, d: d[0].key, label="t")

    assert head() == "q!00"
    datastore.heads.lost()
    assert len({head() for _ in range(4)} | {head()}) > 1
    assert head() == "q!00"


@pytest.mark.slow
def test_take_finds_a_lower_key_at_once_when_it_was_put_here(datastore):
    put(datastore, "pend", doc("q!5"))

    def head():
        return datastore.take("pend", [("q!", "q~")], 1, lambda t, d: d[0].key, label="t")

    assert head() == "q!5"
    put(datastore, "pend", doc("q!1"))
    assert head() == "q!1"


@pytest.mark.slow
def test_calls_end_in_time_when_the_service_is_frozen_and_go_on_when_it_is_back(
    emulator, datastore
):
    put(datastore, "thing", doc("k"))
    emulator.pause()
    try:
        began = SystemClock().monotonic()
        with pytest.raises(Outage):
            datastore.transact(lambda txn: txn.get("thing", "k"), label="test", deadline_s=0.5)
        with pytest.raises(Ambiguous):
            datastore.transact(lambda txn: txn.put("thing", doc("k")), label="test", deadline_s=0.5)
        assert SystemClock().monotonic() - began < 5.0
    finally:
        emulator.resume()
    assert datastore.get("thing", "k") == [doc("k")]


@pytest.mark.slow
def test_store_goes_on_by_itself_when_the_service_was_killed(emulator, datastore):
    emulator.kill()
    with pytest.raises(Outage):
        datastore.get("thing", "k")
    emulator.start()
    put(datastore, "thing", doc("k"))
    assert datastore.get("thing", "k") == [doc("k")]


@pytest.mark.slow
def test_loop_runs_on_while_a_call_takes_long(emulator, address):
    """In a process of its own: gRPC waits in greenlets for the whole of a process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.datastore_loop", address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "open\n"
        emulator.pause()
        try:
            print("go", file=child.stdin, flush=True)
            line = child.stdout.readline().split()
        finally:
            emulator.resume()
        assert line[0] == "Outage"
        assert int(line[1]) > 50
        assert child.wait(20.0) == 0


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("datastore://[x", "not like datastore://project"),
        ("datastore://x", "'x' is not the id of a Google Cloud project"),
        ("datastore://project/Upper", "'Upper' is not the id of a Datastore database"),
        ("datastore://project?namespace=a&namespace=b", "nothing but"),
        ("datastore://project?name=a", "nothing but"),
        ("datastore://project?namespace", "nothing but"),
        ("datastore://project?namespace=__a", "'__a' is not a namespace"),
        ("datastore://project?namespace=a%20b", "'a b' is not a namespace"),
    ],
)
def test_address_is_refused_in_one_line_when_it_is_none(address, problem):
    with pytest.raises(StoreError, match=problem) as caught:
        engines.open_address(address, None, Threads(), SystemClock(), SystemRng())
    assert "\n" not in str(caught.value)


NAMES = st.text(st.sampled_from("_a!\0\n"), min_size=1, max_size=8)


@given(NAMES, NAMES)
def test_names_are_never_reserved_and_compare_as_their_keys(one, other):
    assert to_key(to_name(one)) == one
    assert not re.fullmatch("__.*__", to_name(one), re.DOTALL)
    assert (to_name(one) < to_name(other)) == (one < other)
