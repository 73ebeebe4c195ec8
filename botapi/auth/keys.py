"""The keys that sign, one set per purpose, made on first use and kept in the store.

Kind `key`, key: the purpose. `domain/key_rotation.py` says how a set changes; it is stored
in the order of `KeySet`, so that the last key signs and all are accepted, also for a server
from before keys had states. Key material is not wrapped: who reads the database can sign.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from botapi.auth.hmactoken import Secret
from botapi.clock import Clock, Rng
from botapi.domain.key_rotation import Key, KeySet, KeyState, ordered
from botapi.store.protocol import Store

T = TypeVar("T")

KIND = "key"
TOPIC = "key"
SESSION = "session"
SIGNING = "signing"
OIDC = "oidc"
"""RSA keys, for identity tokens that others check; the secret is PKCS #8 in DER."""
KEY_BYTES = 32
RSA_BITS = 2048
LOOK_AGAIN_S = 4.0


def keys_body(keys: Sequence[Key]) -> dict[str, Any]:
    """The body of a key set."""
    return {
        "keys": [
            {
                "id": key.key_id,
                "secret": key.secret,
                "created_ms": key.created_ms,
                "state": str(key.state),
                "since_ms": key.since_ms,
            }
            for key in ordered(keys)
        ]
    }


def read_keys(body: Mapping[str, Any]) -> KeySet:
    """The keys of a key set.

    Keys were stored without states once, oldest to newest: the last one signs, and the
    others have been accepted only since it came.
    """
    *older, newest = body["keys"]
    was = [(key, KeyState.VERIFY) for key in older] + [(newest, KeyState.ACTIVE)]
    return ordered(
        [
            Key(
                key["id"],
                key["secret"],
                key["created_ms"],
                KeyState(key.get("state", state)),
                key.get("since_ms", newest["created_ms"]),
            )
            for key, state in was
        ]
    )


def new_key(purpose: str, clock: Clock, rng: Rng) -> Key:
    """A fresh key: 256 bits, or RSA, which takes a tenth of a second, on a native thread."""
    secret = _rsa_secret() if purpose == OIDC else rng.token(KEY_BYTES).encode()
    now_ms = clock.now_ms()
    return Key(f"{rng.randbits(40):010x}", secret, now_ms, since_ms=now_ms)


def _rsa_secret() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class _Known:
    read_at: float
    keys: KeySet
    secret: Secret


def _here(fn: Callable[[], T]) -> T:
    return fn()


class KeyRing:
    """The key sets of one process. Any thread may call.

    `create(purpose, keys)` stores a first set unless there is one meanwhile; the
    composition root binds it to `transactions.create_keys`. `native` runs what takes long.
    A change elsewhere is seen at the notification of the store, at the latest after 4
    seconds. The errors of the store rise.
    """

    def __init__(
        self,
        store: Store,
        create: Callable[[str, Sequence[Key]], None],
        clock: Clock,
        rng: Rng,
        native: Callable[[Callable[[], Key]], Key] = _here,
    ) -> None:
        self._store = store
        self._create = create
        self._clock = clock
        self._rng = rng
        self._native = native
        self._cache: dict[str, _Known] = {}
        self._unsubscribe = store.subscribe(self._hear)

    def key_set(self, purpose: str) -> KeySet:
        """The keys of a purpose; the last one signs, all are accepted."""
        return self._known(purpose).keys

    def keys(self, purpose: str) -> tuple[bytes, ...]:
        """The bytes of the keys of a purpose, the last one signs: what `signing` takes."""
        return tuple(key.secret for key in self._known(purpose).keys)

    def secret(self, purpose: str) -> Secret:
        """The keys of a purpose as `hmactoken` takes them."""
        return self._known(purpose).secret

    def new_key(self, purpose: str) -> Key:
        """A key for a rotation, not stored anywhere yet."""
        return self._native(lambda: new_key(purpose, self._clock, self._rng))

    def close(self) -> None:
        """Hear no more of the store."""
        self._unsubscribe()

    def _known(self, purpose: str) -> _Known:
        now = self._clock.monotonic()
        cache = self._cache
        known = cache.get(purpose)
        if known is not None and now - known.read_at < LOOK_AGAIN_S:
            return known
        found = self._read(purpose)
        if not found:
            self._create(purpose, (self.new_key(purpose),))
            found = self._read(purpose)
        if not found:
            raise LookupError(
                f"there is no key for {purpose!r} in the store, even after one was made"
            )
        *passive, active = (key.secret for key in found)
        known = _Known(now, found, Secret(active, tuple(passive)))
        cache[purpose] = known  # into the cache as it was: a notification since then counts
        return known

    def _read(self, purpose: str) -> KeySet:
        (doc,) = self._store.get(KIND, purpose)
        return () if doc is None else read_keys(doc.body)

    def _hear(self, topic: str) -> None:
        if topic in {TOPIC, "*"}:
            self._cache = {}
