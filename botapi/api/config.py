"""The bots.cfg in force, and what is wrong with the one on disk."""

from botapi.api.parts import ApiParts, Json
from botapi.api.views import rfc3339


def bots_cfg(parts: ApiParts) -> Json:
    """The text in force. `error` tells that the file on disk is newer and refused."""
    snapshot = parts.config.latest()
    rejected = parts.config.rejected()
    mistake = rejected.mistakes[0] if rejected and rejected.mistakes else None
    return {
        "digest": snapshot.digest,
        "text": snapshot.source.bots,
        "applied_at": rfc3339(snapshot.applied_at_ms),
        "error": mistake.removeprefix("bots.cfg:") if mistake else None,
    }
