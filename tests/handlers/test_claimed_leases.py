"""Leases that come claimed (docs/extensions.md): who gets one, and what a lost answer costs."""

import pytest

from botapi.store import codec
from botapi.transactions.bot_missing import run_missing
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.update_bot import Stamp
from tests.factories import make_slice
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.handlers.test_refusals import nothing_changes


@pytest.fixture
def bot(make_bot):
    return takes_claims(make_bot().start())


def takes_claims(bot):
    bot.heard = ""
    return bot


def ask(bot, **more):
    return bot.update(nonblocking=False, **more)


def offers_in(parts):
    return parts.store.scan(codec.OFFER, "", "~", limit=99)


def run_of(request):
    return request.task_id[:-1] + "1"


def test_lease_comes_with_the_answer_to_its_claim(parts, bot):
    request = submit(parts)
    reply = ask(bot)
    claim = reply["skep"]["claim"]
    assert reply["lease"]["id"] == f"local-{request.task_id}-0-0"
    assert (reply["lease"]["state"], reply["status"]) == ("PENDING", "OK")
    assert (claim["cmd"], claim["task_id"]) == ("run", run_of(request))
    assert claim["manifest"]["command"] == ["/bin/true"]
    assert claim["manifest"]["bot_id"] == "vm1"
    task = stored_task(parts, request)
    assert (task.state, task.bot_id, task.session_id) == ("RUNNING", "vm1", bot.session_id)
    assert task.claim_id == f"vm1:{reply['lease']['id']}"
    assert offers_in(parts) == []
    assert events_of(parts).count("request_task") == 1
    bot.finish(claim["task_id"], b"out")
    assert (bot.status, stored_task(parts, request).state) == (200, "COMPLETED")


def test_manifest_is_that_of_a_claim_that_the_bot_makes(parts, bot):
    request = submit(parts, slices=None)
    reply = ask(bot)
    again = bot.claim(reply["lease"])
    assert again["manifest"] == reply["skep"]["claim"]["manifest"]
    assert events_of(parts).count("request_task") == 1
    assert stored_task(parts, request).state == "RUNNING"


@pytest.mark.parametrize("ours", [True, False])
def test_bot_that_does_not_ask_for_it_claims_itself(parts, make_bot, ours):
    bot = make_bot(ours=ours).start()
    submit(parts)
    reply = ask(bot)
    assert "skep" not in reply
    assert len(offers_in(parts)) == 1
    assert bot.claim(reply["lease"])["cmd"] == "run"
    assert stored_bot(parts).given_lease == ""


def test_bot_claims_itself_where_a_round_would_hold_up_others(parts, bot):
    parts.offers.may_claim = False
    submit(parts)
    assert "skep" not in ask(bot)
    assert len(offers_in(parts)) == 1


def test_termination_task_comes_claimed(parts, bot):
    only = make_slice(command=(), dimensions={"id": ("vm1",)})
    request = submit(parts, priority=0, slices=[only])
    assert ask(bot)["skep"]["claim"] == {"cmd": "terminate", "task_id": run_of(request)}
    assert stored_bot(parts).task_flags == 1


def test_lease_whose_answer_was_lost_is_said_again_and_the_bot_claims_it(parts, bot):
    request = submit(parts)
    lost = ask(bot)
    again = ask(bot)
    assert again["lease"] == lost["lease"]
    assert "skep" not in again
    assert bot.claim(again["lease"])["task_id"] == run_of(request)
    assert stored_task(parts, request).state == "RUNNING"
    assert stored_bot(parts).task_id == run_of(request)


def test_run_of_a_missed_lease_begins_when_the_bot_takes_it(parts, bot, clock):
    request = submit(parts)
    ask(bot)
    clock.advance(50)
    bot.claim(ask(bot)["lease"])
    task = stored_task(parts, request)
    assert task.started_ms == task.created_ms + 50_000 == clock.now_ms()
    times = parts.store.scan_keys(codec.RUN_TIME, "", "~", limit=9)
    assert times == [codec.run_time_key(task, codec.RunTime.STARTED)]
    after = stored_bot(parts)
    assert (after.given_lease, after.claim_seq, after.task_id) == ("", bot.seq, run_of(request))


def test_run_that_was_silent_until_its_bot_took_it_is_not_given_up(parts, bot, clock):
    """Whatever other servers have stored of what they last heard of it."""
    request = submit(parts)
    ask(bot)
    (live,) = parts.store.get(codec.LIVE, codec.live_key("vm1"))
    clock.advance(request.bot_ping_tolerance_s + 500)
    bot.open_lease_session()
    bot.claim(ask(bot)["lease"])
    parts.last_seen.forget("vm1")
    parts.store.write_many([(codec.LIVE, live)])
    assert parts.sweeps.round()["runs"] == 0
    assert stored_task(parts, request).state == "RUNNING"


