"""Which part of the fleet a bot belongs to, by a hash of its id (bot-api 8.3)."""

from hashlib import sha256

_SEED = b"bot-channel:"
"""Differs from the seed of the bot modes (bot-api 3.7), so that the two draws are independent."""


def bucket(bot_id: str) -> int:
    """0 to 99, the same on every server and for ever; percent `p` are the buckets below `p`."""
    drawn = int.from_bytes(sha256(_SEED + bot_id.encode()).digest()[:2], "little")
    return int(drawn * 99.9 / 65792)
