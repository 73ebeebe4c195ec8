"""The secrets in the store: named ones, and the secret bytes of single tasks."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botapi.clock import Rng
from botapi.secrets.envelope import KeyEncryptionKeys, Place, Sealed
from botapi.secrets.key_file import KeyFileError, read_keys
from botapi.store import schema
from botapi.store.protocol import Doc, Key, ReadTxn, Store, join_key
from botapi.store.walk import END, walk

NAMED = "secret"
"""Kind of named secrets, by name."""
OF_TASKS = "tsecret"
"""Kind of the secret bytes of tasks, by an id that the request names."""
MIN_VALUE_BYTES = 4
"""Shorter values could not be told from ordinary output."""
MAX_VALUE_BYTES = 64 * 1024
MAX_POOLS = 100
ANY_POOL = "*"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A named secret without its value. Tasks of its `pools` may have it (`*`: of any)."""

    name: str
    version: int
    pools: tuple[str, ...]
    created_ms: int
    changed_ms: int
    changed_by: str
    sealed: Sealed

    @property
    def place(self) -> Place:
        """What its seal is bound to."""
        return Place("secret", self.name, self.version)

    def is_for(self, pool: str) -> bool:
        """May tasks of this pool have it?"""
        return pool in self.pools or ANY_POOL in self.pools


class Vault:
    """Seals and opens with the keys of a file, which is read when it is needed."""

    def __init__(self, path: Path, rng: Rng) -> None:
        self.path = path
        self._rng = rng
        self._known: tuple[tuple[int, int], KeyEncryptionKeys] | None = None

    def keys(self) -> KeyEncryptionKeys:
        """The keys as they are in the file now. Raises KeyFileError."""
        try:
            info = self.path.stat()
        except OSError:
            return read_keys(self.path)
        seen = (info.st_mtime_ns, info.st_ino)
        if self._known is None or self._known[0] != seen:
            self._known = (seen, read_keys(self.path))
        return self._known[1]

    def seal(self, place: Place, value: bytes) -> Sealed:
        """Raises KeyFileError."""
        return self.keys().seal(place, value, self._rng)

    def open(self, place: Place, sealed: Sealed) -> bytes:
        """Raises BadSeal, KeyFileError."""
        return self.keys().open(place, sealed)

    def rewrap(self, place: Place, sealed: Sealed) -> Sealed:
        """Raises BadSeal, KeyFileError."""
        return self.keys().rewrap(place, sealed, self._rng)


def key_file_problem(store: Store, vault: Vault) -> str:
    """Why nothing that is sealed in the store can be opened here; empty when it can be, or when
    nothing is sealed. Raises StoreError."""
    if not any(store.scan_keys(kind, "", END, limit=1) for kind in (NAMED, OF_TASKS)):
        return ""
    try:
        vault.keys()
    except KeyFileError as error:
        return str(error)
    return ""


def name_problem(name: str) -> str:
    """What is wrong with the name of a secret; empty when nothing is."""
    if _NAME.fullmatch(name) is None:
        return "is no name for a secret: use 1 to 100 letters, digits, _ . -"
    return ""


def secret_doc(secret: Secret, was: Doc | None = None) -> Doc:
    """Kind `secret`: the ciphertext and who may have it; never a value."""
    body = {
        "version": secret.version,
        "pools": list(secret.pools),
        "created_ms": secret.created_ms,
        "changed_ms": secret.changed_ms,
        "changed_by": secret.changed_by,
        "sealed": _sealed_body(secret.sealed),
    }
    return Doc(join_key(secret.name), schema.body(body, was))


def read_secret(name: str, doc: Doc) -> Secret:
    """The secret in a document of kind `secret`."""
    body = doc.body
    return Secret(
        name=name,
        version=body["version"],
        pools=tuple(body["pools"]),
        created_ms=body["created_ms"],
        changed_ms=body["changed_ms"],
        changed_by=body["changed_by"],
        sealed=_sealed(body["sealed"]),
    )


def secret_of(reads: ReadTxn | Store, name: str) -> Secret | None:
    """The secret of this name; None when there is none."""
    return secrets_of(reads, [name]).get(name)


def secrets_of(reads: ReadTxn | Store, names: Iterable[str]) -> dict[str, Secret]:
    """Those of these secrets that there are, by name, in one read."""
    asked = [name for name in dict.fromkeys(names) if not name_problem(name)]
    docs = reads.get(NAMED, *map(join_key, asked)) if asked else []
    return {
        name: read_secret(name, doc)
        for name, doc in zip(asked, docs, strict=True)
        if doc is not None
    }


def all_secrets(store: Store) -> Iterator[Secret]:
    """Every named secret, by name."""
    for doc in walk(store, NAMED):
        yield read_secret(doc.key, doc)


def task_secret_doc(ref: str, sealed: Sealed, expire_at: int, was: Doc | None = None) -> Doc:
    """Kind `tsecret`: the secret bytes of a task and of its retries, until `expire_at` (ms)."""
    body = schema.body({"sealed": _sealed_body(sealed)}, was)
    return Doc(join_key(ref), body, expire_at=expire_at)


def read_task_secret(doc: Doc) -> Sealed:
    """The seal in a document of kind `tsecret`."""
    return _sealed(doc.body["sealed"])


def task_place(ref: str) -> Place:
    """What the seal of a task's secret bytes is bound to."""
    return Place("task", ref, 1)


def task_secret_key(ref: str) -> Key:
    """Key of kind `tsecret`."""
    return join_key(ref)


def _sealed_body(sealed: Sealed) -> dict[str, Any]:
    return {
        "key_id": sealed.key_id,
        "wrapped_key": sealed.wrapped_key,
        "ciphertext": sealed.ciphertext,
    }


def _sealed(body: dict[str, Any]) -> Sealed:
    return Sealed(body["key_id"], body["wrapped_key"], body["ciphertext"])
