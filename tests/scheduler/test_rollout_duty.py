"""The duty over many bots: bounded reading, and nobody is forgotten."""

from dataclasses import replace

import pytest

from botapi.cfg import releases as stored
from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind, new_bot
from botapi.domain.fleet_settings import RolloutRule
from botapi.domain.rollout import Deployed, Outcome, Start, start
from botapi.scheduler import rollout as duty
from botapi.store import codec
from botapi.transactions.change_deployment import Author, change_deployment
from botapi.transactions.update_bot import Stamp, update_bot

RULE = RolloutRule(rings=(100,), soak_s=3600, max_failed_percent=10)


def with_bots(parts, count):
    """So many bots that run the stable release."""
    archives = parts.archives
    version = archives.archive("http://localhost").version
    for n in range(count):
        bot = new_bot(f"b{n:04}", (f"id:b{n:04}", "pool:default"), parts.clock.now_ms())
        doc = codec.bot_doc(replace(bot, version=version))
        parts.store.transact(lambda txn, doc=doc: txn.put(codec.BOT, doc), label="bot")


@pytest.fixture
def rolling(parts):
    """A rollout of a release that is kept only by name."""

    def begin(count):
        with_bots(parts, count)

        def change(deployed: Deployed) -> Deployed:
            (kept,) = deployed.releases
            both = (kept, replace(kept, release_id="c" * 64, number=2))
            state = replace(deployed, releases=both)
            return start(state, Start("c" * 64, RULE), actor="t", now_ms=parts.clock.now_ms())

        change_deployment(parts.store, change, Author("t", "", "", "", 0, "begin"))
        return parts.archives.deployed().open_rollout

    return begin


def test_round_reads_the_events_of_a_bounded_number_of_bots(parts, rolling, monkeypatch):
    monkeypatch.setattr(duty, "TRAILS_PER_ROUND", 10)
    rollout = rolling(25)
    watch = parts.sweeps.rollouts.watch
    scan, asked = parts.store.scan, []
    monkeypatch.setattr(
        parts.store, "scan", lambda *args, **more: asked.append(args[1]) or scan(*args, **more)
    )
    for _ in range(3):
        before = len(asked)
        tally = watch.tally(rollout, parts.clock.now_ms())
        assert len(asked) - before <= 10
        assert (tally.told, tally.waiting, tally.fleet) == (25, 25, 25), "nobody is forgotten"
    assert len({key.split("!")[0] for key in asked}) == 25, "in three rounds each was looked at"


def test_failure_that_was_seen_is_remembered_while_others_are_looked_at(
    parts, rolling, monkeypatch
):
    monkeypatch.setattr(duty, "TRAILS_PER_ROUND", 10)
    rollout = rolling(25)
    watch = parts.sweeps.rollouts.watch
    watch.tally(rollout, parts.clock.now_ms())
    watch._outcomes["b0003"] = (Outcome.FAILED, "seen")
    tally = watch.tally(rollout, parts.clock.now_ms())
    assert (tally.failed, tally.failures) == (1, ("b0003: seen",))
    other = replace(rollout, started_ms=rollout.started_ms + 1)
    assert watch.tally(other, parts.clock.now_ms()).failed == 0


def test_bot_that_updates_between_two_reads_of_it_has_not_gone_back(parts, rolling, monkeypatch):
    """Its document is read with all others, its events later: it connects in between."""
    rollout = rolling(1)
    now_ms = parts.clock.now_ms()
    monkeypatch.setitem(parts.archives._known, "candidate", rollout.candidate)
    scan = parts.store.scan

    def connects_first(*args, **more):
        update = BotUpdate(
            EventKind.BOT_CONNECTED, dedup_key="s2", call=CallInfo("s2", "", "", "candidate")
        )
        update_bot(parts.store, "b0000", update, Stamp(now_ms, "e2", 60_000))
        return scan(*args, **more)

    monkeypatch.setattr(parts.store, "scan", connects_first)
    tally = parts.sweeps.rollouts.watch.tally(rollout, now_ms)
    assert (tally.failures, tally.failed) == ((), 0)


def test_halted_rollout_is_not_judged(parts, rolling):
    rolling(3)
    change_deployment(
        parts.store,
        lambda d: replace(d, rollout=replace(d.rollout, stage="halted")),
        Author("t", "", "", "", 0, "halt"),
    )
    assert parts.sweeps.rollouts.round(parts.clock.now_ms()) == 0


def test_deployment_survives_its_document(parts, rolling):
    rolling(1)
    deployed = parts.archives.deployed()
    assert stored.read_deployment(stored.deployment_doc(deployed)) == deployed
    assert stored.read_deployment(None) == Deployed()
