"""A new API key, its use, and its end."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from botapi.auth.access import KIND, ApiKey, api_key_doc, read_api_key
from botapi.store.protocol import Store, Txn

Also = Callable[[Txn], None]
"""More writes of the same transaction, the audit entry for one; may run twice."""


def create_api_key(store: Store, key: ApiKey, *, also: Also | None = None) -> None:
    """Store a key under its id; the same key again is no change.

    Raises ValueError when another key has the id.
    """

    def work(txn: Txn) -> None:
        (was,) = txn.get(KIND, key.key_id)
        if was is not None:
            if read_api_key(key.key_id, was.body) != key:
                raise ValueError(f"there is another API key {key.key_id}")
            return
        txn.put(KIND, api_key_doc(key))
        if also is not None:
            also(txn)

    store.transact(work, label="create_api_key")


def revoke_api_key(store: Store, key_id: str, *, now_ms: int, also: Also | None = None) -> bool:
    """End a key at once. False when there is none; ending it again is no change."""

    def work(txn: Txn) -> bool:
        (was,) = txn.get(KIND, key_id)
        if was is None:
            return False
        key = read_api_key(key_id, was.body)
        if not key.revoked_ms:
            txn.put(KIND, api_key_doc(replace(key, revoked_ms=now_ms), was))
            if also is not None:
                also(txn)
        return True

    return store.transact(work, label="revoke_api_key")


def note_used(store: Store, used: Mapping[str, int]) -> None:
    """Write down when keys were used last: ms by key id; times never go back."""

    def work(txn: Txn) -> None:
        for key_id, doc in zip(used, txn.get(KIND, *used), strict=True):
            if doc is None:
                continue
            key = read_api_key(key_id, doc.body)
            if key.used_ms < used[key_id]:
                txn.put(KIND, api_key_doc(replace(key, used_ms=used[key_id]), doc))

    store.transact(work, label="note_used")
