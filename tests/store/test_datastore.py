"""The Datastore engine: the suite, plain and wrapped, and what only this service has."""

from contextlib import closing

import pytest

from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore
from tests.store.conformance import StoreConformance

pytestmark = pytest.mark.slow


def opened(address):
    return closing(engines.open_address(address, None, Threads(), SystemClock(), SystemRng()))


@pytest.fixture
def address(emulator):
    return emulator.new_address()


@pytest.fixture
def datastore(address):
    with opened(address) as store:
        yield store


class TestDatastoreStore(StoreConformance):
    model_examples = 4
    model_steps = 12
    many = 600
    patience_s = 0.1

    @pytest.fixture
    def store(self, datastore):
        return datastore


class TestDatastoreStoreTwice(StoreConformance):
    model_examples = 3
    model_steps = 10
    many = 600

    @pytest.fixture
    def store(self, datastore):
        return TwiceStore(datastore)


class TestDatastoreStoreFaulty(StoreConformance):
    model_examples = 3
    model_steps = 10
    many = 600

    @pytest.fixture
    def store(self, datastore):
        return FaultyStore(datastore, seed=1, before=0.1)
