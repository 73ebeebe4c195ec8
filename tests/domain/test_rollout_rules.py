"""Which bot runs what, and the health gate: pure rules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.channel import bucket
from botapi.domain.errors import Refusal
from botapi.domain.fleet_settings import Deployment, RolloutRule
from botapi.domain.manifest import Label
from botapi.domain.rollout import (
    KEEP_UNREFERENCED,
    KEEP_UNREFERENCED_MS,
    MAX_REJECTED,
    Deployed,
    Origin,
    Outcome,
    Release,
    Stage,
    Start,
    Step,
    Tally,
    Trail,
    Verdict,
    advance,
    channels_of,
    expected_release,
    halt,
    judge,
    outcome_of,
    resume,
    roll_back,
    start,
    unwanted,
    with_canary,
    with_references,
    with_source,
    with_upload,
    without,
)

RULE = RolloutRule(rings=(20, 100), soak_s=60, max_failed_percent=10)
LOW, HIGH = "vm2-m1", "vm1-m1"  # buckets 5 and 95


def release(name, **more):
    values = {
        "release_id": name,
        "origin": Origin.SOURCE,
        "label": Label.DEVELOPMENT,
        "key_id": "k",
        "number": 1,
        "min_server": "0",
        "created_ms": 0,
        "actor": "",
        "file_name": "",
        "files": 1,
        "size": 1,
        "chunks": 1,
        "referenced_ms": 0,
    }
    return Release(**values | more)


def deployed(*names, **more):
    """Releases of these names; the first one is stable, and the server's own sources."""
    values = {"stable": names[0], "source": names[0]}
    return Deployed(**values | {"releases": tuple(map(release, names))} | more)


def rolling(candidate="new", rule=RULE, **more):
    asked = Start(candidate, rule, **more)
    return start(deployed("old", "new"), asked, actor="alice", now_ms=1000)


def told(state, bot_id, pin="", fixed=None):
    kept = {r.release_id for r in state.releases}
    return expected_release(bot_id, pin, channels_of(state, fixed), kept)


# Who runs what.


def test_every_bot_runs_stable_when_there_is_nothing_else():
    assert {told(deployed("a"), f"bot-{n}") for n in range(100)} == {"a"}


@pytest.mark.parametrize("percent", [0, 1, 30, 100])
@pytest.mark.spec("8.3.p1")
def test_canary_goes_to_the_bots_below_its_percent(percent):
    state = with_canary(deployed("a", "b"), "b", percent)
    for n in range(1000):
        bot_id = f"bot-{n}"
        assert told(state, bot_id) == ("b" if bucket(bot_id) < percent else "a")


def test_pin_of_the_group_wins_when_the_release_is_kept():
    state = with_canary(deployed("a", "b", "c"), "b", 100)
    assert told(state, LOW, pin="c") == "c"
    assert told(state, LOW, pin="gone") == "b"


@pytest.mark.spec("7.8.1.15")
def test_settings_cfg_wins_when_its_stable_is_kept_here():
    state = with_canary(rolling(), "new", 100)
    assert told(state, LOW, fixed=Deployment("old", "new", 50)) == "new"
    assert told(state, HIGH, fixed=Deployment("old", "new", 50)) == "old"
    assert told(state, LOW, fixed=Deployment("new")) == "new"
    assert told(state, LOW, fixed=Deployment("old", "", 100)) == "old", "missing canary: stable"
    assert told(state, LOW, fixed=Deployment("new", "git_revision:1234", 100)) == "new"


@pytest.mark.spec("7.8.1.15")
def test_foreign_names_in_settings_cfg_mean_nothing():
    state = with_canary(deployed("a", "b"), "b", 50)
    foreign = Deployment("git_revision:1234", "b", 100)
    assert told(state, HIGH, fixed=foreign) == "a"


def test_ring_of_a_rollout_runs_the_candidate_and_the_rest_the_old_one():
    state = rolling()
    assert (told(state, LOW), told(state, HIGH)) == ("new", "old")
    assert told(advance(state, 2000), HIGH) == "new"


def test_canary_that_is_not_the_candidate_stays_what_it_is():
    state = replace(rolling(), releases=(*rolling().releases, release("other")))
    assert told(with_canary(state, "other", 10), LOW) == "other"


# The server's own sources.


def test_first_sources_are_stable_at_once_also_with_a_rule():
    state = with_source(Deployed(), release("a"), RULE, 1)
    assert (state.stable, state.source, state.rollout) == ("a", "a", None)


def test_changed_sources_are_stable_at_once_without_a_rule():
    state = with_source(deployed("a"), release("b"), None, 1)
    assert (state.stable, state.former) == ("b", "a")
    assert with_source(state, release("b"), None, 2) is state


