"""HMAC-SHA256 tags and AES-256-GCM boxes under a key that can be rotated (bot-api 2.2, 2.3).

The prefix keeps the purposes of one key apart. Nothing stands between prefix and body of a
tag: that is upstream's layout, so a purpose's prefix must not begin with another's. A box has
a key of its own, derived from the secret.
"""

import hmac
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
_BOX_KEY_BYTES = 32
_DERIVED_KEYS = 64


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


def seal(secret: Secret, info: bytes, purpose: bytes, body: bytes, nonce: bytes) -> bytes:
    """Nonce and cipher text of a body, under a key that `info` derives from the active one.

    `purpose` is authenticated with it. A nonce of 12 bytes must never be used again.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return nonce + _box(secret.active, info).encrypt(nonce, body, purpose)


def unseal(secret: Secret, info: bytes, purpose: bytes, sealed: bytes) -> bytes | None:
    """The body in a box made with the active key or a passive one; None when it is no such."""
    nonce, cipher_text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    if len(nonce) != NONCE_BYTES:
        return None
    for key in (secret.active, *secret.passive):
        try:
            return _box(key, info).decrypt(nonce, cipher_text, purpose)
        except InvalidTag:
            continue
    return None


@lru_cache(maxsize=_DERIVED_KEYS)
def _box(key: bytes, info: bytes) -> AESGCM:
    derived = HKDF(SHA256(), _BOX_KEY_BYTES, salt=None, info=info).derive(key)
    return AESGCM(derived)