def test_missed_lease_that_was_taken_is_a_claim_like_any(parts, bot):
    request = submit(parts)
    ask(bot)
    lease = ask(bot)["lease"]
    before = bot.seq
    first = bot.claim(lease)
    with nothing_changes(parts.store):
        assert bot.claim(lease)["manifest"] == first["manifest"]
    bot.seq = before - 1
    bot.poll()
    assert bot.status == 409
    assert stored_task(parts, request).state == "RUNNING"


def test_missed_run_that_has_ended_does_not_begin(parts, bot, clock):
    submit(parts)
    ask(bot)
    lease = ask(bot)["lease"]
    (live,) = parts.store.get(codec.LIVE, codec.live_key("vm1"))
    stamp = Stamp(clock.now_ms(), "lost", 1)
    run_missing(parts.store, codec.read_live(live), stored_bot(parts), stamp)
    said = bot.claim(lease)
    assert said == {"cmd": "skip", "reason": "the task has ended: BOT_DIED"}
    assert stored_bot(parts).task_id == ""
    with nothing_changes(parts.store):
        assert bot.claim(lease) == said
    submit(parts, number=2)
    assert ask(bot)["skep"]["claim"]["cmd"] == "run"


def test_lease_whose_answer_was_lost_is_said_again_in_another_lease_session(parts, bot):
    submit(parts)
    lost = ask(bot)
    bot.open_lease_session()
    assert ask(bot)["lease"] == lost["lease"]


def test_lease_that_the_bot_has_heard_of_is_not_said_again(parts, bot):
    submit(parts)
    bot.heard = ask(bot)["lease"]["id"]
    assert "lease" not in bot.update()


def test_poll_of_a_bot_that_missed_its_lease_leaves_the_run_alone(parts, bot):
    request = submit(parts)
    lease = ask(bot)["lease"]
    before = stored_bot(parts)
    assert bot.poll()["cmd"] == "rbe"
    assert stored_bot(parts) == before
    assert stored_task(parts, request).state == "RUNNING"
    assert ask(bot)["lease"] == lease


def test_bot_that_missed_its_lease_asks_for_it_before_it_updates(parts, bot):
    submit(parts)
    lease = ask(bot)["lease"]
    bot.version = "0" * 64
    assert bot.poll()["cmd"] == "rbe"
    bot.heard = lease["id"]
    assert bot.poll()["cmd"] == "update"


def test_poll_of_a_bot_that_has_heard_of_its_lease_abandons_the_run(parts, bot):
    request = submit(parts)
    bot.heard = ask(bot)["lease"]["id"]
    bot.poll()
    assert stored_task(parts, request).state == "BOT_DIED"
    assert stored_bot(parts).task_id == ""


def test_poll_from_before_the_claim_changes_nothing(parts, bot):
    request = submit(parts)
    ask(bot)
    bot.seq -= 2
    bot.poll()
    assert bot.status == 409
    assert stored_task(parts, request).state == "RUNNING"


def test_another_process_of_the_bot_is_not_given_what_the_first_one_missed(parts, bot):
    request = submit(parts)
    ask(bot)
    bot.session_id = "vm1-session/2"
    bot.start()
    assert stored_task(parts, request).state == "BOT_DIED"
    assert "lease" not in bot.update()


def test_missed_run_that_is_canceled_is_still_said_and_told_to_stop(parts, bot, clock):
    request = submit(parts)
    ask(bot)
    actor = Actor("alice", "", "entry")
    cancel_task(parts.store, request.task_id, actor, kill_running=True, now_ms=clock.now_ms())
    run = bot.claim(ask(bot)["lease"])["task_id"]
    assert bot.task_update(run)["must_stop"] is True


def test_secrets_come_with_a_claimed_lease(parts, bot):
    submit(parts, secrets={"TOKEN": "nowhere"})
    said = ask(bot)["skep"]["claim"]["manifest"]["skep"]
    assert said == {"secrets": {}, "secrets_missing": ["TOKEN"]}


def test_secrets_that_are_released_again_with_a_missed_lease_are_audited_again(parts, bot, clock):
    submit(parts, secrets={"TOKEN": "nowhere"})
    ask(bot)
    clock.advance(50)
    lease = ask(bot)["lease"]
    for _ in range(2):
        assert bot.claim(lease)["manifest"]["skep"]["secrets_missing"] == ["TOKEN"]
    verbs = [doc.body["verb"] for doc in parts.store.scan(codec.AUDIT, "", "~", limit=9)]
    assert verbs.count("secret.release") == 2


def test_bot_that_is_not_well_is_not_given_a_claim(parts, bot):
    submit(parts)
    bot.state |= {"quarantined": "no disk"}
    bot.poll()
    assert "lease" not in bot.update()
    assert offers_in(parts) == []