def test_changed_sources_begin_a_rollout_with_a_rule():
    state = with_source(deployed("a"), release("b"), RULE, 5)
    rollout = state.open_rollout
    assert (rollout.candidate, rollout.previous, rollout.percent) == ("b", "a", 20)
    assert rollout.started_by == "rollout"
    assert state.stable == "a"


def test_further_change_of_the_sources_begins_their_rollout_anew():
    state = advance(with_source(deployed("a"), release("b"), RULE, 5), 10)
    state = with_source(state, release("c"), RULE, 20)
    rollout = state.open_rollout
    assert (rollout.candidate, rollout.previous, rollout.ring) == ("c", "a", 0)
    assert (rollout.started_ms, rollout.stage) == (20, Stage.RUNNING)


def test_rollout_ends_when_the_sources_are_those_of_stable_again():
    state = with_source(deployed("a"), release("b"), RULE, 5)
    state = with_source(state, release("a"), RULE, 9)
    assert (state.rollout.stage, state.stable, state.rejected) == (Stage.ROLLED_BACK, "a", ())


def test_sources_that_were_rolled_back_do_not_come_back_by_themselves():
    state = roll_back(with_source(deployed("a"), release("b"), RULE, 5), "bad", 6)
    assert (state.stable, state.rejected, state.open_rollout) == ("a", ("b",), None)
    again = with_source(replace(state, source="a"), release("b"), RULE, 7)
    assert (again.stable, again.open_rollout) == ("a", None)
    further = with_source(again, release("c"), RULE, 8)
    assert further.open_rollout.candidate == "c"


def test_sources_change_nothing_while_a_person_has_chosen_something_else():
    state = with_source(rolling(), release("b"), RULE, 9)
    assert state.open_rollout.candidate == "new"
    done = advance(advance(state, 10), 11)
    assert (done.stable, done.former, done.follows_source) == ("new", "old", False)
    after = with_source(done, release("c"), RULE, 12)
    assert (after.stable, after.source, after.open_rollout) == ("new", "c", None)


def test_rollout_of_the_sources_by_a_person_makes_stable_follow_them_again():
    state = replace(deployed("old", "new"), follows_source=False)
    state = start(state, Start("new", RULE, follows_source=True), actor="a", now_ms=1)
    assert advance(advance(state, 2), 3).follows_source


# Rollouts.


def test_rollout_goes_ring_by_ring_and_ends_with_the_candidate_as_stable():
    state = advance(rolling(), 2000)
    assert (state.open_rollout.percent, state.open_rollout.ring_since_ms) == (100, 2000)
    done = advance(state, 3000)
    assert (done.rollout.stage, done.stable, done.former) == (Stage.DONE, "new", "old")
    assert told(done, HIGH) == "new"


def test_halted_rollout_stays_where_it_is_until_it_is_resumed():
    halted = halt(rolling(), "wait for me")
    assert (told(halted, LOW), told(halted, HIGH)) == ("new", "old")
    with pytest.raises(Refusal, match="is halted, not running"):
        advance(halted, 1)
    going = resume(halted, 9000)
    assert (going.rollout.stage, going.rollout.ring_since_ms) == (Stage.RUNNING, 9000)
    with pytest.raises(Refusal, match="is running, not halted"):
        resume(going, 1)


@pytest.mark.parametrize("before", [rolling(), halt(rolling(), "")])
def test_rollback_of_an_open_rollout_gives_every_bot_the_old_release(before):
    state = roll_back(before, "bad", 5, ("vm1: x",))
    assert (told(state, LOW), told(state, HIGH)) == ("old", "old")
    assert (state.rollout.stage, state.rollout.failures) == (Stage.ROLLED_BACK, ("vm1: x",))
    assert state.rejected == ("new",)


def test_rollback_without_a_rollout_goes_to_the_former_stable():
    done = with_canary(advance(advance(rolling(), 2), 3), "new", 10)
    state = roll_back(done, "bad after all", 5)
    assert (state.stable, state.former, state.rejected) == ("old", "", ("new",))
    assert (state.canary, state.canary_percent) == ("", 0)
    with pytest.raises(Refusal, match="no former stable release"):
        roll_back(state, "", 6)


def test_rejected_releases_are_bounded_and_start_again_when_a_person_says_so():
    state = deployed("old", "new", rejected=tuple(f"r{n}" for n in range(MAX_REJECTED)))
    state = roll_back(start(state, Start("new", RULE), actor="a", now_ms=1), "", 2)
    assert (len(state.rejected), state.rejected[-1]) == (MAX_REJECTED, "new")
    assert "new" not in start(state, Start("new", RULE), actor="a", now_ms=3).rejected


