"""Transactions run on the whole family of stores."""

import pytest

from tests.transactions.stores import FAMILY, open_store


@pytest.fixture(params=FAMILY)
def store(request, tmp_path, clock, rng):
    with open_store(request.param, tmp_path / "store", clock, rng) as store:
        yield store
