"""Thousands of seeds without a single broken promise; the same seed is the same history."""

import pytest

from tests.sim.campaign import campaign, digest_elsewhere
from tests.sim.run import Sim

AT_LEAST = 5_000
UNTIL_S = 110.0
JOBS = 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_promise_breaks_in_as_many_seeds_as_fit():
    total = campaign(0, 20 * AT_LEAST, jobs=JOBS, at_least=AT_LEAST, until_s=UNTIL_S)
    print(total.report())  # noqa: T201
    assert total.seeds >= AT_LEAST
    assert not total.found, "\n".join(total.found)
    assert set(total.states) >= {"COMPLETED", "CANCELED", "KILLED", "EXPIRED", "BOT_DIED"}
    assert set(total.states) >= {"TIMED_OUT", "NO_RESOURCE"}
    assert min(total.faults[name] for name in FAULTS) > 0


FAULTS = (
    "ambiguous after",
    "ambiguous before",
    "bot crashed",
    "clock step",
    "conflict",
    "cut off",
    "delayed",
    "doubled",
    "hint lost",
    "outage",
    "process paused",
    "reply lost",
    "request lost",
    "run twice",
    "second process",
    "slow commit",
    "server killed",
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 17, 400])
def test_seed_gives_the_same_history_in_every_interpreter(seed):
    here = Sim(seed).run().history.digest()
    assert digest_elsewhere(seed, 0) == digest_elsewhere(seed, 1) == here
    assert Sim(seed + 1).run().history.digest() != here
