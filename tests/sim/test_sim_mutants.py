"""Every seeded bug is found, each within a few hundred seeds: the checker checks."""

import pytest

from tests.sim.campaign import hunt
from tests.sim.mutants import MUTANTS, Edit, MutantError

LIMIT = 500
RULES = {
    *("T1", "T2", "C1", "C2", "C3", "C4", "C5", "C6", "S1", "S2", "F1", "K1", "K2", "K3"),
    *("O1", "O2", "O3", "E1", "Q1", "L1", "L2", "D1", "X1", "P1", "R1", "R2"),
}


def test_every_rule_has_a_mutant():
    assert set().union(*(mutant.rules for mutant in MUTANTS.values())) >= RULES


def test_mutant_of_code_that_is_gone_says_so():
    with pytest.raises(MutantError, match="not there any more"):
        Edit("botapi.domain.claim:nothing", "a", "b").function()
    function = Edit("botapi.domain.claim:decide", "", "").function()
    with pytest.raises(MutantError, match="0 times"):
        Edit("botapi.domain.claim:decide", "no such text", "b").apply(function.__doc__)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_found(name, record_property):
    seeds = hunt(name, LIMIT)
    record_property("seeds", seeds)
    print(f"{name}: found after {seeds} seeds")  # noqa: T201
    assert seeds, f"{name} breaks {sorted(MUTANTS[name].rules)}, and nobody saw it"
