"""Page cursors: signed, and good only for the list and the filters they were made for."""

import hashlib

from botapi.api.parts import ApiParts, Query
from botapi.auth.keys import SIGNING
from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.domain.errors import Code, Refusal
from botapi.store.protocol import Key

NOT_BOUND = frozenset({"limit", "cursor"})
"""Parameters that may change from page to page."""


def next_cursor(parts: ApiParts, listing: str, query: Query, after: Key | None) -> str | None:
    """The cursor behind this page; None when there is no more."""
    if after is None:
        return None
    value = {"l": _digest(listing, query), "a": after}
    keys = parts.keys.keys(SIGNING)
    return sign(Purpose.CURSOR, keys, value, now_ms=parts.clock.now_ms())


def read_cursor(parts: ApiParts, listing: str, query: Query) -> Key | None:
    """The key to go on behind; None on the first page.

    Raises Refusal INVALID_ARGUMENT for a cursor that is damaged or of another query.
    """
    texts = query.get("cursor", ())
    if not texts or not texts[-1]:
        return None
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    try:
        value = unsign(Purpose.CURSOR, keys, texts[-1], now_ms=now_ms, max_age_s=None)
    except BadSignature:
        raise _refusal("is damaged, or not of this server") from None
    if value["l"] != _digest(listing, query):
        raise _refusal("belongs to another query")
    after: Key = value["a"]
    return after


def _refusal(what: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, f"cursor: {what}; start again without a cursor")


def _digest(listing: str, query: Query) -> str:
    bound = sorted(
        (name, value)
        for name, values in query.items()
        if name not in NOT_BOUND
        for value in set(values) - {""}
    )
    return hashlib.sha256(repr((listing, bound)).encode("utf-8", "replace")).hexdigest()[:32]
