"""A server process that is paused and goes on does no harm: another has taken its duties over."""

import signal

import pytest

from tests.e2e.fleet import Api, descendants_of, kill, running_fleet, wait_until
from tests.halting import halt

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-paused")]

TASKS = 20
TAKEN_OVER_S = 30.0
"""Ten seconds until the duty is free, and time to do what has piled up."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Two servers without bots: whatever happens, time and the sweeper do it."""
    with running_fleet(tmp_path_factory.mktemp("paused")) as fleet:
        fleet.add_server().start()
        yield fleet


def processes(server):
    return [server.pid, *descendants_of(server.pid)]


def audited(api, task_ids):
    found = api.pages("/audit")
    of = {f"task {task_id}" for task_id in task_ids}
    return [
        entry["target"]
        for entry in found
        if entry["verb"] == "task.cancel" and entry["target"] in of
    ]


@pytest.mark.parametrize("paused", [0, 1])
def test_paused_server_is_replaced_and_does_no_harm_when_it_goes_on(fleet, paused):
    """One of the two sweeps; with each paused in turn, the sweeper is among them."""
    stopped, other = fleet.servers[paused], fleet.servers[1 - paused]
    api, api_of_stopped = Api(other.url, fleet.api.key), Api(stopped.url, fleet.api.key)
    tag = f"round:{paused}"
    made = [api.submit("true", tags=[tag], wait_for_capacity=True)["task_id"] for _ in range(TASKS)]
    frozen = processes(stopped)
    halt(*frozen)
    try:
        assert api.post("/tasks/cancel", {"tags": [tag]})["matched"] == TASKS
        for task_id in made:
            api.until(task_id, "CANCELED", limit_s=TAKEN_OVER_S)
    finally:
        for pid in reversed(frozen):
            kill(pid, signal.SIGCONT)
    wait_until("the paused server answers", lambda: api_of_stopped.task(made[0]))
    late = [api_of_stopped.submit("true", tags=[f"{tag}-late"], wait_for_capacity=True)["task_id"]]
    api_of_stopped.post("/tasks/cancel", {"tags": [f"{tag}-late"]})
    api_of_stopped.until(late[0], "CANCELED", limit_s=TAKEN_OVER_S)
    everything = [*made, *late]
    assert {api_of_stopped.task(task_id)["state"] for task_id in everything} == {"CANCELED"}
    entries = audited(api, everything)
    assert len(entries) == len(set(entries)) == len(everything)
