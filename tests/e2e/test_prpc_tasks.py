"""Many tasks and much output over the public API of a real server, with a real bot."""

import http.client
import sys
import urllib.parse

import pytest
from swarmingpb import swarming_pb2 as pb

from tests.e2e.fleet import running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BINARY = "application/prpc; encoding=binary"
MAX = 16_384_000
MANY = 60
LONG_AGO = 1_600_000_000


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("prpc-tasks"), "bot1") as fleet:
        fleet.api.until_idle("bot1")
        yield fleet


@pytest.fixture
def ask(fleet):
    """Calls a method of `Tasks` in binary over one connection; the reply's bytes."""
    url = urllib.parse.urlsplit(fleet.api.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)

    def call(method, message, reply):
        headers = {"Authorization": f"Bearer {fleet.api.key}", "Content-Type": BINARY}
        path = f"/prpc/swarming.v2.Tasks/{method}"
        connection.request("POST", path, message.SerializeToString(), headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.headers["X-Prpc-Grpc-Code"] == "0", body
        return reply.FromString(body)

    yield call
    connection.close()


def make(ask, *command, pool="default", wait=False, tags=()):
    slice_ = pb.TaskSlice(
        expiration_secs=600,
        wait_for_capacity=wait,
        properties=pb.TaskProperties(
            command=command,
            dimensions=[pb.StringPair(key="pool", value=pool)],
            execution_timeout_secs=120,
            grace_period_secs=30,
        ),
    )
    asked = pb.NewTaskRequest(name="t", priority=100, task_slices=[slice_], tags=tags)
    return ask("NewTask", asked, pb.TaskRequestMetadataResponse).task_id


@pytest.mark.spec("prpc:6.7.p2", "prpc:10.p5")
def test_one_reply_holds_as_much_output_as_may_be(fleet, ask):
    line = "0123456789abcde"
    count = (MAX + 100_000) // 16
    program = f"import sys; sys.stdout.write('{line}\\n' * {count})"
    task_id = make(ask, sys.executable, "-c", program)
    fleet.api.until(task_id, "COMPLETED")
    asked = pb.TaskIdWithOffsetRequest(task_id=task_id)
    first = ask("GetStdout", asked, pb.TaskOutputResponse)
    asked = pb.TaskIdWithOffsetRequest(task_id=task_id, offset=MAX)
    rest = ask("GetStdout", asked, pb.TaskOutputResponse)
    assert (len(first.output), first.state) == (MAX, pb.COMPLETED)
    assert first.output + rest.output == f"{line}\n".encode() * count


@pytest.mark.spec("prpc:6.3.p1", "prpc:6.6.p1", "prpc:6.8.p1", "prpc:6.9.p1", "prpc:6.10.p1")
@pytest.mark.spec("prpc:6.11.p1")
def test_long_pages_are_made_beside_the_loop_and_many_tasks_canceled_at_once(ask):
    tags = ["job:many"]
    made = [
        make(ask, "true", pool="elsewhere", wait=True, tags=[*tags, f"n:{number}"])
        for number in range(MANY)
    ]
    asked = pb.TasksWithPerfRequest(limit=1000, tags=tags, include_performance_stats=True)
    listed = ask("ListTasks", asked, pb.TaskListResponse)
    assert {item.task_id for item in listed.items} == set(made)
    assert not listed.cursor
    asked = pb.TasksRequest(limit=MANY, tags=tags)
    requests = ask("ListTaskRequests", asked, pb.TaskRequestsResponse)
    assert [item.task_id for item in requests.items] == [item.task_id for item in listed.items]
    assert requests.cursor
    batch = ask(
        "BatchGetResult", pb.BatchGetResultRequest(task_ids=made), pb.BatchGetResultResponse
    )
    assert [each.result.task_id for each in batch.results] == made
    count = pb.TasksCountRequest(start={"seconds": LONG_AGO}, tags=tags)
    assert ask("CountTasks", count, pb.TasksCount).count == MANY
    canceled = ask("CancelTasks", pb.TasksCancelRequest(tags=tags), pb.TasksCancelResponse)
    assert canceled.matched == MANY

    def are_canceled():
        states = ask("ListTaskStates", pb.TaskStatesRequest(task_id=made), pb.TaskStates).states
        return set(states) == {pb.CANCELED}

    wait_until("all are canceled", are_canceled)
    assert ask("CountTasks", count, pb.TasksCount).count == 0
