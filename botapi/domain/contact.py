"""How long a bot may be out of contact before its run is called dead (the contact rule).

The bot stops its task after `contact_s` without a good answer, and then has its grace
period to do it; only after that, with a margin, may the server give up on the run.
"""

from collections.abc import Mapping
from typing import Any

MARGIN_S = 60.0
DEFAULT_CONTACT_S = 600.0
"""For a bot of which no contact rule is known."""
DEFAULT_GRACE_S = 30.0


def silence_limit_s(bot_death_s: float, contact_s: float, grace_s: float, flush_s: float) -> float:
    """Seconds of silence, of which the server itself was up, after which a bot is dead.

    `flush_s`: how old the stored "last seen" may be after a crash of the server.
    """
    return max(bot_death_s, contact_s + grace_s + MARGIN_S) + flush_s


def may_run_on_s(contact_s: float, state: Mapping[str, Any] | None) -> float:
    """Seconds, its grace apart, that a process may run its task after it lost its bot id.

    It hears of that with its next call, or stops by the contact rule. `state` is what it said
    of itself last: only a bot of ours keeps a rule shorter than usual.
    """
    client = (state or {}).get("client")
    is_ours = isinstance(client, Mapping) and client.get("name") == "skep"
    return (contact_s if is_ours else max(contact_s, DEFAULT_CONTACT_S)) + MARGIN_S


def silent_s(now_ms: int, seen_ms: int, ready_ms: int) -> float:
    """For how long a bot has been silent while the server could have heard it."""
    return (now_ms - max(seen_ms, ready_ms)) / 1000
