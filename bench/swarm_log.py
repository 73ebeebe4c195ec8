"""What a swarm writes down: one fixed record for each call, one line for each second."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALL = struct.Struct("<ddHBB")
"""Begin and end in monotonic seconds, HTTP status (0: no answer), kind, Retry-After seconds."""
KINDS = ("handshake", "poll", "create", "ask", "hold", "report")
"""`ask`: for work, without being held. `report`: a bot speaks of the run it has."""
CALLS_FILE, SECONDS_FILE = "calls.bin", "seconds.jsonl"


@dataclass(frozen=True, slots=True)
class Made:
    """One call of one bot."""

    began: float
    ended: float
    status: int
    kind: str
    retry_after: int

    @property
    def seconds(self) -> float:
        """From the request's bytes to the answer's, as the kernel had them; without connecting."""
        return self.ended - self.began


def read_calls(folder: Path) -> list[Made]:
    """Every call so far, in the order of their ends."""
    raw = (folder / CALLS_FILE).read_bytes()
    whole = len(raw) // CALL.size * CALL.size
    return [
        Made(began, ended, status, KINDS[kind], wait)
        for began, ended, status, kind, wait in CALL.iter_unpack(raw[:whole])
    ]


def last_second(folder: Path) -> dict[str, Any]:
    """The newest line: `{"at": monotonic, "bots": {state: count}, "errors": [...]}`, or `{}`."""
    path = folder / SECONDS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    for line in reversed(lines):
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:  # half of it is written
            continue
        return found
    return {}
