"""The keys that sign, one ordered set per purpose, made on first use and kept in the store.

Kind `key`, key: the purpose. A set lists its keys oldest to newest; the last one signs,
all are accepted. So a key is rotated in two steps: added as first everywhere, then
moved to last. Key material is not wrapped yet: who reads the database can sign.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botapi.auth.hmactoken import Secret
from botapi.clock import Clock, Rng
from botapi.store.protocol import Store

KIND = "key"
TOPIC = "key"
SESSION = "session"
SIGNING = "signing"
KEY_BYTES = 32
LOOK_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name, its bytes, and when it was made (ms since 1970)."""

    key_id: str
    secret: bytes = field(repr=False)
    created_ms: int


def keys_body(keys: Sequence[Key]) -> dict[str, Any]:
    """The body of a key set, oldest to newest."""
    return {
        "keys": [
            {"id": key.key_id, "secret": key.secret, "created_ms": key.created_ms} for key in keys
        ]
    }


def read_keys(body: Mapping[str, Any]) -> tuple[Key, ...]:
    """The keys of a key set, oldest to newest."""
    return tuple(Key(key["id"], key["secret"], key["created_ms"]) for key in body["keys"])


def new_key(clock: Clock, rng: Rng) -> Key:
    """A fresh key of 256 bits."""
    return Key(f"{rng.randbits(40):010x}", rng.token(KEY_BYTES).encode(), clock.now_ms())


class KeyRing:
    """The key sets of one process. Any thread may call.

    `create(purpose, keys)` stores a first set unless there is one meanwhile; the
    composition root binds it to `transactions.create_keys`. A change elsewhere is seen at
    the notification of the store, at the latest after 30 seconds. The errors of the store rise.
    """

    def __init__(
        self,
        store: Store,
        create: Callable[[str, Sequence[Key]], None],
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._store = store
        self._create = create
        self._clock = clock
        self._rng = rng
        self._cache: dict[str, tuple[float, tuple[Key, ...]]] = {}
        self._unsubscribe = store.subscribe(self._hear)

    def keys(self, purpose: str) -> tuple[bytes, ...]:
        """The keys of a purpose, oldest to newest: what `signing` takes."""
        return tuple(key.secret for key in self._keys(purpose))

    def secret(self, purpose: str) -> Secret:
        """The keys of a purpose as `hmactoken` takes them: the newest is the active one."""
        *passive, active = self.keys(purpose)
        return Secret(active, tuple(passive))

    def close(self) -> None:
        """Hear no more of the store."""
        self._unsubscribe()

    def _keys(self, purpose: str) -> tuple[Key, ...]:
        now = self._clock.monotonic()
        cache = self._cache
        read_at, known = cache.get(purpose, (0.0, ()))
        if known and now - read_at < LOOK_AGAIN_S:
            return known
        found = self._read(purpose)
        if not found:
            self._create(purpose, (new_key(self._clock, self._rng),))
            found = self._read(purpose)
        if not found:
            raise LookupError(
                f"there is no key for {purpose!r} in the store, even after one was made"
            )
        cache[purpose] = (now, found)  # into the cache as it was: a notification since then counts
        return found

    def _read(self, purpose: str) -> tuple[Key, ...]:
        (doc,) = self._store.get(KIND, purpose)
        return () if doc is None else read_keys(doc.body)

    def _hear(self, topic: str) -> None:
        if topic in {TOPIC, "*"}:
            self._cache = {}
