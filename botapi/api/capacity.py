"""Can any bot that is known run this? And when none can: what is it that none has?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from botapi.clock import Clock
from botapi.domain.errors import Code, Refusal
from botapi.domain.matching import constraints, queue_of
from botapi.domain.task import Slice
from botapi.scheduler.known_bots import Constraint, any_bot, fits_one_query, tags_of
from botapi.store import codec
from botapi.store.protocol import Store

KEEP_S = 60.0
"""How long it is believed that a queue has a bot."""
KEEP_LINE_S = 1.0
"""How long a reason for being pending is given again: many tasks share one."""
MAX_QUEUES = 10_000
MAX_CONSTRAINTS_SEARCHED = 20
COUNTED = 10_000
"""Bots counted no further."""


class NoCapacity(Refusal):
    """No known bot could ever run the task: HTTP 409, code `no_capacity`."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.ABORTED, message)


@dataclass(slots=True)
class Capacity:
    """Remembers for a while which queues have bots; a "no" is never remembered."""

    store: Store
    clock: Clock
    _known: dict[str, float] = field(default_factory=dict)
    _lines: dict[str, tuple[float, str]] = field(default_factory=dict)

    def check(self, slices: Sequence[Slice]) -> None:
        """Raise NoCapacity when no bot could run any slice and none says it would wait."""
        if any(slice_.wait_for_capacity for slice_ in slices):
            return
        if any(self._has_bot(slice_) for slice_ in slices):
            return
        lines = [
            f"/slices/{index}: {self._miss(slice_)}" if len(slices) > 1 else self._miss(slice_)
            for index, slice_ in enumerate(slices)
        ]
        raise NoCapacity(
            "; ".join(lines) + '; add such a bot, ask for less, or say "wait_for_capacity": true'
        )

    def matching(self, slice_: Slice) -> int | None:
        """How many known bots, in whatever health, have its dimensions; None if too many to ask."""
        wanted = constraints(slice_.dimensions)
        if not fits_one_query(wanted):
            return None
        return self.store.count(codec.BOT, tags_of(wanted), up_to=COUNTED)

    def line(self, key: str, make: Callable[[], str]) -> str:
        """The line of this key, made anew when it is older than a second."""
        now = self.clock.monotonic()
        made_at, line = self._lines.get(key, (float("-inf"), ""))
        if now - made_at >= KEEP_LINE_S:
            line = make()
            if len(self._lines) >= MAX_QUEUES:
                self._lines.clear()
            self._lines[key] = (now, line)
        return line

    def missing(self, wanted: Sequence[Constraint]) -> str:
        """What no bot has, as one phrase: `os:Windows`, or several of them."""
        unmet = _nearest_miss(lambda some: any_bot(self.store, some) is not None, wanted)
        return " and ".join("|".join(sorted(alternatives)) for alternatives in unmet)

    def _has_bot(self, slice_: Slice) -> bool:
        key = codec.queue_key(queue_of(slice_.dimensions))
        now = self.clock.monotonic()
        if self._known.get(key, 0.0) > now:
            return True
        if any_bot(self.store, constraints(slice_.dimensions)) is None:
            return False
        if len(self._known) >= MAX_QUEUES:
            self._known.clear()
        self._known[key] = now + KEEP_S
        return True

    def _miss(self, slice_: Slice) -> str:
        if any_bot(self.store, ()) is None:
            return "there are no bots yet"
        return f"no known bot has {self.missing(constraints(slice_.dimensions))}"


def _nearest_miss(
    has_bot: Callable[[Sequence[Constraint]], bool], wanted: Sequence[Constraint]
) -> list[Constraint]:
    """The fewest constraints without which some bot would do, as far as that is cheap.

    First one alone, then whatever is left when constraints are given up in order.
    """
    searched = wanted[:MAX_CONSTRAINTS_SEARCHED]
    for index, constraint in enumerate(searched):
        if has_bot([*wanted[:index], *wanted[index + 1 :]]):
            return [constraint]
    met: list[Constraint] = []
    unmet: list[Constraint] = []
    for constraint in searched:
        if has_bot([*met, constraint]):
            met.append(constraint)
        else:
            unmet.append(constraint)
    return unmet or list(searched)
