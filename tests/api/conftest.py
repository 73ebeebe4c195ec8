"""Somebody who may do everything."""

import pytest

from tests.fakes.person import Person, new_key


@pytest.fixture
def admin_key(store, clock, rng):
    return new_key(store, clock, rng)


@pytest.fixture
def admin(client, admin_key):
    return Person(client, admin_key)


@pytest.fixture
def anybody(client):
    return Person(client)


@pytest.fixture
def ready_bot(make_bot):
    """A bot in the pool `default` that waits for work."""
    return make_bot("vm1").start()
