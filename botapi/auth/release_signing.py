"""Ed25519 over the manifest of a bot archive (docs/archives.md, "Signatures").

Release keys are made and kept by people; the server knows their public halves from
settings.cfg. What a server builds from its own sources it signs with a development key,
made from its key set of the purpose `development`.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from botapi.domain.manifest import (
    GENERATED,
    MANIFEST,
    SIGNATURE,
    BadManifest,
    Label,
    Manifest,
    Signature,
    check_members,
    read_manifest,
    read_signature,
    signature_bytes,
)

DEVELOPMENT = "development"
"""Purpose of the key set that development keys are made from."""
_DERIVE = b"skep development archive key\0"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: 32 bytes of Ed25519 by key id, for each kind."""

    release: Mapping[str, bytes]
    development: Mapping[str, bytes]

    def key(self, signature: Signature) -> bytes | None:
        """The public key that a signature names; None when it is not trusted."""
        keys = self.release if signature.kind is Label.RELEASE else self.development
        return keys.get(signature.key_id)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a checked archive says, and who vouches for it."""

    manifest: Manifest
    label: Label
    key_id: str


def development_key(secret: bytes) -> Ed25519PrivateKey:
    """The development key that is made from one key of the key set; always the same."""
    return Ed25519PrivateKey.from_private_bytes(sha256(_DERIVE + secret).digest())


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def key_id_of(public: bytes) -> str:
    """The name of a development key: 16 hex digits of its public half's SHA-256."""
    return sha256(public).hexdigest()[:16]


def sign_manifest(key: Ed25519PrivateKey, kind: Label, key_id: str, manifest: bytes) -> bytes:
    """The content of `manifest.sig` for these exact bytes; the same input, the same bytes."""
    sig = b64encode(key.sign(manifest)).decode()
    return signature_bytes(Signature(kind, key_id, sig))


def verify_archive(content: Mapping[str, bytes], trust: Trust) -> Verified | None:
    """Check the members of an archive; None when it has neither manifest nor signature.

    Raises BadManifest when there is one and it does not prove every member.
    """
    raw, sealed = content.get(MANIFEST), content.get(SIGNATURE)
    if raw is None and sealed is None:
        return None
    if raw is None or sealed is None:
        lacking = MANIFEST if raw is None else SIGNATURE
        raise BadManifest(f"there is no {lacking} in it")
    signature = read_signature(sealed)
    public = trust.key(signature)
    if public is None:
        raise BadManifest(f"no {signature.kind} key {signature.key_id[:64]!r} is trusted here")
    _check_signature(public, signature, raw)
    manifest = read_manifest(raw)
    check_members(manifest, content)
    return Verified(manifest, signature.kind, signature.key_id)


def without_unproved(
    content: Mapping[str, bytes], verified: Verified | None
) -> Mapping[str, bytes]:
    """The members of an archive from elsewhere; of a signed one only what the signature covers.

    Else anybody could add hooks, which are code, to a signed archive. The server adds its own.
    """
    if verified is None:
        return content
    return {name: body for name, body in content.items() if name not in GENERATED}


def _check_signature(public: bytes, signature: Signature, raw: bytes) -> None:
    try:
        sig = b64decode(signature.sig, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(sig, raw)
    except (InvalidSignature, ValueError):
        raise BadManifest(f"{SIGNATURE} was not made for this {MANIFEST}") from None
