"""What a process remembers of people, and what it writes down of keys."""

from dataclasses import replace

import pytest

from botapi.auth.access import KIND, new_api_key, read_api_key
from botapi.auth.directory import Directory, User
from botapi.concurrency import Threads
from botapi.domain.access_rules import AccessRules
from botapi.domain.errors import Refusal
from botapi.domain.permissions import Grant, Role
from botapi.store.memory import MemoryStore
from botapi.transactions.change_user import change_user
from botapi.transactions.create_api_key import create_api_key, note_used
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.wrapped_store import WrappedStore

CI = "user:ci@example.com"


class CountingStore(WrappedStore):
    """Remembers which kinds were read by key."""

    def __init__(self, store):
        super().__init__(store)
        self.read = []
        self.get = self._counted

    def _counted(self, kind, *keys):
        self.read.append(kind)
        return self.inner.get(kind, *keys)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return CountingStore(MemoryStore(Threads(), clock))


@pytest.fixture
def directory(store, clock):
    rules = AccessRules()
    found = Directory(store, lambda: rules, clock)
    store.subscribe(found.hear)
    return found


@pytest.fixture
def key(store, clock):
    change_user(store, CI, lambda _: User(CI, frozenset({Grant(Role.VIEWER, "ci")})))
    text, key = new_api_key("k", None, FakeRng(), now_ms=clock.now_ms(), owner=CI)
    create_api_key(store, key)
    return text


def test_a_request_costs_one_read(directory, store, key):
    directory.of_api_key(key)
    store.read.clear()
    for _ in range(10):
        directory.of_api_key(key)
    assert store.read == [KIND] * 10


@pytest.mark.control("people.sessions")
def test_disabled_owner_is_refused_at_once(directory, store, key):
    _, caller = directory.of_api_key(key)
    assert caller.grants == {Grant(Role.VIEWER, "ci")}
    change_user(store, CI, lambda user: replace(user, disabled_ms=1))
    with pytest.raises(Refusal):
        directory.of_api_key(key)
    change_user(store, CI, lambda user: replace(user, disabled_ms=0))
    assert directory.of_api_key(key)[1] == caller


def test_lost_notification_is_made_good_within_two_seconds(store, clock, key):
    deaf = Directory(store, AccessRules, clock)
    deaf.of_api_key(key)
    change_user(store, CI, lambda user: replace(user, disabled_ms=1))
    clock.advance(2)
    with pytest.raises(Refusal):
        deaf.of_api_key(key)


def test_use_of_a_key_is_written_once_a_minute(directory, store, clock, key):
    first = clock.now_ms()
    for _ in range(5):
        directory.of_api_key(key)
    note_used(store, directory.take_used())
    (doc,) = store.get(KIND, key.split("_")[1])
    assert read_api_key(doc.key, doc.body).used_ms == first
    clock.advance(30)
    directory.of_api_key(key)
    assert directory.take_used() == {}
    clock.advance(31)
    directory.of_api_key(key)
    assert directory.take_used() == {doc.key: clock.now_ms()}


def test_time_of_use_never_goes_back(store, key):
    key_id = key.split("_")[1]
    note_used(store, {key_id: 7, "unknown0": 7})
    note_used(store, {key_id: 5})
    assert read_api_key(key_id, store.get(KIND, key_id)[0].body).used_ms == 7
