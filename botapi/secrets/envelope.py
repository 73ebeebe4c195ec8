"""Sealed secrets: AES-256-GCM under a data key of their own, which a key-encryption key wraps.

Both layers are bound to what the secret is for (scope, name, version): a sealed value that is
moved to another place does not open there (reliability-security section 5, Secrets).
"""

from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from botapi.clock import Rng

KEY_BYTES = 32
NONCE_BYTES = 12


class BadSeal(Exception):
    """It does not open: the key is gone, or the bytes or their place were changed."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a sealed value belongs to: its scope (`pool` secret, `task`), name and version."""

    scope: str
    name: str
    version: int

    @property
    def bound(self) -> bytes:
        """The bytes that are authenticated beside the value; no two places have the same."""
        parts = (self.scope, self.name, str(self.version))
        return b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed value: nonce and ciphertext of both layers, and which key wraps."""

    key_id: str
    wrapped_key: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class KeyEncryptionKeys:
    """Key ids and keys of 32 bytes; the first one wraps, all of them open."""

    keys: tuple[tuple[str, bytes], ...] = field(repr=False)

    @property
    def active_id(self) -> str:
        """The id of the key that wraps."""
        return self.keys[0][0]

    def seal(self, place: Place, value: bytes, rng: Rng) -> Sealed:
        """Seal a value for this place."""
        data_key = _random(rng, KEY_BYTES)
        ciphertext = _encrypt(data_key, value, place, rng)
        key_id, key = self.keys[0]
        return Sealed(key_id, _encrypt(key, data_key, place, rng), ciphertext)

    def open(self, place: Place, sealed: Sealed) -> bytes:
        """The value. Raises BadSeal."""
        data_key = _decrypt(self._key(sealed.key_id), sealed.wrapped_key, place)
        return _decrypt(data_key, sealed.ciphertext, place)

    def rewrap(self, place: Place, sealed: Sealed, rng: Rng) -> Sealed:
        """The same value under the key that wraps now. Raises BadSeal."""
        data_key = _decrypt(self._key(sealed.key_id), sealed.wrapped_key, place)
        key_id, key = self.keys[0]
        return replace(sealed, key_id=key_id, wrapped_key=_encrypt(key, data_key, place, rng))

    def _key(self, key_id: str) -> bytes:
        for known, key in self.keys:
            if known == key_id:
                return key
        raise BadSeal(f"the key {key_id} is not in the key file")


def _random(rng: Rng, count: int) -> bytes:
    return rng.randbits(8 * count).to_bytes(count, "big")


def _encrypt(key: bytes, value: bytes, place: Place, rng: Rng) -> bytes:
    nonce = _random(rng, NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, value, place.bound)


def _decrypt(key: bytes, sealed: bytes, place: Place) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.bound)
    except (InvalidTag, ValueError):
        raise BadSeal(f"{place.scope} {place.name} version {place.version} does not open") from None
