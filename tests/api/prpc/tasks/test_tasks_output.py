"""GetStdout: everything that is there, up to the length asked for (prpc-api 6.7)."""

import base64

import pytest

from botapi.api.prpc import task_reads
from botapi.domain.task import TaskState
from botapi.store import codec
from tests.fakes.prpc_tasks import ADMIN, direct, one_slice

MAX = 16_384_000


def read(swarming, task_id, **more):
    """The bytes and the state, asked in both encodings."""
    answer = swarming("GetStdout", {"taskId": task_id} | more)
    assert not answer.code, answer.text
    return base64.b64decode(answer.reply.get("output", "")), answer.reply["state"]


@pytest.mark.spec("prpc:6.7.p1", "prpc:10.p5", "11.4.1.7", "5.4.1.2")
def test_output_is_cut_at_the_byte_also_within_a_character(tasks, swarming):
    text = "é€😀".encode()
    task_id = tasks.finished(output=text)
    for offset in range(len(text) + 2):
        for length in (1, 4, 99):
            expected = text[offset : offset + length]
            assert read(swarming, task_id, offset=offset, length=length) == (expected, "COMPLETED")


@pytest.mark.spec("prpc:6.7.p1")
def test_output_is_absent_where_there_is_none(tasks, swarming):
    run_id, bot = tasks.claimed()
    assert swarming("GetStdout", {"taskId": run_id}).reply == {"state": "RUNNING"}
    bot.task_update(run_id, b"abc")
    assert swarming("GetStdout", {"taskId": run_id, "offset": "3"}).reply == {"state": "RUNNING"}
    far = {"taskId": run_id, "offset": str(2**63 - 1)}
    assert swarming("GetStdout", far).reply == {"state": "RUNNING"}
    assert swarming("GetStdout", {"taskId": tasks.made()}).reply == {"state": "PENDING"}


@pytest.mark.spec("prpc:6.7.p1")
@pytest.mark.parametrize("wrong", [{"offset": -1}, {"length": -1}, {"offset": "-5", "length": 3}])
def test_negative_offset_and_length_are_refused_before_the_id_is_looked_at(swarming, wrong):
    for task_id in ("76d00eba71beef10", "nonsense"):
        code, text = swarming("GetStdout", {"taskId": task_id} | wrong).refused
        assert (code, "negative" in text) == (3, True)
    code, text = swarming("GetStdout", wrong).refused
    assert (code, "task_id" in text) == (3, True)


@pytest.mark.slow
@pytest.mark.spec("prpc:6.7.p2", "prpc:10.p5", "11.4.1.7")
def test_reply_is_full_up_to_the_most_and_the_rest_follows(tasks, swarming, parts):
    total = MAX + 300_000
    run_id, bot = tasks.claimed()
    block = bytes(range(256)) * 1000 + b"tail"
    written = bytearray()
    while len(written) < total:
        bot.task_update(run_id, block, len(written))
        assert bot.status == 200, bot.text
        written += block
    for asked in ({}, {"length": MAX}, {"length": MAX + 1}, {"length": str(2**62)}):
        found, state = read_binary(swarming, run_id, **asked)
        assert (len(found), state) == (MAX, "RUNNING")
        assert found == written[:MAX]
    middle, _ = read_binary(swarming, run_id, offset=12_345, length=MAX - 1)
    assert middle == written[12_345 : 12_345 + MAX - 1]
    rest, _ = read_binary(swarming, run_id, offset=MAX)
    assert rest == written[MAX:]


def read_binary(swarming, task_id, **more):
    answer = swarming.binary("GetStdout", {"taskId": task_id} | more)
    assert not answer.code, answer.text
    return answer.message.output, answer.reply["state"]


@pytest.mark.slow
@pytest.mark.spec("prpc:6.7.p2")
def test_many_small_pieces_make_one_full_reply(tasks, swarming):
    run_id, bot = tasks.claimed()
    for number in range(150):
        bot.task_update(run_id, b"%03d" % number, 3 * number)
    expected = b"".join(b"%03d" % number for number in range(150))
    assert read(swarming, run_id) == (expected, "RUNNING")
    assert read(swarming, run_id, offset=1, length=448) == (expected[1:449], "RUNNING")


@pytest.mark.spec("prpc:6.7.p2")
def test_final_state_comes_with_the_last_bytes(tasks, parts, monkeypatch):
    """A bot ends the task between the two reads: the old state is told, not a final one."""
    run_id, bot = tasks.claimed()
    bot.task_update(run_id, b"first ")
    real = task_reads.stored_output
    ends = [lambda: bot.finish(run_id, b"last", 6)]

    def read_late(*args):
        before = real(*args)
        if ends:
            ends.pop()()
            assert tasks.stored(run_id).state is TaskState.COMPLETED
        return before

    monkeypatch.setattr(task_reads, "stored_output", read_late)
    reply = direct(parts, ADMIN, "GetStdout", {"taskId": run_id})
    assert (reply.output, reply.state) == (b"first ", 16)
    reply = direct(parts, ADMIN, "GetStdout", {"taskId": run_id})
    assert (reply.output, reply.state) == (b"first last", 112)


@pytest.mark.spec("prpc:6.7.p1", "11.4.1.7")
def test_deduplicated_task_prints_what_the_original_printed(tasks, swarming, store):
    run_id, bot = tasks.claimed(one_slice(idempotent=True))
    bot.finish(run_id, b"printed once")
    task_id = tasks.made(one_slice(idempotent=True))
    assert read(swarming, task_id, offset=8) == (b"once", "COMPLETED")
    lo, hi = codec.output_range(task_id)
    assert store.scan_keys(codec.OUT, lo, hi, limit=1) == []
