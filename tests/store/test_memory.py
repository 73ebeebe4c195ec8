"""The memory engine, plain and wrapped, passes the suite."""

from contextlib import closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Ambiguous, Conflict, Outage
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance
from tests.store.conformance.retries import Failing


@pytest.fixture
def memory():
    with closing(MemoryStore(Threads(), SystemClock())) as store:
        yield store


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self, memory):
        return memory


class TestMemoryStoreTwice(StoreConformance):
    @pytest.fixture
    def store(self, memory):
        return TwiceStore(memory)


class TestMemoryStoreFaulty(StoreConformance):
    @pytest.fixture
    def store(self, memory):
        return FaultyStore(memory, seed=1, before=0.1)


@pytest.mark.parametrize("error", [Conflict, Outage])
def test_outcome_stays_unknown_when_no_later_try_commits(memory, error):
    failing = Failing(memory, [Ambiguous("no answer"), *[error("later")] * 1_000_000])
    with pytest.raises(Ambiguous, match="no answer; tried again: later"):
        failing.transact(lambda txn: None, label="test", deadline_s=0.05)
    assert failing.tries > 1
