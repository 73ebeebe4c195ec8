"""Signed texts that are not session tokens: bootstrap tokens, page cursors, UI state.

itsdangerous with SHA-256 and a key derived per purpose by HMAC, so a text signed for one
purpose is nothing to another. Keys are listed oldest to newest and the newest signs.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

MAX_CHARS = 16 * 1024
SKEW_S = 30
"""How far in the future a text may have been signed by another server."""


class Purpose(StrEnum):
    """What a text is signed for; the value is the salt."""

    BOOTSTRAP = "skep.bootstrap"
    CURSOR = "skep.cursor"
    UI_SESSION = "skep.ui-session"
    CSRF = "skep.csrf"
    ACCESS_TOKEN = "skep.access-token"  # noqa: S105 - a salt
    SIGN_IN = "skep.sign-in"


class BadSignature(Exception):
    """Not a text that we signed for this purpose; says why, without the text."""


class Expired(BadSignature):
    """Signed by us for this purpose, but too long ago."""


def sign(purpose: Purpose, keys: Sequence[bytes], value: object, *, now_ms: int) -> str:
    """URL-safe text with the value (JSON), the time in whole seconds, and a signature."""
    return _serializer(purpose, keys, now_ms).dumps(value)


def unsign(
    purpose: Purpose, keys: Sequence[bytes], text: str, *, now_ms: int, max_age_s: int | None
) -> Any:  # noqa: ANN401 - JSON is whatever was signed
    """The value in a signed text. Raises Expired or another BadSignature, and nothing else.

    `max_age_s` None means that it never expires.
    """
    if len(text) > MAX_CHARS:
        raise BadSignature(f"too long: {len(text)} > {MAX_CHARS}")
    try:
        value, signed_at = _serializer(purpose, keys, now_ms).loads(
            text.encode("ascii"), return_timestamp=True
        )
    except (BadData, UnicodeEncodeError):
        raise BadSignature("bad signature") from None
    age_s = now_ms / 1000 - signed_at.timestamp()
    if age_s < -SKEW_S:
        raise BadSignature("signed in the future")
    if max_age_s is not None and age_s > max_age_s:
        raise Expired(f"expired: signed {int(age_s)} s ago, good for {max_age_s} s")
    return value


def _serializer(purpose: Purpose, keys: Sequence[bytes], now_ms: int) -> URLSafeTimedSerializer:
    if not keys or not all(keys):
        raise ValueError("an empty key signs nothing")
    return URLSafeTimedSerializer(
        list(keys),
        salt=purpose.encode(),
        signer=_Signer,
        signer_kwargs={
            "key_derivation": "hmac",
            "digest_method": hashlib.sha256,
            "now_s": now_ms // 1000,
        },
    )


class _Signer(TimestampSigner):
    """Takes the time as a value instead of asking the machine."""

    def __init__(self, *args: Any, now_s: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._now_s = now_s

    def get_timestamp(self) -> int:
        return self._now_s
