"""Which archive runs next, and which versions proved bad: one small file in the bot directory.

Starter and supervisor both write it, never at the same time: the starter only while no
supervisor runs.
"""

import json
import os
from typing import Any, NamedTuple, Optional

from bot_client import archive

Json = dict[str, Any]

STATE_NAME = "slots.json"
LAST_GOOD = "swarming_bot.zip"
SLOTS = ("swarming_bot.1.zip", "swarming_bot.2.zip")
FAILURES_TO_WAIT = 3
FAILURE_WINDOW_S = 3600.0
BAD_WAIT_S = 900.0


class Failure(NamedTuple):
    """One version that died on probation; ``at`` is Unix time."""

    version: str
    at: float
    reason: str


class SlotState:
    """The file's content.  A file that cannot be read counts as empty: it only adds caution."""

    def __init__(self, bot_dir: str) -> None:
        """Load it."""
        self._path = os.path.join(bot_dir, STATE_NAME)
        self.run: str = ""
        self.probation: Optional[str] = None
        self.failures: list[Failure] = []
        self.unreported: list[str] = []
        self._load()

    def _load(self) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                raw = json.load(file)
            self.run = str(raw["run"]) if raw["run"] in SLOTS else ""
            self.probation = str(raw["probation"]) if raw["probation"] else None
            self.failures = [Failure(str(v), float(at), str(why)) for v, at, why in raw["failures"]]
            self.unreported = [str(text) for text in raw["unreported"]]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def save(self) -> None:
        """Write it whole."""
        content = {
            "run": self.run,
            "probation": self.probation,
            "failures": self.failures[-20:],
            "unreported": self.unreported[-5:],
        }
        archive.write_whole(self._path, json.dumps(content).encode())

    def fail_probation(self, reason: str, now_wall: float) -> None:
        """The version on probation died: remember it, and tell the server later."""
        version = self.probation or "?"
        self.failures.append(Failure(version, now_wall, reason))
        self.unreported.append(f"version {version} died on probation: {reason}")
        self.probation = None
        self.run = ""

    def wait_s(self, version: str, now_wall: float) -> float:
        """Seconds before this version may be tried again, after it died on probation."""
        recent = [f.at for f in self.failures if f.version == version]
        recent = [at for at in recent if 0 <= now_wall - at < FAILURE_WINDOW_S]
        if len(recent) < FAILURES_TO_WAIT:
            return 0.0
        return max(0.0, max(recent) + BAD_WAIT_S - now_wall)


def other_slot(running: str) -> str:
    """The slot that the running archive does not use."""
    return SLOTS[1] if os.path.basename(running) == SLOTS[0] else SLOTS[0]
