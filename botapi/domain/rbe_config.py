"""Which lease channel the pools of a bot ask for (bot-api 3.7).

We schedule ourselves in every mode; what counts of this is the instance (bots reopen their
lease session when it changes), the effective bot id, and a configuration that contradicts
itself, which quarantines the bot.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from botapi.domain.pools import Pool, PoolsConfig


class Mode(StrEnum):
    """Who schedules the bots of a pool, in the order of an allocation's percents."""

    SWARMING = "SWARMING"
    HYBRID = "HYBRID"
    RBE = "RBE"


@dataclass(frozen=True, slots=True)
class RbeConfig:
    """What all pools of a bot say together. `conflict` is empty when they agree.

    `instance` is empty in mode SWARMING. `effective_pool` and `effective_key` name the
    dimension that gives the effective bot id, both or none.
    """

    mode: Mode = Mode.SWARMING
    instance: str = ""
    effective_pool: str = ""
    effective_key: str = ""
    conflict: str = ""


NATIVE = RbeConfig()
"""A bot of which no pools.cfg says anything."""


def bucket(bot_id: str) -> int:
    """0 to 99, always the same for a bot: little end first of its id's SHA-256 (bot-api 3.7)."""
    value = int.from_bytes(hashlib.sha256(bot_id.encode()).digest()[:2], "little")
    return int(value * 99.9 / 65792)


def mode_of(bot_id: str, pool: Pool) -> Mode:
    """The mode of one bot in one pool: its bucket among the percents of the modes."""
    if not pool.rbe_instance:
        return Mode.SWARMING
    mine, reached = bucket(bot_id), 0
    for name, percent in pool.rbe_modes:
        reached += percent
        if mine < reached:
            return Mode(name)
    return Mode.SWARMING


def resolve(bot_id: str, pools: Sequence[str], config: PoolsConfig) -> RbeConfig:
    """The pools that pools.cfg knows, merged; the first contradiction is the conflict."""
    known = [pool for pool in map(config.pool, pools) if pool is not None]
    modes = {pool.name: mode_of(bot_id, pool) for pool in known}
    if set(modes.values()) <= {Mode.SWARMING}:
        return NATIVE
    mode = modes[known[0].name] if len({*modes.values()}) == 1 else Mode.HYBRID
    leasing = [pool for pool in known if modes[pool.name] is not Mode.SWARMING]
    instances = sorted({pool.rbe_instance for pool in leasing})
    if len(instances) > 1:
        said = f"the pools name different RBE instances: {', '.join(instances)}"
        return RbeConfig(mode, conflict=said)
    named = [pool for pool in leasing if pool.effective_bot_id_dimension]
    if named and len(leasing) > 1:
        said = (
            f'pool "{named[0].name}" has an effective bot id, '
            f"and the bot is in {len(leasing)} pools with an RBE instance"
        )
        return RbeConfig(mode, instances[0], conflict=said)
    if not named:
        return RbeConfig(mode, instances[0])
    return RbeConfig(mode, instances[0], named[0].name, named[0].effective_bot_id_dimension)


@dataclass(frozen=True, slots=True)
class EffectiveId:
    """The name of a bot in its lease channel; empty, with a `problem`, when it has none."""

    bot_id: str = ""
    problem: str = ""


def effective_id(
    bot_id: str, dimensions: Mapping[str, Sequence[str]], config: RbeConfig
) -> EffectiveId:
    """`<pool>:<key>:<value>` of the dimension that the pool names, else the plain bot id.

    `dimensions` are those of the bot with its group's word above its own (bot-api 3.7).
    """
    values = dimensions.get(config.effective_key, ()) if config.effective_key else ()
    if not values:
        return EffectiveId(bot_id)
    pools = dimensions.get("pool", ())
    if len(values) > 1:
        said = f'the dimension "{config.effective_key}" has {len(values)} values, '
        return EffectiveId(problem=said + "the effective bot id needs one")
    if len(pools) > 1:
        return EffectiveId(problem=f"an effective bot id needs one pool, not {len(pools)}")
    return EffectiveId(f"{config.effective_pool}:{config.effective_key}:{values[0]}")
