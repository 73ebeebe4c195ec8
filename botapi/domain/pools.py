"""What pools.cfg means, without its syntax."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class SchedulingAlgorithm(StrEnum):
    """In which order slices of equal priority are offered."""

    FIFO = "fifo"
    LIFO = "lifo"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool (bot-api 7.7). `line` is where it begins in pools.cfg.

    `rbe_modes` are percents of the bots in the order SWARMING, HYBRID, RBE; they sum to
    100, or there are none: then every bot is in mode SWARMING (bot-api 3.7).
    """

    name: str
    realm: str
    default_task_realm: str = ""
    owners: tuple[str, ...] = ()
    scheduling_algorithm: SchedulingAlgorithm = SchedulingAlgorithm.FIFO
    informational_dimensions: tuple[re.Pattern[str], ...] = ()
    rbe_instance: str = ""
    rbe_modes: tuple[tuple[str, int], ...] = ()
    effective_bot_id_dimension: str = ""
    allowed_service_accounts: frozenset[str] = frozenset()
    line: int = 0


@dataclass(frozen=True, slots=True)
class PoolsConfig:
    """The pools by name. Without a pools.cfg there are none, and nothing is demanded of a pool."""

    pools: Mapping[str, Pool] = field(default_factory=dict)

    @classmethod
    def of(cls, pools: Iterable[Pool]) -> "PoolsConfig":
        """Index the pools by name."""
        return cls({pool.name: pool for pool in pools})

    def pool(self, name: str) -> Pool | None:
        """The pool of that name; None when pools.cfg does not know it."""
        return self.pools.get(name)
