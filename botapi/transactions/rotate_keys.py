"""A key set moves on: a rotation begins, time takes its next step, a key is revoked.

Each function is one transaction and idempotent; `docs/keys.md` tells the whole story.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from botapi.auth.bootstrap import MAX_TTL_S
from botapi.auth.botsession import SESSION_LIFE_MS
from botapi.auth.keys import (
    KIND,
    OIDC,
    SESSION,
    SIGNING,
    TOPIC,
    keys_body,
    read_keys,
)
from botapi.auth.oidc_issuer import ID_TOKEN_LIFE_S
from botapi.domain.errors import Code, Refusal
from botapi.domain.key_rotation import Key, KeySet, Times, advance, begin, revoke
from botapi.store import codec, schema
from botapi.store.protocol import Doc, Store, Txn

PUBLISH_MS = 120_000
"""How long a new key is accepted before it signs: four times what a server's copy may be old."""
PUBLISH_OIDC_MS = 3_600_000
"""The same for keys that strangers fetch and keep for a while."""

ROTATING = {
    SESSION: Times(PUBLISH_MS, SESSION_LIFE_MS + PUBLISH_MS),
    SIGNING: Times(PUBLISH_MS, MAX_TTL_S * 1000 + PUBLISH_MS),
    OIDC: Times(PUBLISH_OIDC_MS, ID_TOKEN_LIFE_S * 1000 + PUBLISH_MS),
}
"""The purposes whose keys rotate. An old key is accepted for the longest life of what it
signed, and `PUBLISH_MS` more: a server may go on signing with it until it reads the set again."""

SWEEPER = "sweeper"
"""Who the audit record says did what time does by itself."""


def begin_rotation(
    store: Store, purpose: str, new: Key, *, actor: str, entry_id: str, now_ms: int
) -> KeySet:
    """Publish a new key. Raises Refusal when one waits already, or there is no set yet."""

    def work(keys: KeySet) -> KeySet:
        return begin(keys, new, now_ms)

    return _change(store, purpose, work, _Entry(actor, "key.rotate", entry_id, now_ms))


def advance_rotation(store: Store, purpose: str, *, entry_id: str, now_ms: int) -> bool:
    """Do what is due: let the new key sign, drop the old one. Was anything?"""
    (doc,) = store.get(KIND, purpose)
    if doc is None or not _is_due(read_keys(doc.body), purpose, now_ms):
        return False
    _change(
        store,
        purpose,
        lambda keys: advance(keys, ROTATING[purpose], now_ms),
        _Entry(SWEEPER, "key.advance", entry_id, now_ms),
    )
    return True


def _is_due(keys: KeySet, purpose: str, now_ms: int) -> bool:
    return advance(keys, ROTATING[purpose], now_ms) != keys


def revoke_key(
    store: Store,
    purpose: str,
    key_id: str,
    spare: Key,
    *,
    actor: str,
    reason: str,
    entry_id: str,
    now_ms: int,
) -> KeySet:
    """End a key at once; `spare` signs if nothing else can. Raises Refusal NOT_FOUND."""

    def work(keys: KeySet) -> KeySet:
        return revoke(keys, key_id, spare, now_ms)

    return _change(store, purpose, work, _Entry(actor, "key.revoke", entry_id, now_ms, reason))


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the audit record will say."""

    actor: str
    verb: str
    entry_id: str
    now_ms: int
    reason: str = ""

    def doc(self, purpose: str, before: KeySet, after: KeySet) -> Doc:
        return codec.audit_doc(
            at_ms=self.now_ms,
            entry_id=self.entry_id,
            actor=self.actor,
            verb=self.verb,
            target=f"{purpose} keys",
            reason=self.reason,
            before=_words(before),
            after=_words(after),
        )


def _change(store: Store, purpose: str, move: Callable[[KeySet], KeySet], entry: _Entry) -> KeySet:
    """Move a set on and record it; a repeat of the same entry finds it done."""

    def work(txn: Txn) -> KeySet:
        (doc,) = txn.get(KIND, purpose)
        if doc is None:
            raise Refusal(Code.NOT_FOUND, f"there are no {purpose} keys yet")
        before = read_keys(doc.body)
        if txn.get(codec.AUDIT, codec.audit_key(entry.now_ms, entry.entry_id))[0] is not None:
            return before
        after = move(before)
        if after != before:
            txn.put(KIND, Doc(purpose, schema.body(keys_body(after), doc)))
            txn.put(codec.AUDIT, entry.doc(purpose, before, after))
            txn.notify(TOPIC)
        return after

    return store.transact(work, label="rotate_keys")


def _words(keys: Sequence[Key]) -> str:
    return ", ".join(f"{key.key_id} {key.state}" for key in keys)
