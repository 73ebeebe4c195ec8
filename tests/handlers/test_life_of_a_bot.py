"""The whole conversation of one bot and one task, call by call (bot-api 12)."""

import pytest

from botapi.domain.matching import shard
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.create_task import create_task
from tests.factories import make_request, make_slice
from tests.transactions.stores import FAMILY, store_of


@pytest.fixture(params=FAMILY)
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store


def stored_task(parts, request):
    (doc,) = parts.store.get(codec.TASK, codec.task_key(request.task_id))
    return codec.read_task(doc)


def stored_bot(parts, bot_id="vm1"):
    (doc,) = parts.store.get(codec.BOT, join_key(bot_id))
    return codec.read_bot(doc)


def output_of(parts, request):
    docs = parts.store.scan(codec.OUT, *codec.output_range(request.task_id), limit=1000)
    return b"".join(codec.read_output(doc)[1] for doc in docs)


def events_of(parts, bot_id="vm1"):
    docs = parts.store.scan(codec.EVENT, join_key(bot_id) + "!", join_key(bot_id) + '"', limit=100)
    return [codec.read_event(doc).kind for doc in reversed(docs)]


def submit(parts, number=1, **more):
    request = make_request(number, now_ms=parts.clock.now_ms(), **more)
    create_task(parts.store, request, request_uuid="")
    return request


@pytest.mark.spec(
    "1.3.3.1", "1.3.3.2", "1.3.3.7", "1.3.3.8", "1.3.p2", "3.5.1.1", "3.5.1.2", "3.5.1.3"
)
def test_handshake_gives_session_group_and_lease_settings(make_bot):
    reply = make_bot("vm7").handshake()
    assert reply["bot_group_cfg"] == {"dimensions": {"pool": ["default"]}}
    assert reply["rbe"] == {
        "instance": "projects/local/instances/default",
        "hybrid_mode": False,
        "sleep": 0,
        "poll_token": "legacy",
    }
    assert reply["skep"] == {"v": 1, "contact_s": 300.0, "poll_s": 120.0}
    assert len(reply["bot_version"]) == 64


def test_task_runs_once_from_lease_to_completion(parts, bot):
    request = submit(parts)
    lease = bot.next_lease()
    assert lease["state"] == "PENDING"
    assert lease["payload"]["task_id"] == request.task_id
    claimed = bot.claim(lease)
    assert claimed["cmd"] == "run"
    manifest = claimed["manifest"]
    assert manifest["command"] == ["/bin/true"]
    assert manifest["bot_dimensions"]["pool"] == ["default"]
    assert stored_bot(parts).task_id == claimed["task_id"]
    run_id = claimed["task_id"]
    assert bot.task_update(run_id) == {
        "ok": True,
        "must_stop": False,
        "session": bot.session,
    }
    assert bot.task_update(run_id, b"hello ", 0)["ok"]
    reply = bot.finish(run_id, b"world", 6)
    assert reply["ok"] is True
    assert reply["must_stop"] is False
    task = stored_task(parts, request)
    assert (task.state, task.exit_code, task.bot_id) == ("COMPLETED", 0, "vm1")
    assert task.output_bytes == 11
    assert output_of(parts, request) == b"hello world"
    assert stored_bot(parts).task_id == ""
    assert events_of(parts) == ["bot_connected", "bot_polling", "request_task", "task_completed"]


@pytest.mark.spec("1.1.3.3")
def test_claim_answers_the_same_when_its_reply_was_lost(parts, bot):
    submit(parts)
    lease = bot.next_lease()
    first = bot.claim(lease)
    again = bot.claim(lease)
    assert again["manifest"] == first["manifest"]
    assert events_of(parts).count("request_task") == 1


def test_claim_skips_when_the_slice_was_offered_to_another_bot(parts, bot, make_bot):
    submit(parts)
    lease = bot.next_lease()
    other = make_bot("vm2").start()
    assert other.claim(lease) == {"cmd": "skip", "reason": 'offered to "vm1"'}
    assert bot.claim(lease)["cmd"] == "run"
    assert other.claim(lease) == {
        "cmd": "skip",
        "reason": f'already claimed by "vm1:{lease["id"]}"',
    }


