"""Time and chance that a test decides."""


class FixedClock:
    """Stands still until a test moves it."""

    def __init__(self, now_ms=1_772_604_367_000):
        self.ms = now_ms
        self.seconds = 1_000.0

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.seconds

    def advance(self, seconds):
        self.ms += int(seconds * 1000)
        self.seconds += seconds


class CountingRng:
    """Different every time, the same in every run."""

    def __init__(self):
        self.count = 0

    def uniform(self, low, high):
        return low

    def randbits(self, count):
        self.count += 1
        return self.count * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << count)

    def token(self, byte_count):
        self.count += 1
        return f"{self.count:0{byte_count * 4 // 3 + 1}d}"
