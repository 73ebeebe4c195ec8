"""Time and chance are inputs: everything above takes a Clock or an Rng."""

import random
import secrets
import time
from typing import Protocol

DAY_MS = 86_400_000


class Clock(Protocol):
    """Wall time in milliseconds since 1970 for records, monotonic seconds for waits."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; only differences mean anything."""
        ...


class Rng(Protocol):
    """Randomness for identifiers and jitter."""

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        ...

    def randbits(self, count: int) -> int:
        """An integer of that many random bits, good enough for identifiers."""
        ...

    def token(self, byte_count: int) -> str:
        """URL-safe text of that many random bytes, good enough for secrets."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()


class SystemRng:
    """Jitter from `random`, identifiers and secrets from the operating system."""

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return random.uniform(low, high)

    def randbits(self, count: int) -> int:
        """An integer of that many bits from the operating system."""
        return secrets.randbits(count)

    def token(self, byte_count: int) -> str:
        """URL-safe text of that many bytes from the operating system."""
        return secrets.token_urlsafe(byte_count)
