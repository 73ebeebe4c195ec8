import dataclasses

import pytest

from botapi.auth.access import (
    ApiKey,
    api_key_body,
    authenticate,
    bearer,
    new_api_key,
    read_api_key,
)
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Grant, Role
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.transactions.create_api_key import create_api_key, revoke_api_key
from tests.auth.fixed import CountingRng, FixedClock
from tests.fakes.twice_store import TwiceStore

NOW = 1_772_604_367_000


@pytest.fixture(params=["plain", "twice"])
def store(request):
    memory = MemoryStore(Threads(), FixedClock())
    return TwiceStore(memory) if request.param == "twice" else memory


@pytest.fixture
def made():
    return new_api_key("alice", Role.ADMIN, CountingRng(), now_ms=NOW)


def is_refused(store, text):
    with pytest.raises(Refusal) as caught:
        authenticate(store, text, now_ms=NOW)
    assert caught.value.code is Code.UNAUTHENTICATED
    assert caught.value.message == (
        "the API key is unknown, wrong, expired or revoked, or its owner is disabled"
    )


def audit(txn):
    txn.put("audit", Doc("entry", {}))


def test_new_api_key_is_shown_once_and_stored_as_a_digest(made):
    text, key = made
    prefix, key_id, secret = text.split("_", 2)
    assert (prefix, key_id, len(key_id), len(secret)) == ("skep", key.key_id, 8, 43)
    assert secret not in repr(key) + repr(api_key_body(key))
    assert (key.name, key.role, key.created_ms, key.revoked_ms) == ("alice", "admin", NOW, 0)


def test_authenticate_gives_the_key(store, made):
    text, key = made
    create_api_key(store, key)
    found = authenticate(store, text, now_ms=NOW)
    assert found == key
    assert (found.identity, found.own_grants) == ("user:alice", {Grant(Role.ADMIN)})


def test_authenticate_refuses_an_expired_key(store):
    text, key = new_api_key("ci", None, CountingRng(), now_ms=NOW, expires_ms=NOW + 1)
    create_api_key(store, key)
    assert authenticate(store, text, now_ms=NOW) == key
    with pytest.raises(Refusal):
        authenticate(store, text, now_ms=NOW + 1)


def test_a_key_of_the_first_release_is_read_as_a_server_admin():
    body = {"name": "admin", "role": "admin", "secret_sha256": b"x", "created_ms": 1}
    key = read_api_key("abcdefgh", body | {"revoked_ms": 0, "v": 1})
    assert (key.identity, key.own_grants, key.scope) == (
        "user:admin",
        {Grant(Role.ADMIN)},
        None,
    )
    assert key.is_good(10**15)


def test_authenticate_refuses_what_is_wrong_in_one_wording(store, made):
    text, key = made
    is_refused(store, text)
    create_api_key(store, key)
    last = "a" if text[-1] != "a" else "b"
    for wrong in ("", "skep", text[:-1], text[:-1] + last, text + "a", text.upper(), text + "\n"):
        is_refused(store, wrong)
    is_refused(store, text.replace(key.key_id, "00000000"))
    is_refused(store, "skep_é" + text[6:])


def test_authenticate_refuses_a_revoked_key(store, made):
    text, key = made
    create_api_key(store, key)
    assert revoke_api_key(store, key.key_id, now_ms=NOW + 1) is True
    is_refused(store, text)


@pytest.mark.control("people.audit")
def test_create_is_idempotent_and_audited_in_the_same_transaction(store, made):
    _, key = made
    create_api_key(store, key, also=audit)
    create_api_key(store, key, also=lambda txn: pytest.fail("twice"))
    assert store.get("audit", "entry") != [None]


def test_create_refuses_another_key_of_the_same_id(store, made):
    _, key = made
    create_api_key(store, key)
    other = dataclasses.replace(key, name="mallory")
    with pytest.raises(ValueError, match="another API key"):
        create_api_key(store, other)


@pytest.mark.control("people.audit")
def test_revoke_is_idempotent_and_audited(store, made):
    _, key = made
    assert revoke_api_key(store, key.key_id, now_ms=NOW) is False
    create_api_key(store, key)
    assert revoke_api_key(store, key.key_id, now_ms=NOW + 1, also=audit) is True
    assert store.get("audit", "entry") != [None]
    assert revoke_api_key(store, key.key_id, now_ms=NOW + 2) is True
    (doc,) = store.get("apikey", key.key_id)
    assert doc.body["revoked_ms"] == NOW + 1


def test_api_key_is_read_as_it_was_written():
    scope = frozenset({Grant(Role.VIEWER, "ci")})
    key = ApiKey("abcdefgh", "me", None, b"\x01" * 32, 5, 6, "user:a@b.c", scope, 7, 8)
    assert read_api_key("abcdefgh", api_key_body(key)) == key


@pytest.mark.parametrize(
    ("header", "credential"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", ""), ("x", ""), ("", ""), ("Bearer", "")],
)
def test_bearer(header, credential):
    assert bearer(header) == credential
