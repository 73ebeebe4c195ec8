"""The simulation over real engines: no promise breaks, and none differs from the memory store."""

import pytest

from tests.sim.campaign import ENGINE_CHUNK, campaign, one
from tests.sim.engines import Databases, Differs

POSTGRES_SEEDS, EMULATOR_SEEDS, SQLITE_SEEDS = 200, 50, 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def holds(address, seeds):
    total = campaign(0, seeds, jobs=2, address=address)
    print(total.report())  # noqa: T201
    assert total.seeds == seeds
    assert not total.found, "\n".join(total.found)
    assert total.faults["run twice"] > 0
    assert total.states["COMPLETED"] > ENGINE_CHUNK


def test_sim_seeds_on_sqlite(tmp_path):
    holds(f"sqlite:{tmp_path}", SQLITE_SEEDS)


def test_sim_seeds_on_postgres(postgres_dsn):
    holds(postgres_dsn, POSTGRES_SEEDS)


def test_sim_seeds_on_emulator(emulator):
    holds(emulator.new_address(), EMULATOR_SEEDS)


def test_sim_finds_an_engine_that_forgets(tmp_path):
    """One document fewer than there should be, or a write that never came: the run says so."""

    class Forgetful(Databases):
        def open(self, address):
            store = super().open(address)
            attempt = store.attempt

            def forget(fn, *, timeout_s):
                return attempt(lambda txn: fn(Deaf(txn)), timeout_s=timeout_s)

            store.attempt = forget
            return store

    class Deaf:
        def __init__(self, txn):
            self._txn = txn
            self.get, self.heads, self.notify = txn.get, txn.heads, txn.notify
            self.put, self.insert, self.expired = txn.put, txn.insert, txn.expired

        def delete(self, kind, key):
            if kind != "pend":
                self._txn.delete(kind, key)

    with pytest.raises(Differs, match="pend"):
        one(3, Forgetful(f"sqlite:{tmp_path}"))