def test_claim_skips_when_the_bot_does_not_fit(parts, make_bot, bot):
    dimensions = {"pool": ("default",), "os": ("Plan9",)}
    request = submit(parts, slices=[make_slice(dimensions=dimensions)])
    bot.update()
    place = {"task_to_run_id": 1, "task_to_run_shard": shard(dimensions)}
    reply = bot.call("/claim", claim_id="x", task_id=request.task_id, **place)
    assert reply == {
        "cmd": "skip",
        "reason": "dimensions mismatch: the slice asks for os:Plan9",
    }


@pytest.mark.spec("1.1.3.7", "3.5.1.7")
def test_lease_is_offered_again_when_its_reply_was_lost(parts, bot):
    submit(parts)
    lease = bot.next_lease()
    assert bot.next_lease() == lease


@pytest.mark.spec("3.5.1.10")
def test_lease_completed_without_claim_comes_back_with_its_retry_counted(parts, bot):
    submit(parts)
    lease = bot.next_lease()
    done = {"id": lease["id"], "state": "COMPLETED", "result": {"bot_internal_error": "no disk"}}
    again = bot.next_lease(lease=done)
    assert again["id"] == lease["id"][:-1] + "1"


@pytest.mark.spec("3.5.1.6", "13.1.18")
def test_task_dies_when_bots_drop_its_lease_four_times(parts, bot):
    request = submit(parts)
    done = None
    for _ in range(4):
        lease = bot.next_lease(**({"lease": done} if done else {}))
        done = {"id": lease["id"], "state": "COMPLETED", "result": {"bot_internal_error": "x"}}
    assert "lease" not in bot.update(lease=done)
    task = stored_task(parts, request)
    assert (task.state, task.internal_failure) == ("BOT_DIED", True)
    assert task.error == "vm1 dropped the lease: x"


@pytest.mark.spec("1.11.3.2", "3.5.1.12")
def test_lease_goes_to_another_bot_when_the_session_is_closed(parts, bot, make_bot):
    submit(parts)
    bot.update(nonblocking=False)
    assert bot.update("BOT_TERMINATING")["status"] == "OK"
    assert bot.update("OK")["status"] == "BOT_TERMINATING"
    assert make_bot("vm2").start().next_lease()["state"] == "PENDING"


@pytest.mark.spec("1.11.4.1")
def test_completing_lease_brings_the_next_one_in_the_same_call(parts, bot):
    submit(parts, 1)
    second = submit(parts, 2)
    lease = bot.next_lease()
    bot.work(lease)
    done = {"id": lease["id"], "state": "COMPLETED", "result": {}}
    following = bot.next_lease(lease=done)
    assert following["payload"]["task_id"] == second.task_id


def test_slices_go_by_priority_then_age(parts, bot):
    late = submit(parts, 1, priority=100)
    urgent = submit(parts, 2, priority=50)
    taken = []
    for _ in range(2):
        lease = bot.next_lease()
        taken.append(lease["payload"]["task_id"])
        bot.work(lease)
    assert taken == [urgent.task_id, late.task_id]


@pytest.mark.spec("3.5.1.13")
def test_lease_session_answers_terminating_when_it_is_unknown(bot):
    old = bot.session
    bot.open_lease_session()
    bot.session = old
    reply = bot.update()
    assert reply["status"] == "BOT_TERMINATING"
    assert "lease" not in reply


@pytest.mark.spec("1.11.4.2", "3.5.1.11")
def test_active_lease_is_confirmed_while_the_task_runs_and_lost_afterwards(parts, bot):
    submit(parts)
    lease = bot.next_lease()
    run_id = bot.claim(lease)["task_id"]
    active = {"id": lease["id"], "state": "ACTIVE"}
    assert bot.update(lease=active, nonblocking=False)["lease"] == active
    bot.finish(run_id)
    assert "lease" not in bot.update(lease=active, nonblocking=False)


