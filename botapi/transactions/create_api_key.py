"""A new API key, and the end of one."""

from collections.abc import Callable
from dataclasses import replace

from botapi.auth.access import KIND, ApiKey, api_key_body, read_api_key
from botapi.store.protocol import SCHEMA_NUMBER, Doc, Store, Txn

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
        txn.put(KIND, _doc(key))
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
            txn.put(KIND, _doc(replace(key, revoked_ms=now_ms)))
            if also is not None:
                also(txn)
        return True

    return store.transact(work, label="revoke_api_key")


def _doc(key: ApiKey) -> Doc:
    return Doc(key.key_id, api_key_body(key) | {"v": SCHEMA_NUMBER})
