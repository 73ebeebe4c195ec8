"""How often one caller may call: token buckets, counted in the memory of one process."""

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Network

MAX_BUCKETS = 50_000
"""Callers remembered; the one not heard for the longest is forgotten first."""


def network_of(address: str) -> str:
    """Who stands behind an address: itself, or its /64, of which one machine has every address."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address, 64), strict=False))
    except ValueError:  # the name of something that has no address
        return address


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls a second for as long as you like, and `burst` at once. 0 a second: no limit."""

    per_s: float
    burst: float


@dataclass(slots=True)
class TokenBuckets:
    """One bucket a caller. Time comes in as monotonic seconds."""

    rate: Rate
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, caller: str, now_s: float) -> bool:
        """Count a call; False when the caller has none left."""
        rate = self.rate
        if not rate.per_s:
            return True
        left, then_s = self._left.get(caller, (rate.burst, now_s))
        left = min(rate.burst, left + (now_s - then_s) * rate.per_s)
        allowed = left >= 1
        self._left[caller] = (left - 1 if allowed else left, now_s)
        self._left.move_to_end(caller)
        if len(self._left) > MAX_BUCKETS:
            self._left.popitem(last=False)
        return allowed

    def left(self, caller: str, now_s: float) -> int:
        """How many calls the caller may make at once. Counts nothing."""
        left, then_s = self._left.get(caller, (self.rate.burst, now_s))
        return int(min(self.rate.burst, left + (now_s - then_s) * self.rate.per_s))

    def is_empty(self, caller: str, now_s: float) -> bool:
        """Would a call be refused? Counts nothing."""
        if not self.rate.per_s or caller not in self._left:
            return False
        left, then_s = self._left[caller]
        return left + (now_s - then_s) * self.rate.per_s < 1
