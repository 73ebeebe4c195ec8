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
    return None if after is None else seal(parts, _digest(listing, query), after)


def read_cursor(parts: ApiParts, listing: str, query: Query) -> Key | None:
    """The key to go on behind; None on the first page. Raises Refusal as `unseal`."""
    texts = query.get("cursor", ())
    return unseal(parts, _digest(listing, query), texts[-1] if texts else "")


def seal(parts: ApiParts, listing: str, after: Key) -> str:
    """A cursor that goes on behind `after`, in this listing only."""
    value = {"l": listing, "a": after}
    return sign(Purpose.CURSOR, parts.keys.keys(SIGNING), value, now_ms=parts.clock.now_ms())


def unseal(parts: ApiParts, listing: str, text: str) -> Key | None:
    """The key in a cursor of this listing; None without a cursor.

    Raises Refusal INVALID_ARGUMENT for a cursor that is damaged or of another listing.
    """
    if not text:
        return None
    keys, now_ms = parts.keys.keys(SIGNING), parts.clock.now_ms()
    try:
        value = unsign(Purpose.CURSOR, keys, text, now_ms=now_ms, max_age_s=None)
    except BadSignature:
        raise _refusal("is damaged, or not of this server") from None
    if not isinstance(value, dict) or value.get("l") != listing:
        raise _refusal("belongs to another list")
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
