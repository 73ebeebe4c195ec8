"""A clock for tests of the bot: waiting moves it, chance is the middle."""

from bot_client.clock import Clock


class FakeClock(Clock):
    """Starts at 1000 s; every wait is recorded and passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1_700_000_000.0 + self.at

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.at += max(0.0, seconds)
        return False
