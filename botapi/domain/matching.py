"""Does this bot fit this slice, and in which order do slices go."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from botapi.domain.task import Dimensions

MAX_ALTERNATIVES = 512
MAX_COMBINATIONS = 8


@dataclass(frozen=True, slots=True)
class Queue:
    """The pending slices that ask for the same dimensions; `key` is content-addressed."""

    pool: str
    digest: str
    constraints: tuple[frozenset[str], ...]
    """Each is a set of flat `key:value`; a bot must hold at least one of every set."""


def constraints(dimensions: Dimensions) -> tuple[frozenset[str], ...]:
    """One set of flat alternatives for every constraint of every key (bot-api 10.1)."""
    return tuple(
        frozenset(f"{key}:{value}" for value in constraint.split("|"))
        for key in sorted(dimensions)
        for constraint in sorted(dimensions[key])
    )


def queue_of(dimensions: Dimensions) -> Queue:
    """The queue of a slice; equal dimensions give the same queue, in whatever order written."""
    parts = constraints(dimensions)
    text = "\n".join("|".join(sorted(part)) for part in parts)
    pool = dimensions.get("pool", ("",))[0]
    return Queue(pool, hashlib.sha256(text.encode()).hexdigest()[:32], parts)


def fits(bot_dimensions: frozenset[str], wanted: Iterable[frozenset[str]]) -> bool:
    """Does a bot with these flat dimensions meet every constraint?"""
    return all(not alternatives.isdisjoint(bot_dimensions) for alternatives in wanted)


def first_unmet(
    bot_dimensions: frozenset[str], wanted: Iterable[frozenset[str]]
) -> frozenset[str] | None:
    """The first constraint the bot does not meet, None when it fits."""
    for alternatives in wanted:
        if alternatives.isdisjoint(bot_dimensions):
            return alternatives
    return None


def problems(dimensions: Dimensions) -> list[str]:
    """What a task's dimensions break of bot-api 10.1, one line each."""
    found: list[str] = []
    pools = dimensions.get("pool", ())
    if len(pools) != 1 or "|" in pools[0]:
        found.append('dimensions need exactly one "pool", without "|"')
    ids = dimensions.get("id", ())
    if len(ids) > 1 or any("|" in value for value in ids):
        found.append('dimensions may name at most one "id", without "|"')
    total, product = 0, 1
    for key, values in dimensions.items():
        if len(set(values)) != len(values):
            found.append(f'dimension "{key}" repeats a constraint')
        for constraint in values:
            alternatives = constraint.split("|")
            total += len(alternatives)
            product *= len(alternatives)
            if len(set(alternatives)) != len(alternatives):
                found.append(f'dimension "{key}" repeats an alternative in "{constraint}"')
    if total > MAX_ALTERNATIVES:
        found.append(f"dimensions have {total} alternatives, at most {MAX_ALTERNATIVES}")
    if product > MAX_COMBINATIONS:
        found.append(f"dimensions combine to {product} sets, at most {MAX_COMBINATIONS}")
    return found


def dimension_hash(dimensions: Mapping[str, Sequence[str]]) -> int:
    """The 32-bit hash of bot-api 10.2; never 0."""
    digest = hashlib.md5(usedforsecurity=False)
    for key in sorted(dimensions):
        digest.update(key.encode() + b"\0")
        for value in dimensions[key]:
            digest.update(value.encode() + b"\0")
    return int.from_bytes(digest.digest()[:4], "little") or 1


def shard(dimensions: Mapping[str, Sequence[str]]) -> int:
    """The `task_to_run_shard` of a slice, 0..15."""
    return dimension_hash(dimensions) % 16
