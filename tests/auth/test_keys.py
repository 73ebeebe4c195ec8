from functools import partial

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from botapi.auth.hmactoken import Secret
from botapi.auth.keys import KIND, OIDC, SESSION, KeyRing, keys_body, new_key, read_keys
from botapi.concurrency import Threads
from botapi.domain.key_rotation import Key, KeyState
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.transactions.create_keys import create_keys
from tests.auth.fixed import CountingRng, FixedClock
from tests.fakes.twice_store import TwiceStore


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture(params=["plain", "twice"])
def store(request, clock):
    memory = MemoryStore(Threads(), clock)
    return TwiceStore(memory) if request.param == "twice" else memory


class Calling:
    """Notifies when the test says so."""

    def __init__(self, inner):
        self.inner = inner
        self.reads = 0

    def get(self, kind, *keys):
        self.reads += 1
        return self.inner.get(kind, *keys)

    def subscribe(self, callback):
        self.call = callback
        return lambda: setattr(self, "call", None)


def ring(reader, store, clock, rng=None):
    return KeyRing(reader, partial(create_keys, store), clock, rng or CountingRng())


def put(store, purpose, *secrets):
    keys = [Key(f"{n}", secret, n, KeyState.VERIFY, n) for n, secret in enumerate(secrets[:-1])]
    keys.append(Key("active", secrets[-1], len(secrets)))
    store.transact(lambda txn: txn.put(KIND, Doc(purpose, keys_body(keys))), label="test")


def test_key_is_made_on_first_use_and_kept(store, clock):
    first = ring(store, store, clock).secret(SESSION)
    assert first.passive == ()
    assert len(first.active) >= 32
    assert ring(store, store, clock).secret(SESSION) == first


def test_every_purpose_has_its_own_key(store, clock):
    keys = ring(store, store, clock)
    assert keys.secret("a") != keys.secret("b")


def test_key_of_whoever_comes_first_is_used_by_everybody(store, clock):
    def late(purpose, keys):
        create_keys(store, purpose, [Key("x", b"theirs", 1)])
        create_keys(store, purpose, keys)

    keys = KeyRing(store, late, clock, CountingRng())
    assert keys.keys("p") == (b"theirs",)


def test_newest_key_is_the_active_one(store, clock):
    put(store, "p", b"oldest", b"older", b"newest")
    keys = ring(store, store, clock)
    assert keys.keys("p") == (b"oldest", b"older", b"newest")
    assert keys.secret("p") == Secret(b"newest", (b"oldest", b"older"))


def test_keys_are_cached_until_the_store_notifies(store, clock):
    calling = Calling(store)
    keys = ring(calling, store, clock)
    put(store, "p", b"one")
    assert keys.keys("p") == (b"one",)
    reads = calling.reads
    put(store, "p", b"one", b"two")
    calling.call("bot")
    assert keys.keys("p") == (b"one",)
    assert calling.reads == reads
    calling.call("key")
    assert keys.keys("p") == (b"one", b"two")
    put(store, "p", b"three")
    calling.call("*")
    assert keys.keys("p") == (b"three",)


def test_keys_are_read_again_after_4_seconds_even_without_a_notification(store, clock):
    keys = ring(Calling(store), store, clock)
    put(store, "p", b"one")
    assert keys.keys("p") == (b"one",)
    put(store, "p", b"two")
    clock.advance(3.9)
    assert keys.keys("p") == (b"one",)
    clock.advance(0.1)
    assert keys.keys("p") == (b"two",)


def test_notification_during_a_read_is_not_lost(store, clock):
    calling = Calling(store)
    keys = ring(calling, store, clock)
    put(store, "p", b"one")
    get = store.get

    def changed_meanwhile(kind, *wanted):
        docs = get(kind, *wanted)
        put(store, "p", b"two")
        calling.call("key")
        return docs

    calling.inner = type("Reader", (), {"get": staticmethod(changed_meanwhile)})
    assert keys.keys("p") == (b"one",)
    calling.inner = store
    assert keys.keys("p") == (b"two",)


def test_keys_fail_when_the_store_forgets_what_was_written(store, clock):
    keys = KeyRing(store, lambda purpose, made: None, clock, CountingRng())
    with pytest.raises(LookupError, match="no key for 'p'"):
        keys.keys("p")


def test_key_set_is_read_as_it_was_written():
    keys = (
        Key("n", b"\x00\xff", 3, KeyState.NEXT, 30),
        Key("v", b"1", 1, KeyState.VERIFY, 20),
        Key("a", b"2", 2, KeyState.ACTIVE, 20),
    )
    assert read_keys(keys_body(keys)) == keys


@pytest.mark.parametrize("count", [1, 3])
def test_key_set_from_before_states_signs_with_its_last_key(count):
    """A stored document of an older release: nothing but id, secret and age."""
    stored = [{"id": f"{n}", "secret": b"%d" % n, "created_ms": n} for n in range(count)]
    *others, active = read_keys({"keys": stored, "v": 1})
    assert (active.key_id, active.state) == (f"{count - 1}", KeyState.ACTIVE)
    assert [(key.key_id, key.state, key.since_ms) for key in others] == [
        (f"{n}", KeyState.VERIFY, count - 1) for n in range(count - 1)
    ]


def test_key_set_is_stored_so_that_an_older_release_signs_with_the_same_key():
    keys = [
        Key("a", b"2", 2, KeyState.ACTIVE, 20),
        Key("n", b"3", 3, KeyState.NEXT, 30),
        Key("v", b"1", 1, KeyState.VERIFY, 20),
    ]
    assert [key["id"] for key in keys_body(keys)["keys"]] == ["n", "v", "a"]


def test_next_key_is_accepted_and_does_not_sign(store, clock):
    stored = [Key("n", b"next", 2, KeyState.NEXT, 2), Key("a", b"active", 1)]
    store.transact(lambda txn: txn.put(KIND, Doc("p", keys_body(stored))), label="test")
    keys = ring(store, store, clock)
    assert keys.secret("p") == Secret(b"active", (b"next",))
    assert keys.keys("p") == (b"next", b"active")
    assert [key.key_id for key in keys.key_set("p")] == ["n", "a"]


def test_key_for_identity_tokens_is_rsa_and_made_where_it_holds_nobody_up(store, clock):
    made = []

    def native(fn):
        made.append(fn())
        return made[-1]

    keys = KeyRing(store, partial(create_keys, store), clock, CountingRng(), native)
    (key,) = keys.key_set(OIDC)
    assert made == [key]
    assert load_der_private_key(key.secret, None).key_size == 2048


def test_new_key_has_256_random_bits_and_is_not_shown(clock):
    key = new_key(SESSION, clock, CountingRng())
    assert key.created_ms == clock.now_ms()
    assert key.secret.decode() not in repr(key)


def test_close_ends_the_subscription(store, clock):
    calling = Calling(store)
    ring(calling, store, clock).close()
    assert calling.call is None
