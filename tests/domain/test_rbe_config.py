"""What the pools of a bot say about its lease channel (bot-api 3.7, vectors of Appendix B)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.pools import Pool, PoolsConfig
from botapi.domain.rbe_config import (
    NATIVE,
    EffectiveId,
    Mode,
    RbeConfig,
    bucket,
    effective_id,
    mode_of,
    resolve,
)

ALL_RBE = (("SWARMING", 0), ("HYBRID", 0), ("RBE", 100))
ALL_HYBRID = (("SWARMING", 0), ("HYBRID", 100), ("RBE", 0))
ALL_SWARMING = (("SWARMING", 100), ("HYBRID", 0), ("RBE", 0))
MIXED = (("SWARMING", 20), ("HYBRID", 10), ("RBE", 70))


def pool(name="ci", instance="i/1", modes=ALL_RBE, key=""):
    return Pool(name, "p:r", rbe_instance=instance, rbe_modes=modes, effective_bot_id_dimension=key)


def resolved(*pools, names=None):
    asked = [one.name for one in pools] if names is None else names
    return resolve("vm1-m1", asked, PoolsConfig.of(pools))


@pytest.mark.spec("3.7.p1", "B.1.7")
@pytest.mark.parametrize(
    ("bot_id", "expected"), [("vm1-m1", 85), ("vm2-m1", 17), ("bot-0", 94), ("bot-7", 17)]
)
def test_bucket_is_the_one_of_the_specification(bot_id, expected):
    assert bucket(bot_id) == expected


@pytest.mark.spec("B.1.8")
def test_buckets_of_a_thousand_bots_are_spread_as_the_specification_says():
    modes = Counter(mode_of(f"bot-{n}", pool(modes=MIXED)) for n in range(1000))
    assert modes == {Mode.SWARMING: 216, Mode.HYBRID: 108, Mode.RBE: 676}


@given(bot_id=st.text(st.characters(codec="utf-8"), min_size=1))
def test_bucket_is_a_percent_of_any_bot(bot_id):
    assert 0 <= bucket(bot_id) <= 99


@pytest.mark.spec("3.7.p1")
def test_mode_is_swarming_below_its_percent_and_the_next_one_from_there_on():
    """vm1-m1 has bucket 85."""
    for percent, mode in [(85, Mode.HYBRID), (86, Mode.SWARMING)]:
        modes = (("SWARMING", percent), ("HYBRID", 100 - percent), ("RBE", 0))
        assert mode_of("vm1-m1", pool(modes=modes)) is mode
    assert mode_of("vm1-m1", pool(instance="", modes=ALL_RBE)) is Mode.SWARMING


@pytest.mark.parametrize(
    ("pools", "names", "expected"),
    [
        pytest.param([], ["ci"], NATIVE, marks=pytest.mark.spec("3.7.1.1")),
        pytest.param([pool()], ["other"], NATIVE, marks=pytest.mark.spec("3.7.1.1")),
        pytest.param(
            [pool()], ["ci"], RbeConfig(Mode.RBE, "i/1"), marks=pytest.mark.spec("3.7.1.2")
        ),
        pytest.param(
            [pool(), pool("b")],
            ["ci", "b", "unknown"],
            RbeConfig(Mode.RBE, "i/1"),
            marks=pytest.mark.spec("3.7.1.2"),
        ),
        pytest.param(
            [pool(modes=ALL_HYBRID), pool("b", modes=ALL_HYBRID)],
            ["ci", "b"],
            RbeConfig(Mode.HYBRID, "i/1"),
            marks=pytest.mark.spec("3.7.1.2"),
        ),
        pytest.param(
            [pool(modes=ALL_RBE), pool("b", modes=ALL_HYBRID)],
            ["ci", "b"],
            RbeConfig(Mode.HYBRID, "i/1"),
            marks=pytest.mark.spec("3.7.1.3"),
        ),
        pytest.param(
            [pool(modes=ALL_RBE), pool("b", instance="", modes=())],
            ["ci", "b"],
            RbeConfig(Mode.HYBRID, "i/1"),
            marks=pytest.mark.spec("3.7.1.3"),
        ),
        pytest.param([pool(modes=ALL_SWARMING)], ["ci"], NATIVE, marks=pytest.mark.spec("3.7.1.4")),
    ],
)
def test_pools_are_merged_as_the_table_says(pools, names, expected):
    assert resolved(*pools, names=names) == expected


@pytest.mark.spec("3.7.1.5")
def test_two_instances_contradict_each_other():
    found = resolved(pool(), pool("b", instance="i/2"))
    assert found.conflict == "the pools name different RBE instances: i/1, i/2"
    assert found.instance == ""
    swarming = pool("b", instance="i/2", modes=ALL_SWARMING)
    assert resolved(pool(), swarming).conflict == ""


@pytest.mark.spec("3.7.1.6")
def test_effective_id_contradicts_a_second_pool_with_an_instance():
    found = resolved(pool(key="serial"), pool("b"))
    assert found.conflict == (
        'pool "ci" has an effective bot id, and the bot is in 2 pools with an RBE instance'
    )
    assert found.effective_key == ""
    alone = RbeConfig(Mode.RBE, "i/1", "ci", "serial")
    assert resolved(pool(key="serial")) == alone


SERIAL = RbeConfig(Mode.RBE, "i/1", "ci", "serial")


@pytest.mark.spec("3.7.p1", "6.2.1.9")
@pytest.mark.parametrize(
    ("dims", "config", "expected"),
    [
        ({"pool": ["ci"], "serial": ["7"]}, SERIAL, EffectiveId("ci:serial:7")),
        ({"pool": ["ci"]}, SERIAL, EffectiveId("vm1")),
        ({"pool": ["ci"], "serial": ["7"]}, NATIVE, EffectiveId("vm1")),
        (
            {"pool": ["ci"], "serial": ["7", "8"]},
            SERIAL,
            EffectiveId(
                problem='the dimension "serial" has 2 values, the effective bot id needs one'
            ),
        ),
        (
            {"pool": ["a", "ci"], "serial": ["7"]},
            SERIAL,
            EffectiveId(problem="an effective bot id needs one pool, not 2"),
        ),
    ],
)
def test_effective_id_is_named_by_the_pools_dimension(dims, config, expected):
    assert effective_id("vm1", dims, config) == expected
