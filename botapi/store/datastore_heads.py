"""Where `take` looks on Datastore: at the heads of its ranges, and beside them under contention.

Two processes that take the same lowest key conflict, and one of them has worked for nothing.
So after a conflict a process looks at a random place among the first WINDOW keys; after
some commits without conflict it is back at the very head, lowest keys first.
Where many documents were deleted a query walks over what is left of them, so the lowest key
that was there is remembered for REMEMBER_S.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from botapi.clock import Clock, Rng
from botapi.store.documents import Write
from botapi.store.protocol import Key

WINDOW = 64
REMEMBER_S = 1.0
"""A lower key that another process writes is found after this time at the latest."""
MAX_REMEMBERED = 1_000
CALM = 0
UPROAR = 4
"""Commits of `take` without conflict until it begins at the head again."""


class Ask(Protocol):
    """Keys of a kind with lo <= key < hi in order; `after` excludes lo itself."""

    def __call__(self, lo: Key, hi: Key, limit: int, *, after: bool = False) -> list[Key]:
        """Ask the database."""
        ...


class Heads:
    """What one process knows of the ranges it takes from; races here cost a look, no more."""

    def __init__(self, clock: Clock, rng: Rng) -> None:
        self._clock = clock
        self._rng = rng
        self._uproar = CALM
        self._lowest: dict[tuple[str, Key], tuple[Key, float]] = {}

    def lost(self) -> None:
        """A `take` of this process met another one."""
        self._uproar = UPROAR

    def won(self) -> None:
        """A `take` of this process was alone."""
        self._uproar = max(CALM, self._uproar - 1)

    def candidates(self, kind: str, lo: Key, hi: Key, n: int, ask: Ask) -> Iterator[Key]:
        """The keys of a range in the order in which to try them, n of them wanted."""
        if lo >= hi:
            return
        limit = n if self._uproar == CALM else max(n, WINDOW)
        start = self._start(kind, lo)
        keys = ask(start, hi, limit)
        if not keys and start != lo:
            keys = ask(lo, hi, limit)
        self._remember(kind, lo, keys)
        yield from self._turned(keys)
        while len(keys) >= limit:
            keys = ask(keys[-1], hi, limit, after=True)
            yield from keys

    def written(self, kind: str, writes: Iterable[tuple[Key, Write]]) -> None:
        """Forget what a commit of this process made untrue."""
        if not self._lowest:
            return
        put = [key for key, write in writes if write.packed is not None]
        for place, (lowest, _) in list(self._lowest.items()):
            if place[0] == kind and any(place[1] <= key < lowest for key in put):
                self._lowest.pop(place, None)

    def _start(self, kind: str, lo: Key) -> Key:
        lowest, until = self._lowest.get((kind, lo), (lo, 0.0))
        return lowest if self._clock.monotonic() < until else lo

    def _remember(self, kind: str, lo: Key, keys: list[Key]) -> None:
        if not keys:
            self._lowest.pop((kind, lo), None)
        elif self._start(kind, lo) == lo:
            if len(self._lowest) >= MAX_REMEMBERED:
                self._lowest.clear()
            self._lowest[kind, lo] = (keys[0], self._clock.monotonic() + REMEMBER_S)

    def _turned(self, keys: list[Key]) -> list[Key]:
        """The keys from a random one on, then those before it; as they are when all is calm."""
        if self._uproar == CALM or not keys:
            return keys
        start = int(self._rng.uniform(0.0, len(keys))) % len(keys)
        return keys[start:] + keys[:start]
