"""The memory engine, plain and wrapped, passes the suite."""

from contextlib import closing

import pytest

from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance


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
