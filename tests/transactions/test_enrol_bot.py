import pytest

from botapi.auth.bootstrap import new_token
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.transactions.enrol_bot import (
    Enrolled,
    create_bootstrap_token,
    enrol_bot,
    enrolled_digest,
    read_bootstrap_token,
    revoke_bootstrap_token,
    stage_revoke_host,
)
from tests.auth.fixed import CountingRng, FixedClock
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore

NOW = 1_772_604_367_000
DIGEST = b"\x01" * 32
OTHER = b"\x02" * 32


@pytest.fixture(params=["plain", "twice", "ambiguous"])
def store(request):
    memory = MemoryStore(Threads(), FixedClock())
    if request.param == "twice":
        return TwiceStore(memory)
    if request.param == "ambiguous":
        return FaultyStore(memory, seed=3, after=0.5)
    return memory


def make_token(store, uses=2, pool="", ttl_s=3600):
    token = new_token(
        uses=uses, ttl_s=ttl_s, pool=pool, creator="alice", rng=CountingRng(), now_ms=NOW
    )
    create_bootstrap_token(store, token)
    return token.token_id


def enrol(store, token_id, host="vm1", digest=DIGEST, pools=("ci",), now_ms=NOW):
    return enrol_bot(store, host, token_id, digest, pools=pools, now_ms=now_ms)


def refusal(store, token_id, **how):
    with pytest.raises(Refusal) as caught:
        enrol(store, token_id, **how)
    assert caught.value.code is Code.PERMISSION_DENIED
    return caught.value.message


def audit(txn):
    txn.put("audit", Doc("entry", {}))


@pytest.mark.control("bots.enrolment")
def test_enrol_stores_the_digest_of_the_host_for_one_use(store):
    token_id = make_token(store)
    assert enrolled_digest(store, "vm1") is None
    assert enrol(store, token_id).uses_left == 1
    assert enrolled_digest(store, "vm1") == DIGEST
    assert enrolled_digest(store, "vm10") is None
    assert read_bootstrap_token(store, token_id).uses_left == 1


def test_enrol_again_with_the_same_token_host_and_digest_is_the_same_use(store):
    token_id = make_token(store, uses=1)
    enrol(store, token_id)
    assert enrol(store, token_id, now_ms=NOW + 10**9) == Enrolled(0, is_new=False)


def test_enrol_again_with_another_secret_is_another_use_and_replaces(store):
    token_id = make_token(store, uses=3)
    enrol(store, token_id)
    enrol(store, token_id, digest=OTHER)
    assert enrolled_digest(store, "vm1") == OTHER
    assert enrol(store, token_id).uses_left == 0
    assert enrolled_digest(store, "vm1") == DIGEST


@pytest.mark.control("bots.enrolment")
def test_enrol_is_refused_when_the_token_is_used_up(store):
    token_id = make_token(store, uses=1)
    enrol(store, token_id)
    assert refusal(store, token_id, host="vm2") == "the bootstrap token is used up"
    assert enrolled_digest(store, "vm2") is None


@pytest.mark.control("bots.enrolment")
def test_enrol_is_refused_when_the_token_is_expired(store):
    token_id = make_token(store, ttl_s=1)
    assert refusal(store, token_id, now_ms=NOW + 1001) == "the bootstrap token is expired"


def test_enrol_is_refused_when_the_token_is_unknown(store):
    assert refusal(store, "nothing") == "the bootstrap token is unknown"


@pytest.mark.control("bots.enrolment")
def test_enrol_is_refused_when_the_token_is_revoked(store):
    token_id = make_token(store)
    assert revoke_bootstrap_token(store, token_id, now_ms=NOW, also=audit) is True
    assert revoke_bootstrap_token(store, token_id, now_ms=NOW + 1) is True
    assert read_bootstrap_token(store, token_id).revoked_ms == NOW
    assert store.get("audit", "entry") != [None]
    assert refusal(store, token_id) == "the bootstrap token is revoked"


def test_revoke_of_an_unknown_token_is_told(store):
    assert revoke_bootstrap_token(store, "nothing", now_ms=NOW) is False
    assert read_bootstrap_token(store, "nothing") is None


@pytest.mark.control("bots.enrolment")
def test_token_of_one_pool_enrols_into_no_other(store):
    token_id = make_token(store, pool="ci")
    assert refusal(store, token_id, pools=("lab", "ci2")) == (
        "the bootstrap token is for the pool ci, this bot is in another"
    )
    assert enrol(store, token_id, pools=("lab", "ci")).uses_left == 1


@pytest.mark.parametrize("host", ["", "a:b", " a"])
def test_enrol_refuses_a_host_that_cannot_be(store, host):
    with pytest.raises(Refusal) as caught:
        enrol(store, make_token(store), host=host)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("host", ["a!b", "a/b", 'a"b', "ü b", "tok"])
def test_host_ids_never_meet_in_the_store(store, host):
    enrol(store, make_token(store), host=host)
    assert enrolled_digest(store, host) == DIGEST
    assert enrolled_digest(store, "a") is None


@pytest.mark.control("bots.deleted-id")
def test_deleted_host_needs_a_new_enrolment(store):
    enrol(store, make_token(store))
    store.transact(lambda txn: stage_revoke_host(txn, "vm1"), label="test")
    assert enrolled_digest(store, "vm1") is None


@pytest.mark.control("people.audit")
def test_create_is_idempotent_and_audited(store):
    token = new_token(uses=2, ttl_s=60, pool="p", creator="alice", rng=CountingRng(), now_ms=NOW)
    create_bootstrap_token(store, token, also=audit)
    enrol(store, token.token_id, pools=("p",))
    create_bootstrap_token(store, token)
    assert read_bootstrap_token(store, token.token_id).uses_left == 1
    assert store.get("audit", "entry") != [None]


@pytest.mark.control("bots.enrolment")
def test_secret_is_nowhere_in_the_store_but_as_a_digest(store):
    token_id = make_token(store)
    enrol(store, token_id)
    (doc,) = store.get("enrol", "host!vm1")
    assert dict(doc.body) == {
        "secret_sha256": DIGEST,
        "token_id": token_id,
        "creator": "alice",
        "enrolled_ms": NOW,
        "v": 1,
    }
