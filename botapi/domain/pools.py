"""What pools.cfg means, without its syntax."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from botapi.domain.access_rules import Granting
from botapi.domain.artifacts import CipdInput


class SchedulingAlgorithm(StrEnum):
    """In which order slices of equal priority are offered."""

    FIFO = "fifo"
    LIFO = "lifo"


@dataclass(frozen=True, slots=True)
class TemplateEnv:
    """One environment variable that a template sets.

    `prefixes` are put before the value of a variable that lists paths. A soft variable
    gives way to a task that sets it itself.
    """

    name: str
    value: str = ""
    prefixes: tuple[str, ...] = ()
    is_soft: bool = False


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """What is added to tasks of a pool; `caches` are pairs of name and path."""

    name: str = ""
    include: tuple[str, ...] = ()
    caches: tuple[tuple[str, str], ...] = ()
    env: tuple[TemplateEnv, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateDeployment:
    """Which template the tasks of a pool get: `canary` with a chance in 1/10000, else `prod`.

    Both are resolved: they include nothing any more.
    """

    name: str = ""
    prod: TaskTemplate = TaskTemplate()
    canary: TaskTemplate | None = None
    canary_chance: int = 0


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
    task_templates: TemplateDeployment | None = None
    scheduling_algorithm: SchedulingAlgorithm = SchedulingAlgorithm.FIFO
    informational_dimensions: tuple[re.Pattern[str], ...] = ()
    rbe_instance: str = ""
    rbe_modes: tuple[tuple[str, int], ...] = ()
    effective_bot_id_dimension: str = ""
    allowed_service_accounts: frozenset[str] = frozenset()
    grantings: tuple[Granting, ...] = ()
    line: int = 0

    def is_informational(self, key: str) -> bool:
        """Is a dimension of this key shown only? Some regex fits a part of the key."""
        return any(pattern.search(key) for pattern in self.informational_dimensions)


@dataclass(frozen=True, slots=True)
class PoolsConfig:
    """The pools by name. Without a pools.cfg there are none, and nothing is demanded of a pool."""

    pools: Mapping[str, Pool] = field(default_factory=dict)
    default_cipd: CipdInput | None = None
    """Server and client of packages, for tasks that do not say them."""

    @classmethod
    def of(cls, pools: Iterable[Pool], default_cipd: CipdInput | None = None) -> "PoolsConfig":
        """Index the pools by name; of two with one name the first one wins."""
        by_name: dict[str, Pool] = {}
        for pool in pools:
            by_name.setdefault(pool.name, pool)
        return cls(by_name, default_cipd)

    def pool(self, name: str) -> Pool | None:
        """The pool of that name; None when pools.cfg does not know it."""
        return self.pools.get(name)


def resolve(template: TaskTemplate, templates: Mapping[str, TaskTemplate]) -> TaskTemplate:
    """The template with all that it includes, depth first, each template once (bot-api 7.7).

    What is included comes first. Of a cache the last path counts; of a variable the last
    value that is not empty, the last word about being soft, and all prefixes in order.
    Unknown templates are passed over.
    """
    caches: dict[str, str] = {}
    env: dict[str, TemplateEnv] = {}
    for part in _depth_first(template, templates):
        caches.update(part.caches)
        for new in part.env:
            old = env.get(new.name, TemplateEnv(new.name))
            env[new.name] = TemplateEnv(
                new.name, new.value or old.value, old.prefixes + new.prefixes, new.is_soft
            )
    return TaskTemplate(template.name, caches=tuple(caches.items()), env=tuple(env.values()))


def _depth_first(
    template: TaskTemplate, templates: Mapping[str, TaskTemplate]
) -> list[TaskTemplate]:
    seen = {template.name}
    found: list[TaskTemplate] = []
    open_: list[tuple[TaskTemplate, Iterator[str]]] = [(template, iter(template.include))]
    while open_:
        here, includes = open_[-1]
        name = next((name for name in includes if name in templates and name not in seen), None)
        if name is None:
            found.append(here)
            open_.pop()
        else:
            seen.add(name)
            open_.append((templates[name], iter(templates[name].include)))
    return found


def include_cycle(name: str, templates: Mapping[str, TaskTemplate]) -> tuple[str, ...]:
    """A way from this template back to itself, both ends named; empty when there is none."""
    came_from: dict[str, str] = {}
    left = [name]
    while left:
        here = left.pop()
        for included in templates[here].include if here in templates else ():
            if included == name:
                way = [name, here]
                while way[-1] != name:
                    way.append(came_from[way[-1]])
                return tuple(reversed(way))
            if included not in came_from:
                came_from[included] = here
                left.append(included)
    return ()
