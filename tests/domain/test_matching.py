"""Who fits what, and the vectors of bot-api 10.2 and Appendix B."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.matching import (
    constraints,
    dimension_hash,
    first_unmet,
    fits,
    problems,
    queue_of,
    shard,
)

BOT = frozenset({"os:Linux", "os:Ubuntu-24", "pool:ci", "gpu:none", "odd:a|b"})


@pytest.mark.spec("10.1.p1")
@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        ({}, True),
        ({"pool": ("ci",)}, True),
        ({"pool": ("other",)}, False),
        ({"os": ("Linux", "Ubuntu-22|Ubuntu-24")}, True),
        ({"os": ("Linux", "Ubuntu-22|Ubuntu-20")}, False),
        ({"os": ("Mac|Linux",), "gpu": ("none",)}, True),
        ({"os": ("Mac|Linux",), "gpu": ("some",)}, False),
        ({"os": ("Mac",)}, False),
        ({"zone": ("eu",)}, False),
        ({"odd": ("a|b",)}, False),
    ],
)
def test_bot_fits_when_every_constraint_has_an_alternative_it_holds(dimensions, expected):
    wanted = constraints(dimensions)
    assert fits(BOT, wanted) is expected
    assert (first_unmet(BOT, wanted) is None) is expected


def test_first_unmet_names_the_alternatives():
    wanted = constraints({"os": ("Mac|BSD",), "pool": ("ci",)})
    assert first_unmet(BOT, wanted) == {"os:Mac", "os:BSD"}


words = st.text(alphabet="abc", min_size=1, max_size=2)
any_dimensions = st.dictionaries(
    words, st.lists(words, min_size=1, max_size=3, unique=True).map(tuple), max_size=3
)
any_bot = st.frozensets(st.tuples(words, words).map(":".join), max_size=8)


@pytest.mark.spec("10.1.p1")
@given(any_bot, any_dimensions)
def test_fit_equals_the_naive_reading_of_the_rule(bot, dimensions):
    naive = all(
        any(f"{key}:{alternative}" in bot for alternative in constraint.split("|"))
        for key, values in dimensions.items()
        for constraint in values
    )
    assert fits(bot, constraints(dimensions)) is naive


@given(any_dimensions, st.randoms(use_true_random=False))
def test_queue_is_the_same_in_whatever_order_dimensions_are_written(dimensions, random):
    keys = list(dimensions)
    random.shuffle(keys)
    turned = {key: tuple(reversed(dimensions[key])) for key in keys}
    assert queue_of(turned) == queue_of(dimensions)


@given(any_dimensions, any_dimensions)
def test_queue_differs_when_the_constraints_differ(one, other):
    same = constraints(one) == constraints(other) and one.get("pool") == other.get("pool")
    assert (queue_of(one) == queue_of(other)) is same


def test_queue_of_a_termination_task_has_no_pool():
    assert queue_of({"id": ("vm1",)}).pool == ""


@pytest.mark.spec("10.2.p1", "B.1.3", "B.1.4", "B.1.5", "13.1.45")
@pytest.mark.parametrize(
    ("dimensions", "hash32", "in_shard"),
    [
        ({"d1": ["v1", "v2"], "d2": ["v3"]}, 2036451960, 8),
        ({"os": ["Linux", "Ubuntu-22.04|Ubuntu-24.04"], "pool": ["ci"]}, 2206622196, 4),
        ({"id": ["vm1-m1"]}, 3806217839, 15),
        ({"d2": ["v3"], "d1": ["v1", "v2"]}, 2036451960, 8),
    ],
)
def test_dimension_hash_and_shard_are_those_of_the_vectors(dimensions, hash32, in_shard):
    assert (dimension_hash(dimensions), shard(dimensions)) == (hash32, in_shard)


POOL = {"pool": ("p",)}


@pytest.mark.spec("10.1.1.1", "10.1.1.2", "10.1.1.5", "10.1.1.6", "10.1.1.7", "13.1.27")
@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        (POOL, []),
        ({}, ['dimensions need exactly one "pool", without "|"']),
        ({"pool": ("a", "b")}, ['dimensions need exactly one "pool", without "|"']),
        ({"pool": ("a|b",)}, ['dimensions need exactly one "pool", without "|"']),
        ({**POOL, "id": ("a", "b")}, ['dimensions may name at most one "id", without "|"']),
        ({**POOL, "id": ("a|b",)}, ['dimensions may name at most one "id", without "|"']),
        ({**POOL, "os": ("x", "x")}, ['dimension "os" repeats a constraint']),
        ({**POOL, "os": ("x|x",)}, ['dimension "os" repeats an alternative in "x|x"']),
        ({**POOL, "a": ("1|2|3",), "b": ("1|2|3",)}, ["dimensions combine to 9 sets, at most 8"]),
        ({**POOL, "a": ("1|2",), "b": ("1|2|3|4",)}, []),
        (
            {**POOL, "a": tuple(map(str, range(512)))},
            ["dimensions have 513 alternatives, at most 512"],
        ),
    ],
)
def test_problems_name_each_rule_that_is_broken(dimensions, expected):
    assert problems(dimensions) == expected
