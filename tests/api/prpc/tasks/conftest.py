"""A caller of `Tasks`, and tasks to ask about, on a store with a file behind it."""

import pytest

from botapi import engines
from botapi.concurrency import Threads
from tests.fakes.prpc_client import PrpcClient
from tests.fakes.prpc_tasks import Tasks


@pytest.fixture
def store(settings, clock, rng):
    store = engines.open_store(settings, Threads(), clock, rng)
    yield store
    store.close()


@pytest.fixture
def swarming(client, admin_key):
    """Calls `Tasks` as somebody who may do everything."""
    return PrpcClient(client, admin_key)


@pytest.fixture
def tasks(swarming, parts, make_bot, clock):
    """Tasks in every state."""
    return Tasks(swarming, parts, make_bot, clock)
