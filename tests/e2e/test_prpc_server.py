"""The public API of a real server: gunicorn, its connections, compression, a real bot."""

import gzip
import http.client
import json
import urllib.parse

import pytest
from swarmingpb import swarming_pb2 as pb

from tests.e2e.fleet import running_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BINARY = "application/prpc; encoding=binary"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(
        tmp_path_factory.mktemp("prpc"), "bot1", SKEP_CORS_ORIGINS="https://ui.example.com"
    ) as fleet:
        fleet.api.until_idle("bot1")
        yield fleet


@pytest.fixture
def connection(fleet):
    url = urllib.parse.urlsplit(fleet.api.url)
    made = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    yield made
    made.close()


def post(fleet, connection, method, body, **headers):
    """Status, headers and body over one connection, which stays open."""
    sent = {"Authorization": f"Bearer {fleet.api.key}", "Content-Type": BINARY}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", f"/prpc/swarming.v2.{method}", body, sent)
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read()


@pytest.mark.spec("prpc:1.1.p1", "prpc:1.1.1.6", "prpc:1.1.1.7", "prpc:1.5.1.1", "prpc:10.p1")
def test_one_connection_carries_both_encodings_and_compression(fleet, connection):
    asked = pb.BotRequest(bot_id="bot1").SerializeToString()
    status, headers, body = post(fleet, connection, "Bots/GetBot", asked)
    assert (status, headers["X-Prpc-Grpc-Code"], headers["Content-Type"]) == (200, "0", BINARY)
    found = pb.BotInfo.FromString(body)
    assert found.bot_id == "bot1"
    json.loads(found.state)
    status, headers, packed = post(
        fleet,
        connection,
        "Bots/GetBot",
        gzip.compress(b'{"botId":"bot1"}'),
        Content_Type="application/json",
        Content_Encoding="gzip",
        Accept="application/json",
        Accept_Encoding="gzip",
    )
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    text = gzip.decompress(packed).decode()
    assert text.startswith(")]}'\n")
    assert json.loads(text[5:])["botId"] == "bot1"
    status, headers, body = post(fleet, connection, "Bots/Nothing", b"")
    assert (status, headers["X-Prpc-Grpc-Code"]) == (501, "12")


@pytest.mark.spec("prpc:6.1.p1", "prpc:6.2.p1", "prpc:6.7.p1", "prpc:5.5.p1")
def test_task_from_the_first_call_to_its_output(fleet, connection):
    slice_ = pb.TaskSlice(
        expiration_secs=600,
        properties=pb.TaskProperties(
            command=["sh", "-c", "echo hello"],
            dimensions=[pb.StringPair(key="pool", value="default")],
            execution_timeout_secs=60,
            grace_period_secs=30,
        ),
    )
    asked = pb.NewTaskRequest(name="hello", priority=100, task_slices=[slice_])
    status, _, body = post(fleet, connection, "Tasks/NewTask", asked.SerializeToString())
    assert status == 200, body
    task_id = pb.TaskRequestMetadataResponse.FromString(body).task_id
    fleet.api.until(task_id, "COMPLETED")
    asked = pb.TaskIdWithOffsetRequest(task_id=task_id).SerializeToString()
    _, _, body = post(fleet, connection, "Tasks/GetStdout", asked)
    output = pb.TaskOutputResponse.FromString(body)
    assert (output.output, output.state) == (b"hello\n", pb.COMPLETED)
    asked = pb.BotTasksRequest(
        bot_id="bot1", state=pb.QUERY_ALL, sort=pb.QUERY_STARTED_TS, include_performance_stats=True
    )
    _, _, body = post(fleet, connection, "Bots/ListBotTasks", asked.SerializeToString())
    (item, *_) = pb.TaskListResponse.FromString(body).items
    assert (item.task_id, item.name, item.bot_id) == (task_id, "hello", "bot1")


@pytest.mark.spec("prpc:1.1.p1")
def test_body_over_the_limit_ends_the_connection(fleet, connection):
    connection.putrequest("POST", "/prpc/swarming.v2.Bots/GetBot")
    for name, value in (
        ("Authorization", f"Bearer {fleet.api.key}"),
        ("Content-Type", BINARY),
        ("Content-Length", str(64 * 1024 * 1024 + 1)),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    assert (reply.status, reply.headers["X-Prpc-Grpc-Code"]) == (503, "14")
    assert reply.read() == b"the body is larger than 67108864 bytes\n"
    assert reply.will_close


@pytest.mark.spec("prpc:1.6.p1", "prpc:1.6.1.1")
def test_preflight_of_an_allowed_page(fleet, connection):
    connection.request(
        "OPTIONS", "/prpc/swarming.v2.Bots/GetBot", headers={"Origin": "https://ui.example.com"}
    )
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (200, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == "https://ui.example.com"
