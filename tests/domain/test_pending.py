"""Why a pending slice has no bot, as a rule."""

from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.bot_event import new_bot
from botapi.domain.pending import Obstacle, miss_of, summary, would_help

POOL = frozenset({"pool:default"})
OS = frozenset({"os:Mac", "os:Windows"})
GPU = frozenset({"gpu:h100"})


def bot(bot_id="vm1", *flat, **more):
    from dataclasses import replace

    made = new_bot(bot_id, ("pool:default", *flat), 1_000)
    return replace(made, **({"idle_since_ms": 1_000} | more))


def test_miss_names_every_constraint_the_bot_lacks():
    miss = miss_of(bot(), [POOL, OS, GPU], is_waiting=True)
    assert miss.obstacle is Obstacle.DIMENSIONS
    assert miss.unmet == ("os:Mac|os:Windows", "gpu:h100")
    assert miss.detail == "has no os:Mac|os:Windows and no gpu:h100"


def test_dimensions_come_before_health():
    assert miss_of(bot(dead=True), [GPU], is_waiting=False).obstacle is Obstacle.DIMENSIONS


def test_each_state_of_a_fitting_bot_is_an_obstacle_of_its_own():
    cases = {
        Obstacle.DEAD: bot(dead=True),
        Obstacle.QUARANTINED: bot(quarantined="disk full\nmore"),
        Obstacle.MAINTENANCE: bot(maintenance="reboot"),
        Obstacle.BUSY: bot(task_id="76d00eba71beef11", idle_since_ms=0),
    }
    for obstacle, one in cases.items():
        assert miss_of(one, [POOL], is_waiting=False).obstacle is obstacle
    assert miss_of(cases[Obstacle.QUARANTINED], [], is_waiting=False).detail == "disk full"
    assert "76d00eba71beef11" in miss_of(cases[Obstacle.BUSY], [], is_waiting=False).detail
    assert miss_of(bot(), [POOL], is_waiting=False).obstacle is Obstacle.NOT_WAITING
    assert miss_of(bot(), [POOL], is_waiting=True).obstacle is Obstacle.NONE


def test_nearest_misses_sort_first():
    bots = [
        bot("c", dead=True),
        bot("a"),
        bot("b", "os:Mac"),
        bot("d", "os:Mac", "gpu:h100", dead=True),
        bot("e", "os:Mac", "gpu:h100"),
    ]
    misses = [miss_of(one, [OS, GPU], is_waiting=True) for one in bots]
    assert [m.bot_id for m in sorted(misses, key=lambda m: m.distance)] == ["e", "d", "b", "a", "c"]


def test_help_names_the_smallest_change_first_and_some_bots():
    bots = [bot(f"b{n}", "os:Mac") for n in range(5)] + [bot("x", "os:Mac", "gpu:h100", dead=True)]
    lines = would_help(miss_of(one, [OS, GPU], is_waiting=True) for one in bots)
    assert lines == [
        "the bot comes back (x)",
        "give one of 5 bots gpu:h100, or ask for less (b0, b1, b2, ...)",
    ]
    assert would_help([]) == ["add a bot to the pool: it has none"]


def test_summary_counts_by_obstacle():
    misses = [miss_of(bot(str(n), dead=n < 2), [POOL], is_waiting=False) for n in range(3)]
    assert summary(misses) == "3 bots in the pool: 1 not asking for work, 2 dead"
    assert summary([]) == "the pool has no bots"


@given(st.sets(st.sampled_from(["os:Mac", "os:Windows", "gpu:h100"])), st.booleans())
def test_bot_without_unmet_constraints_is_one_that_fits(flat, is_waiting):
    from botapi.domain.matching import fits

    one = bot("vm1", *flat)
    miss = miss_of(one, [POOL, OS, GPU], is_waiting=is_waiting)
    assert (not miss.unmet) == fits(frozenset(one.dimensions), [POOL, OS, GPU])