def test_output_with_a_gap_is_refused_with_the_stored_length(parts, bot):
    request = submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    bot.task_update(run_id, b"12345", 0)
    bot.task_update(run_id, b"gap", 9)
    assert bot.status == 409
    assert bot.headers["X-Skep-Committed"] == "5"
    assert bot.text == "output_chunk_start: 5 bytes are stored, send from there"
    assert output_of(parts, request) == b"12345"
    assert bot.finish(run_id, b"gap", 9) == {}
    assert bot.status == 409
    assert stored_task(parts, request).state == "RUNNING"


def test_output_repeated_and_overlapping_is_stored_once(parts, bot):
    request = submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    bot.task_update(run_id, b"abcdef", 0)
    bot.task_update(run_id, b"abcdef", 0)
    bot.task_update(run_id, b"defghi", 3)
    bot.finish(run_id, b"hi!", 7)
    assert output_of(parts, request) == b"abcdefghi!"


def test_missing_output_of_a_foreign_bot_is_stated_at_the_end(parts, make_bot):
    bot = make_bot(ours=False).start()
    request = submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    bot.task_update(run_id, b"abc", 0)
    bot.finish(run_id, b"xyz", 10)
    task = stored_task(parts, request)
    assert (task.state, task.output_bytes, task.missing_bytes) == ("COMPLETED", 6, 7)


def test_completion_repeated_after_a_lost_reply_changes_nothing(parts, bot):
    request = submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    bot.finish(run_id, b"a")
    before = stored_task(parts, request)
    assert bot.finish(run_id, b"a") == {"ok": False, "must_stop": False}
    assert stored_task(parts, request) == before


def test_task_error_ends_the_task_as_bot_died(parts, bot):
    request = submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    body = {"task_id": run_id, "message": "no disk", "client_error": {"missing_cas": []}}
    assert bot.call(f"/task_error/{run_id}", **body) == {}
    assert bot.text == "{}\n"
    task = stored_task(parts, request)
    assert (task.state, task.internal_failure, task.error) == ("BOT_DIED", True, "no disk")
    assert events_of(parts)[-1] == "task_error"


@pytest.mark.spec("3.6.p1")
def test_poll_abandons_the_task_that_is_still_recorded(parts, bot):
    request = submit(parts)
    bot.claim(bot.next_lease())
    assert bot.poll()["cmd"] == "rbe"
    assert stored_task(parts, request).state == "BOT_DIED"


def test_poll_that_is_older_than_the_claim_is_refused_and_harmless(parts, bot):
    request = submit(parts)
    bot.claim(bot.next_lease())
    bot.seq = 1
    bot.poll()
    assert bot.status == 409
    assert stored_task(parts, request).state == "RUNNING"


@pytest.mark.spec("1.1.3.2")
def test_poll_of_a_foreign_bot_repeated_after_its_claim_is_harmless(parts, make_bot):
    bot = make_bot(ours=False).start()
    bot.poll(request_uuid="11111111-2222")
    request = submit(parts)
    bot.claim(bot.next_lease())
    assert bot.poll(request_uuid="11111111-2222")["cmd"] == "rbe"
    assert stored_task(parts, request).state == "RUNNING"


def test_idle_poll_writes_nothing(parts, bot):
    bot.state["rbe_idle"] = True
    bot.poll()
    before = parts.store.scan(codec.BOT, "", "\U0010ffff", limit=10)
    events = events_of(parts)
    parts.clock.advance(100)
    bot.state["free_mb"] = 12
    bot.poll()
    assert parts.store.scan(codec.BOT, "", "\U0010ffff", limit=10) == before
    assert events_of(parts) == events
    assert parts.last_seen.get("vm1")["vm1"].state["free_mb"] == 12


def test_output_is_base64_or_refused(parts, bot):
    submit(parts)
    run_id = bot.claim(bot.next_lease())["task_id"]
    bot.call(f"/task_update/{run_id}", task_id=run_id, output="%%%", output_chunk_start=0)
    assert bot.status == 400
    assert bot.text == "rpc error: code = InvalidArgument desc = output: not base64\n"
