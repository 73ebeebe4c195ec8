"""Bootstrap tokens and enrolled hosts: kind `enrol`, keys `tok!<id>` and `host!<host_id>`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from botapi.auth.bootstrap import BootstrapToken
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import check_bot_id
from botapi.store import schema
from botapi.store.protocol import (
    Doc,
    Key,
    Store,
    Txn,
    join_key,
    prefix_range,
    split_key,
)

KIND = "enrol"
TOPIC = "enrol"

Also = Callable[[Txn], None]
"""More writes of the same transaction, the audit entry for one; may run twice."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A host has its secret; `is_new` is False when this very call had been done before."""

    uses_left: int
    is_new: bool


def create_bootstrap_token(
    store: Store, token: BootstrapToken, *, also: Also | None = None
) -> None:
    """Store the record of a token; the same record again is no change."""

    def work(txn: Txn) -> None:
        key = _token_key(token.token_id)
        if txn.get(KIND, key)[0] is None:
            txn.put(KIND, _token_doc(token))
            if also is not None:
                also(txn)

    store.transact(work, label="create_bootstrap_token")


def revoke_bootstrap_token(
    store: Store, token_id: str, *, now_ms: int, also: Also | None = None
) -> bool:
    """End a token at once; hosts that enrolled with it stay enrolled. False: no such token."""

    def work(txn: Txn) -> bool:
        (doc,) = txn.get(KIND, _token_key(token_id))
        if doc is None:
            return False
        token = _read_token(token_id, doc.body)
        if not token.revoked_ms:
            txn.put(KIND, _token_doc(replace(token, revoked_ms=now_ms), doc))
            if also is not None:
                also(txn)
        return True

    return store.transact(work, label="revoke_bootstrap_token")


def read_bootstrap_token(store: Store, token_id: str) -> BootstrapToken | None:
    """The record of a token; `problem(now_ms)` tells whether it is still good."""
    (doc,) = store.get(KIND, _token_key(token_id))
    return None if doc is None else _read_token(token_id, doc.body)


def list_bootstrap_tokens(
    store: Store, *, after: Key | None, limit: int
) -> tuple[list[BootstrapToken], Key | None]:
    """Up to `limit` records of tokens behind a key, by their ids, and where to go on."""
    lo, hi = prefix_range("tok")
    page = store.find(KIND, [], after=after, limit=limit, lo=lo, hi=hi)
    tokens = [_read_token(split_key(doc.key)[1], doc.body) for doc in page.docs]
    return tokens, page.after


def enrol_bot(
    store: Store,
    host_id: str,
    token_id: str,
    digest: bytes,
    *,
    pools: Collection[str],
    now_ms: int,
) -> Enrolled:
    """Give a host the secret with this SHA-256, for one use of the token.

    A secret that the host had before is replaced. The same token, host and digest again
    is the same use, unless another secret took its place meanwhile. `pools` are those
    that the host's group assigns: a token made for one pool enrols into no other. Raises
    Refusal PERMISSION_DENIED for a token that is unknown, used up, expired, revoked or of
    another pool, INVALID_ARGUMENT for a bad host.
    """
    check_bot_id(host_id)
    mark = sha256(digest + host_id.encode()).hexdigest()[:32]

    def work(txn: Txn) -> Enrolled:
        doc, host = txn.get(KIND, _token_key(token_id), _host_key(host_id))
        if doc is None:
            raise Refusal(Code.PERMISSION_DENIED, "the bootstrap token is unknown")
        token = _read_token(token_id, doc.body)
        is_stored = host is not None and host.body["secret_sha256"] == digest
        if is_stored and mark in token.enrolled:
            return Enrolled(token.uses_left, is_new=False)
        problem = token.problem(now_ms)
        if not problem and token.pool and token.pool not in pools:
            problem = f"the bootstrap token is for the pool {token.pool}, this bot is in another"
        if problem:
            raise Refusal(Code.PERMISSION_DENIED, problem)
        marks = tuple(dict.fromkeys((*token.enrolled, mark)))
        used = replace(token, uses_left=token.uses_left - 1, enrolled=marks)
        txn.put(KIND, _token_doc(used, doc))
        facts = {"secret_sha256": digest, "token_id": token.token_id, "creator": token.creator}
        body = schema.body({**facts, "enrolled_ms": now_ms}, host)
        txn.put(KIND, Doc(_host_key(host_id), body))
        txn.notify(TOPIC)
        return Enrolled(used.uses_left, is_new=True)

    return store.transact(work, label="enrol_bot")


def enrolled_digest(store: Store, host_id: str) -> bytes | None:
    """The SHA-256 of a host's secret; None when the host is not enrolled."""
    (doc,) = store.get(KIND, _host_key(host_id))
    digest: bytes | None = None if doc is None else doc.body["secret_sha256"]
    return digest


def stage_revoke_host(txn: Txn, host_id: str) -> None:
    """Take a host's secret away, inside the transaction that deletes its bot."""
    txn.delete(KIND, _host_key(host_id))
    txn.notify(TOPIC)


def _token_key(token_id: str) -> Key:
    return join_key("tok", token_id)


def _host_key(host_id: str) -> Key:
    return join_key("host", host_id)


def _token_doc(token: BootstrapToken, was: Doc | None = None) -> Doc:
    body = {
        "pool": token.pool,
        "creator": token.creator,
        "uses": token.uses,
        "uses_left": token.uses_left,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
        "revoked_ms": token.revoked_ms,
        "enrolled": list(token.enrolled),
    }
    return Doc(_token_key(token.token_id), schema.body(body, was))


def _read_token(token_id: str, body: Mapping[str, Any]) -> BootstrapToken:
    return BootstrapToken(
        token_id=token_id,
        pool=body["pool"],
        creator=body["creator"],
        uses=body["uses"],
        uses_left=body["uses_left"],
        created_ms=body["created_ms"],
        expires_ms=body["expires_ms"],
        revoked_ms=body["revoked_ms"],
        enrolled=tuple(body["enrolled"]),
    )
