"""HMAC-SHA256 tags under a key that can be rotated (bot-api 2.2, 2.3).

The prefix keeps the purposes of one key apart. Nothing stands between prefix and body:
that is upstream's layout, so a purpose's prefix must not begin with another's.
"""

import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """The key that signs, and the keys that are still (or already) accepted beside it."""

    active: bytes = field(repr=False)
    passive: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not all((self.active, *self.passive)):
            raise ValueError("an empty key signs nothing")


def tag(secret: Secret, prefix: bytes, body: bytes) -> bytes:
    """The 32-byte tag of a body, made with the active key."""
    return hmac.digest(secret.active, prefix + body, "sha256")


def verify(secret: Secret, prefix: bytes, body: bytes, mac: bytes) -> bool:
    """Was this tag made with the active key or a passive one? Compares in constant time."""
    message = prefix + body
    return any(
        hmac.compare_digest(hmac.digest(key, message, "sha256"), mac)
        for key in (secret.active, *secret.passive)
    )
