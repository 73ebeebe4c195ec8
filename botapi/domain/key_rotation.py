"""How a key comes and goes: next, active, verify, retired (bot-api 2.3, docs/keys.md).

A key set has exactly one active key. A new key is `next`: accepted everywhere before it
signs anything. Then it becomes `active`, and what was active is `verify`: accepted until the
last text it signed has run out. A retired key is gone. Every function takes a whole set and
gives a whole set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from botapi.domain.errors import Code, Refusal


class KeyState(StrEnum):
    """Where a key stands; a retired one is no longer in its set."""

    NEXT = "next"
    VERIFY = "verify"
    ACTIVE = "active"


_ORDER = tuple(KeyState)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name, its bytes, its state and since when (ms since 1970)."""

    key_id: str
    secret: bytes = field(repr=False)
    created_ms: int
    state: KeyState = KeyState.ACTIVE
    since_ms: int = 0


KeySet = tuple[Key, ...]
"""Next, then verify from old to new, then active: the last one signs, all are accepted."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long a key is `next` and how long it is `verify`, in milliseconds."""

    publish_ms: int
    overlap_ms: int


def ordered(keys: Sequence[Key]) -> KeySet:
    """The keys in the order of a set."""
    return tuple(sorted(keys, key=lambda key: (_ORDER.index(key.state), key.since_ms)))


def active_of(keys: Sequence[Key]) -> Key:
    """The key that signs."""
    return next(key for key in keys if key.state is KeyState.ACTIVE)


def next_of(keys: Sequence[Key]) -> Key | None:
    """The key that will sign, while a rotation is under way."""
    return next((key for key in keys if key.state is KeyState.NEXT), None)


def begin(keys: Sequence[Key], new: Key, now_ms: int) -> KeySet:
    """The set with a key more, which is accepted and does not sign yet.

    The same key again changes nothing. Raises Refusal ALREADY_EXISTS while another one waits.
    """
    waiting = next_of(keys)
    if waiting is None:
        return ordered((*keys, replace(new, state=KeyState.NEXT, since_ms=now_ms)))
    if waiting.key_id != new.key_id:
        raise Refusal(
            Code.ALREADY_EXISTS,
            f"a rotation is under way: key {waiting.key_id} waits to sign; see skep keys list",
        )
    return tuple(keys)


def changes_ms(key: Key, times: Times) -> int | None:
    """When time will change this key; None for the active one."""
    match key.state:
        case KeyState.NEXT:
            return key.since_ms + times.publish_ms
        case KeyState.VERIFY:
            return key.since_ms + times.overlap_ms
        case KeyState.ACTIVE:
            return None


def advance(keys: Sequence[Key], times: Times, now_ms: int) -> KeySet:
    """The set after what is due: an old key dropped, a published key made to sign."""

    def is_due(key: Key) -> bool:
        at_ms = changes_ms(key, times)
        return at_ms is not None and at_ms <= now_ms

    kept = [key for key in keys if not (key.state is KeyState.VERIFY and is_due(key))]
    waiting = next_of(kept)
    if waiting is not None and is_due(waiting):
        return _promote(kept, waiting, now_ms)
    return ordered(kept)


def revoke(keys: Sequence[Key], key_id: str, spare: Key, now_ms: int) -> KeySet:
    """The set without a key, at once: for a key that somebody else knows.

    In place of the active key the published one signs, else `spare`. Raises Refusal NOT_FOUND.
    """
    gone = next((key for key in keys if key.key_id == key_id), None)
    if gone is None:
        raise Refusal(Code.NOT_FOUND, f'there is no key "{key_id[:40]}"; see skep keys list')
    kept = [key for key in keys if key is not gone]
    if gone.state is not KeyState.ACTIVE:
        return ordered(kept)
    return _promote(kept, next_of(kept) or spare, now_ms)


def _promote(keys: Sequence[Key], new: Key, now_ms: int) -> KeySet:
    others = [
        replace(key, state=KeyState.VERIFY, since_ms=now_ms)
        if key.state is KeyState.ACTIVE
        else key
        for key in keys
        if key.key_id != new.key_id
    ]
    return ordered((*others, replace(new, state=KeyState.ACTIVE, since_ms=now_ms)))