@pytest.mark.parametrize(
    "act",
    [
        lambda state: start(state, Start("gone", RULE), actor="alice", now_ms=1),
        lambda state: with_canary(state, "gone", 5),
    ],
)
def test_release_that_was_deleted_meanwhile_is_given_to_nobody(act):
    with pytest.raises(Refusal, match="the release gone is not kept any more"):
        act(deployed("old"))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (rolling(), "a rollout of new is running"),
        (deployed("new"), "new is stable already"),
    ],
)
def test_rollout_is_refused_when_it_makes_no_sense(state, said):
    with pytest.raises(Refusal, match=said):
        start(state, Start("new", RULE), actor="a", now_ms=1)


@pytest.mark.parametrize("act", [lambda d: halt(d, ""), lambda d: resume(d, 1)])
def test_there_must_be_a_rollout(act):
    with pytest.raises(Refusal, match="there is no rollout"):
        act(deployed("a"))


@pytest.mark.parametrize(
    ("stable", "new", "said"),
    [
        (("release", 7), ("release", 6), "release 6 is older than stable, 7"),
        (("development", 7), ("development", 6), "release 6 is older than stable, 7"),
        (("release", 7), ("development", 99), "stable is a signed release, new is development"),
        (("release", 7), ("unsigned", 0), "stable is a signed release, new is unsigned"),
        (("release", 7), ("release", 8), ""),
        (("development", 7), ("release", 1), ""),
        (("unsigned", 0), ("unsigned", 0), ""),
    ],
)
@pytest.mark.control("archive.downgrade")
def test_downgrade_attack(stable, new, said):
    """Nobody brings the fleet back to an old archive, or to one that nobody signed, unasked."""
    state = Deployed(
        stable="old",
        releases=tuple(
            release(name, label=Label(label), number=number)
            for name, (label, number) in (("old", stable), ("new", new))
        ),
    )
    if not said:
        assert start(state, Start("new", RULE), actor="a", now_ms=1).open_rollout
        return
    with pytest.raises(Refusal, match=said):
        start(state, Start("new", RULE), actor="a", now_ms=1)
    asked = Start("new", RULE, allow_downgrade=True)
    assert start(state, asked, actor="a", now_ms=1).open_rollout


# What is kept.


def test_releases_that_somebody_runs_are_never_deleted():
    names = [f"r{n}" for n in range(100)]
    state = deployed(*names, stable="r1", former="r2", source="r3", canary="r4")
    state = start(state, Start("r5", RULE), actor="a", now_ms=1)
    late = 100 * KEEP_UNREFERENCED_MS
    gone = {r.release_id for r in unwanted(state, {"r6"}, late)}
    assert gone == {*names} - {"r1", "r2", "r3", "r4", "r5", "r6"}
    assert {r.release_id for r in without(state, gone).releases}.isdisjoint(gone)


@pytest.mark.spec("13.1.52")
def test_own_builds_are_kept_for_a_day_after_they_were_run_and_the_newest_only():
    builds = tuple(release(f"r{n:02}", created_ms=n) for n in range(KEEP_UNREFERENCED + 3))
    state = Deployed(releases=builds)
    assert {r.release_id for r in unwanted(state, (), 10)} == {"r00", "r01", "r02"}
    state = with_references(state, {"r05"}, 5_000)
    just_late = KEEP_UNREFERENCED_MS + 1
    gone = {r.release_id for r in unwanted(state, (), just_late)}
    assert gone == {r.release_id for r in builds} - {"r05"}
    assert KEEP_UNREFERENCED_MS == 24 * 3600 * 1000
    for late, is_gone in [(0, False), (1, True)]:
        gone = {r.release_id for r in unwanted(state, (), 5_000 + KEEP_UNREFERENCED_MS + late)}
        assert ("r05" in gone) is is_gone


def test_newest_uploads_are_kept_however_old():
    state = Deployed()
    for n in range(KEEP_UNREFERENCED + 2):
        state = with_upload(state, release(f"u{n:02}", origin=Origin.UPLOAD, created_ms=n))
    late = 1000 * KEEP_UNREFERENCED_MS
    assert {r.release_id for r in unwanted(state, (), late)} == {"u00", "u01"}


# The health gate.


def trail(*steps, runs=False, **more):
    values = {
        "runs_candidate": runs,
        "dead": False,
        "quarantined": "",
        "has_polled": True,
        "silent_s": 1.0,
        "failed_update": "",
        "before": "",
        "steps": steps,
    }
    return Trail(**values | more)


