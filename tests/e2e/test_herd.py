"""A fleet that comes all at once: some are let in, the others come back spread over a minute."""

import time
from collections import Counter

import pytest

from bench.swarm_log import read_calls
from bench.swarms import Swarm
from botapi.admission import SPREAD_S
from tests.e2e.fleet import running_fleet, tell

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-herd")]

BOTS, WORKING = 320, 3
HASTE = 20
"""A minute of waiting takes three seconds."""
LIMIT_S = 90
REAL = {"SKEP_HOLD_MIN_S": "40", "SKEP_HOLD_MAX_S": "45", "SKEP_POLL_S": "120"}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every call of a fleet of which each bot has joined, and some have worked meanwhile."""
    folder = tmp_path_factory.mktemp("herd")
    with running_fleet(folder, **REAL) as fleet:
        for number in range(WORKING):
            dimensions = {"pool": ["sim"], "id": [f"sim-swarm-{number}"]}
            fleet.api.submit("/bin/true", dimensions=dimensions, wait_for_capacity=True)
        options = ("--working", str(WORKING), "--haste", str(HASTE))
        with Swarm(fleet.server.url, folder / "swarm", BOTS, *options) as swarm:
            tell(f"{BOTS} bots in {swarm.wait_all(time.monotonic(), LIMIT_S):.0f} s")
        assert "Traceback" not in fleet.server.text()
    found = read_calls(folder / "swarm")
    tell(str(Counter(f"{call.kind} {call.status}" for call in found)))
    return found


def test_every_bot_is_let_in_once_and_nothing_fails(calls):
    joined = Counter(call.kind for call in calls if call.status == 200)
    assert (joined["handshake"], joined["ask"]) == (BOTS, BOTS)
    assert {call.status for call in calls} <= {200, 429, 0}  # 0: still held at the end


def test_those_turned_away_come_back_spread_over_a_minute(calls):
    waits = [call.retry_after for call in calls if call.status == 429]
    assert len(waits) >= 30
    assert min(waits) >= 1
    assert max(waits) <= SPREAD_S
    thirds = Counter((wait - 1) * 3 // SPREAD_S for wait in waits)
    assert all(thirds[third] >= len(waits) // 8 for third in range(3)), thirds


def test_bots_with_work_are_not_turned_away(calls):
    reports = [call for call in calls if call.kind == "report"]
    assert len(reports) > WORKING
    assert {call.status for call in reports} <= {200, 0}
