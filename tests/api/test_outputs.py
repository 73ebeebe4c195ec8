"""`GET /tasks/<id>/output`: from any offset, without a gap."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botapi.api import outputs
from botapi.store import codec

HEADERS = ("X-Skep-Offset", "X-Skep-Next-Offset", "X-Skep-Task-State", "X-Skep-Final")


@pytest.fixture
def running(admin, ready_bot):
    """A running task: its id, its run id, its bot."""
    task_id = admin.submit("x")["task_id"]
    run_id = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    return task_id, run_id, ready_bot


def read(admin, task_id, query=""):
    reply = admin.get(f"/tasks/{task_id}/output{query}")
    assert reply.status_code == 200, reply.text
    assert reply.content_type == "application/octet-stream"
    return reply.data, tuple(reply.headers[name] for name in HEADERS)


def test_output_of_a_pending_task_is_empty(admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    assert read(admin, task_id) == (b"", ("0", "0", "PENDING", "0"))


def test_output_grows_and_ends(admin, running):
    task_id, run_id, bot = running
    bot.task_update(run_id, b"hello ")
    assert read(admin, task_id) == (b"hello ", ("0", "6", "RUNNING", "0"))
    bot.task_update(run_id, b"\x00\xff", 6)
    assert read(admin, task_id, "?offset=6") == (b"\x00\xff", ("6", "8", "RUNNING", "0"))
    bot.finish(run_id, b"end", 8)
    assert read(admin, task_id, "?offset=8") == (b"end", ("8", "11", "COMPLETED", "1"))
    assert read(admin, task_id, "?offset=11") == (b"", ("11", "11", "COMPLETED", "1"))
    assert read(admin, task_id, "?offset=4&limit=3") == (b"o \x00", ("4", "7", "COMPLETED", "0"))


def test_offset_behind_the_end_is_empty(admin, running):
    task_id, run_id, bot = running
    bot.finish(run_id, b"abc")
    assert read(admin, task_id, "?offset=100") == (b"", ("100", "100", "COMPLETED", "1"))


@pytest.mark.parametrize(
    "query",
    ["offset=-1", "offset=x", "limit=0", "limit=1048577", "wait=21", "wait=-1", "wait=x", "of=1"],
)
def test_wrong_query_is_400(admin, query):
    reply = admin.get(f"/tasks/76d045a8f1001990/output?{query}")
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_argument")


def store_pieces(store, task_id, pieces):
    offset = 0
    docs = []
    for piece in pieces:
        docs.append((codec.OUT, codec.output_doc(task_id, offset, piece)))
        offset += len(piece)
    store.write_many(docs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=60),
    offset=st.integers(0, 300),
    limit=st.integers(1, 300),
)
def test_any_part_of_any_pieces_is_the_same_bytes(parts, admin, ready_bot, pieces, offset, limit):
    task_id = admin.submit("x")["task_id"]
    store_pieces(parts.store, task_id, pieces)
    found = outputs.read_output(parts.api, task_id, offset, limit)
    assert found.data == b"".join(pieces)[offset : offset + limit]


def test_nothing_behind_a_gap_is_given(parts, admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    parts.store.write_many(
        (codec.OUT, codec.output_doc(task_id, at, data)) for at, data in ((0, b"ab"), (3, b"d"))
    )
    assert outputs.read_output(parts.api, task_id, 0).data == b"ab"


def test_missing_bytes_are_stated(admin, make_bot):
    bot = make_bot("vm9", ours=False).start()
    task_id = admin.submit("x", dimensions={"id": ["vm9"]})["task_id"]
    run_id = bot.claim(bot.update()["lease"])["task_id"]
    bot.finish(run_id, b"late", 10)
    task = admin.get(f"/tasks/{task_id}").json
    assert (task["output_bytes"], task["missing_bytes"]) == (4, 10)
    assert read(admin, task_id) == (b"late", ("0", "4", "COMPLETED", "1"))