TOLD = Step("request_update", ran_candidate=False, quarantined="")
CAME = Step("bot_connected", ran_candidate=True, quarantined="")
BACK = Step("bot_connected", ran_candidate=False, quarantined="")
ILL = Step("bot_polling", ran_candidate=False, quarantined="no disk")
ERROR = Step("bot_error", ran_candidate=False, quarantined="", message="bad code")


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        (trail(), ("waiting", "")),
        (trail(TOLD), ("waiting", "")),
        (trail(ERROR), ("waiting", "")),  # before it was told: nothing to do with the update
        (trail(ERROR, TOLD), ("waiting", "")),
        (trail(TOLD, ERROR), ("failed", "bad code")),
        (trail(TOLD, replace(ERROR, message="")), ("failed", "an error without words")),
        (trail(failed_update="no such file"), ("failed", "no such file")),
        (trail(TOLD, CAME, BACK), ("failed", "went back to its old version")),
        (trail(TOLD, dead=True), ("waiting", "")),
        (trail(TOLD, dead=True, silent_s=121), ("failed", "did not come back from its update")),
        (trail(dead=True, silent_s=999), ("waiting", "")),
        (trail(TOLD, CAME, runs=True), ("healthy", "")),
        (trail(TOLD, CAME, runs=True, has_polled=False), ("waiting", "")),
        (trail(TOLD, CAME, runs=True, dead=True), ("waiting", "")),
        (trail(runs=True, dead=True, silent_s=121), ("failed", "dead since its update")),
        (trail(TOLD, CAME, runs=True, quarantined="no disk"), ("failed", "no disk")),
        (trail(ILL, CAME, runs=True, quarantined="no disk"), ("unfit", "")),
        (trail(CAME, runs=True, quarantined="no disk", before="no disk"), ("unfit", "")),
    ],
)
def test_outcome_of_a_bot(facts, outcome):
    found, why = outcome_of(facts)
    assert (str(found), why) == outcome


def gate(now_s=0, rule=RULE, **counts):
    rollout = replace(rolling(rule=rule).rollout, ring_since_ms=0)
    fleet = counts.pop("fleet", 100)
    return judge(rollout, Tally(fleet=fleet, **counts), now_s * 1000)


@pytest.mark.parametrize(
    ("counts", "before_soak", "after_soak"),
    [
        ({"waiting": 10}, "wait", "wait"),
        ({"waiting": 9, "healthy": 1}, "wait", "advance"),
        ({"healthy": 10}, "wait", "advance"),
        (
            {"waiting": 98, "failed": 2},
            "wait",
            "roll_back",
        ),  # 2 % of all, 100 % of those that took it
        ({"healthy": 18, "failed": 2}, "wait", "advance"),  # exactly the limit
        ({"healthy": 8, "failed": 2}, "roll_back", "roll_back"),
        ({"failed": 1}, "roll_back", "roll_back"),
        ({"unfit": 5}, "advance", "advance"),  # proves nothing: as if the ring were empty
        ({}, "advance", "advance"),
        ({"fleet": 0}, "wait", "wait"),  # no bot anywhere: a server that was away
    ],
)
def test_health_gate(counts, before_soak, after_soak):
    assert gate(59, **counts) == Verdict(before_soak)
    assert gate(60, **counts) == Verdict(after_soak)


def test_health_gate_wants_enough_healthy_bots_but_not_more_than_there_are():
    rule = replace(RULE, min_updated=5)
    assert gate(60, rule, healthy=4, waiting=6) is Verdict.WAIT
    assert gate(60, rule, healthy=5, waiting=5) is Verdict.ADVANCE
    assert gate(60, rule, healthy=3) is Verdict.ADVANCE


@given(
    healthy=st.integers(0, 50),
    failed=st.integers(0, 50),
    waiting=st.integers(0, 50),
    limit=st.integers(0, 100),
    late=st.booleans(),
)
def test_health_gate_never_goes_on_over_the_limit(healthy, failed, waiting, limit, late):
    rule = replace(RULE, max_failed_percent=limit)
    verdict = gate(999 if late else 0, rule, healthy=healthy, failed=failed, waiting=waiting)
    took = healthy + failed
    if verdict is Verdict.ADVANCE and took + waiting:
        assert late
        assert healthy
        assert failed * 100 <= limit * took
    if verdict is Verdict.ROLL_BACK:
        assert failed * 100 > limit * took


def test_tally_counts_the_bots_that_count():
    assert Tally(waiting=1, healthy=2, failed=3, unfit=4).told == 6
    assert {*Outcome} == {"waiting", "healthy", "failed", "unfit"}
