"""Transactions run on the whole family of stores."""

import pytest

from tests.transactions.stores import FAMILY, store_of


@pytest.fixture(params=FAMILY)
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store
