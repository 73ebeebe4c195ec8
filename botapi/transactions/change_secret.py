"""A named secret set, taken away, or wrapped anew; who did it is written down with it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from botapi.secrets.envelope import Place, Sealed
from botapi.secrets.vault import (
    NAMED,
    OF_TASKS,
    Secret,
    read_secret,
    read_task_secret,
    secret_doc,
    secret_of,
    task_place,
    task_secret_doc,
)
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn, join_key
from botapi.store.walk import walk
from botapi.transactions.cancel_task import Actor

Seal = Callable[[Place], Sealed]
"""Seals the value that somebody gave, for a place."""
MAX_TRIES = 10


class Contended(Exception):
    """Others change the same secret all the time."""


def set_secret(
    store: Store, name: str, pools: tuple[str, ...], seal: Seal, actor: Actor, now_ms: int
) -> Secret:
    """The new version of the secret. Raises Contended."""
    for _ in range(MAX_TRIES):
        before = secret_of(store, name)
        version = before.version + 1 if before is not None else 1
        made = Secret(
            name=name,
            version=version,
            pools=pools,
            created_ms=before.created_ms if before is not None else now_ms,
            changed_ms=now_ms,
            changed_by=actor.name,
            sealed=seal(Place("secret", name, version)),
        )
        written = store.transact(
            _put(made, before, actor, now_ms, "secret.set"), label="set_secret"
        )
        if written is not None:
            return written
    raise Contended(name)


def delete_secret(store: Store, name: str, actor: Actor, now_ms: int) -> bool:
    """Was there such a secret? It is gone now; tasks that name it fail when they are claimed."""
    key = join_key(name)

    def work(txn: Txn) -> bool:
        doc, done = (
            *txn.get(NAMED, key),
            *txn.get(codec.AUDIT, codec.audit_key(now_ms, actor.entry_id)),
        )
        if doc is None:
            return done is not None
        txn.delete(NAMED, key)
        _audit(txn, actor, now_ms, "secret.delete", name, (read_secret(name, doc).version, None))
        return True

    return store.transact(work, label="delete_secret")


def rewrap_secret(store: Store, secret: Secret, rewrap: Callable[[Place, Sealed], Sealed]) -> bool:
    """Wrap the secret with the key that wraps now; False when somebody changed it meanwhile."""
    after = replace(secret, sealed=rewrap(secret.place, secret.sealed))

    def work(txn: Txn) -> bool:
        (doc,) = txn.get(NAMED, join_key(secret.name))
        now = None if doc is None else read_secret(secret.name, doc)
        if now == after:
            return True
        if now != secret:
            return False
        txn.put(NAMED, secret_doc(after, doc))
        return True

    return store.transact(work, label="rewrap_secret")


def rewrap_task_secrets(
    store: Store, active_id: str, rewrap: Callable[[Place, Sealed], Sealed]
) -> Iterator[bool]:
    """Wrap the secret bytes of tasks anew, one after the other: was it done?"""
    for doc in walk(store, OF_TASKS):
        if read_task_secret(doc).key_id != active_id:
            yield store.transact(partial(_rewrap_task, doc, rewrap), label="rewrap_secret")


def _rewrap_task(was: Doc, rewrap: Callable[[Place, Sealed], Sealed], txn: Txn) -> bool:
    (doc,) = txn.get(OF_TASKS, was.key)
    if doc is not None:
        after = rewrap(task_place(was.key), read_task_secret(doc))
        txn.put(OF_TASKS, task_secret_doc(was.key, after, doc.expire_at or 0, doc))
    return True


def _put(
    made: Secret, before: Secret | None, actor: Actor, now_ms: int, verb: str
) -> Callable[[Txn], Secret | None]:
    key = join_key(made.name)

    def work(txn: Txn) -> Secret | None:
        doc, done = (
            *txn.get(NAMED, key),
            *txn.get(codec.AUDIT, codec.audit_key(now_ms, actor.entry_id)),
        )
        now = None if doc is None else read_secret(made.name, doc)
        if done is not None:
            return now if now is not None else made
        if now != before:
            return None
        txn.put(NAMED, secret_doc(made, doc))
        versions = (before.version if before is not None else None, made.version)
        _audit(txn, actor, now_ms, verb, made.name, versions)
        return made

    return work


def _audit(
    txn: Txn,
    actor: Actor,
    now_ms: int,
    verb: str,
    name: str,
    versions: tuple[int | None, int | None],
) -> None:
    before, after = ("" if version is None else f"version {version}" for version in versions)
    txn.put(
        codec.AUDIT,
        codec.audit_doc(
            at_ms=now_ms,
            entry_id=actor.entry_id,
            actor=actor.name,
            verb=verb,
            target=f"secret {name}",
            reason=actor.reason,
            before=before,
            after=after,
        ),
    )
