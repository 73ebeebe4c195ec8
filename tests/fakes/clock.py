"""Time and chance that a test turns by hand."""

import itertools


class FakeClock:
    """Stands still until `advance`."""

    def __init__(self, now_ms: int = 1_772_604_367_089) -> None:
        self._now_ms = now_ms
        self._monotonic = 1_000.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)
        self._monotonic += seconds


class FakeRng:
    """Counts instead of rolling dice: every identifier differs, every interval is its low end."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def uniform(self, low: float, high: float) -> float:
        return low

    def randbits(self, count: int) -> int:
        return next(self._count) % (1 << count)

    def token(self, byte_count: int) -> str:
        return f"token{next(self._count):0>{byte_count * 4 // 3 - 4}}"
