"""Many seeds: on several processes at once, with what they injected and found added up."""

import gc
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context

from tests.sim.checker import check, slice_of
from tests.sim.engines import Databases
from tests.sim.mutants import MUTANTS
from tests.sim.run import Sim, shared

CHUNK = 50
ENGINE_CHUNK = 10
MAX_FOUND = 5


@dataclass
class Total:
    """What some seeds gave. `rules` counts violations, `found` is their text, the first ones."""

    seeds: int = 0
    calls: int = 0
    turns: int = 0
    virtual_s: float = 0.0
    seconds: float = 0.0
    faults: Counter = field(default_factory=Counter)
    states: Counter = field(default_factory=Counter)
    rules: Counter = field(default_factory=Counter)
    found: list = field(default_factory=list)

    def add(self, other):
        for name in ("seeds", "calls", "turns", "virtual_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("faults", "states", "rules"):
            getattr(self, name).update(getattr(other, name))
        self.found = (self.found + other.found)[:MAX_FOUND]

    def report(self):
        lines = [
            f"{self.seeds} seeds in {self.seconds:.1f} s: {self.seeds / self.seconds:.0f} a second",
            f"{self.calls} calls, {self.turns} turns, {self.virtual_s / 3600:.1f} virtual hours",
            "faults: " + _counts(self.faults),
            "ends: " + _counts(self.states),
            "violations: " + (_counts(self.rules) or "none"),
        ]
        return "\n".join(lines)


def _counts(counter):
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


def one(seed, databases=None):
    """Run and check one seed; its total. On a fresh one of the databases, if there are any."""
    result = Sim(seed).run() if databases is None else _run_on(databases, seed)
    violations = check(result)
    total = Total(1, result.calls, result.turns, result.ends_at_s)
    total.faults = Counter(result.history.faults)
    kind = result.ground.contents().get("task")
    for tag, keys in (kind.tagged if kind is not None else {}).items():
        if tag.startswith("st:") and keys:
            total.states[tag[3:]] += len(keys)
    total.rules = Counter(violation.rule for violation in violations)
    if violations:
        total.found = [_text(seed, result, violations[0])]
    return total


def _run_on(databases, seed):
    with databases.empty() as engine:
        result = Sim(seed, engine).run()
        result.ground.check_same()
    return result


def _text(seed, result, violation):
    lines = slice_of(result, violation)
    head = f"seed {seed}: {violation.rule}: {violation.text} {violation.keys}"
    return "\n".join([head, *("    " + line[:400] for line in lines)])


def chunk(start, count, mutant="", address=""):
    """Some seeds one after the other in this process, on databases below an address if given."""
    total = Total()
    shared()  # before the bug is there: what all seeds share is sound
    with (
        MUTANTS[mutant].applied() if mutant else nullcontext(),
        rare_collections(),
        closing(Databases(address)) if address else nullcontext() as databases,
    ):
        for seed in range(start, start + count):
            total.add(one(seed, databases))
    return total


@contextmanager
def rare_collections():
    """A run leaves cycles behind, but not many: collecting them after each chunk is enough."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def hunt(mutant, limit):
    """How many seeds it takes until this bug breaks one of its promises; 0 for never."""
    shared()  # as above
    with MUTANTS[mutant].applied(), rare_collections():
        for seed in range(limit):
            if one(seed).rules.keys() & MUTANTS[mutant].rules:
                return seed + 1
    return 0


def campaign(start, seeds, *, jobs=1, mutant="", address="", at_least=0, until_s=0.0):
    """All seeds; with `at_least` no more than these once `until_s` seconds are over."""
    total, began = Total(), time.monotonic()
    size = ENGINE_CHUNK if address else CHUNK
    starts = range(start, start + seeds, size)
    counts = [min(size, start + seeds - first) for first in starts]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for part in pool.map(chunk, starts, counts, repeat(mutant), repeat(address)):
            total.add(part)
            is_late = time.monotonic() - began >= until_s
            if at_least and is_late and total.seeds >= at_least:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    total.seconds = time.monotonic() - began
    return total


def digest_elsewhere(seed, hash_seed):
    """The digest of a seed's history in a fresh interpreter with that PYTHONHASHSEED."""
    code = f"from tests.sim.run import Sim; print(Sim({seed}).run().history.digest())"
    environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()
