"""pools.cfg: what it means, and every mistake of bot-api 7.7 with its place."""

import pytest

from botapi.cfg.pools_cfg import load

POOL = 'pool {{ name: "ci" realm: "p:ci" {} }}'


@pytest.mark.parametrize(
    ("migration", "modes"),
    [
        ("", ()),
        ('rbe_migration { rbe_instance: "i" }', (100, 0, 0)),
        ('rbe_migration { rbe_instance: "i" rbe_mode_percent: 30 }', (70, 0, 30)),
        (
            'rbe_migration { rbe_instance: "i" rbe_mode_percent: 30'
            " bot_mode_allocation { mode: RBE percent: 80 }"
            " bot_mode_allocation { mode: HYBRID percent: 20 } }",
            (0, 20, 80),
        ),
    ],
)
def test_pool_has_a_percent_for_each_mode(migration, modes):
    pool = load(POOL.format(migration)).pools["ci"]
    assert tuple(percent for _, percent in pool.rbe_modes) == modes
    assert tuple(name for name, _ in pool.rbe_modes) == ("SWARMING", "HYBRID", "RBE")[: len(modes)]
