"""The first key set of a purpose: whoever comes first makes it, everybody uses it."""

from collections.abc import Sequence

from botapi.auth.keys import KIND, TOPIC, keys_body
from botapi.domain.key_rotation import Key
from botapi.store import schema
from botapi.store.protocol import Doc, Store, Txn


def create_keys(store: Store, purpose: str, keys: Sequence[Key]) -> None:
    """Store the keys of a purpose that has none yet; otherwise change nothing."""

    def work(txn: Txn) -> None:
        if txn.get(KIND, purpose)[0] is None:
            txn.put(KIND, Doc(purpose, schema.body(keys_body(keys))))
            txn.notify(TOPIC)

    store.transact(work, label="create_keys")
