"""Bot archives as people upload them: plain, signed, and spoiled in one way each."""

import io
import zipfile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from botapi.auth.release_signing import public_bytes, sign_manifest
from botapi.domain.manifest import (
    MANIFEST,
    SIGNATURE,
    Label,
    Manifest,
    manifest_bytes,
    members_of,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PUBLIC = public_bytes(KEY)
MEMBERS = {"__main__.py": b"print('theirs')\n", "bot_code/x.py": b"x = 1\n"}


def zipped(members):
    """A zip of these members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def signed(number=1, key=KEY, key_id="main", members=MEMBERS, **more):
    """The members with manifest and signature of a release."""
    raw = manifest_bytes(Manifest(number, more.pop("min_server", "0.1"), members_of(members)))
    kind = more.pop("kind", Label.RELEASE)
    return {**members, MANIFEST: raw, SIGNATURE: sign_manifest(key, kind, key_id, raw), **more}
