"""Snapshots of bots.cfg over a real store, pushed by the real transaction."""

import pytest

from botapi.cfg.bundle import Source
from botapi.cfg.provider import KIND, Provider, Rejected, revision_key
from botapi.concurrency import Threads
from botapi.domain.bot_groups import built_in
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Outage
from botapi.transactions.push_config import Pushed, push_config, reject_config
from tests.auth.fixed import FixedClock

NOW = 1_772_604_367_000


def source(pool):
    return Source(f'bot_group {{ dimensions: "pool:{pool}" }}', {})


class Quiet:
    """A store that loses every notification, counts reads, and fails on demand."""

    def __init__(self, inner):
        self.inner = inner
        self.reads = 0
        self.is_down = False

    def get(self, kind, *keys):
        self.reads += 1
        if self.is_down:
            raise Outage("down")
        return self.inner.get(kind, *keys)

    def subscribe(self, callback):
        return lambda: None


class Calling(Quiet):
    """Notifies when the test says so."""

    def subscribe(self, callback):
        self.call = callback
        return lambda: setattr(self, "call", None)


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def store(clock):
    return MemoryStore(Threads(), clock)


def push(store, pool, parent="", now_ms=NOW):
    pushed = push_config(store, source(pool), parent=parent, author="test", now_ms=now_ms)
    assert isinstance(pushed, Pushed)
    return pushed.head.digest


def pool_of(snapshot):
    return snapshot.bots.group_of("b").dimensions["pool"]


def test_provider_serves_the_built_in_file_when_there_is_none(store, clock):
    snapshot = Provider(store, clock).cached()
    assert snapshot.bots == built_in()
    assert (snapshot.rev, snapshot.digest, snapshot.fetched_ms, snapshot.source.bots) == (
        0,
        "",
        0,
        "",
    )


def test_provider_serves_what_was_pushed(store, clock):
    digest = push(store, "one")
    snapshot = Provider(store, clock).latest()
    assert pool_of(snapshot) == ("one",)
    assert (snapshot.rev, snapshot.digest, snapshot.source.bots) == (1, digest, source("one").bots)
    assert (snapshot.fetched_ms, snapshot.applied_at_ms) == (NOW, NOW)


@pytest.mark.spec("7.5.1.2")
def test_cached_reads_nothing_again_within_four_seconds(store, clock):
    quiet = Quiet(store)
    provider = Provider(quiet, clock)
    before = provider.cached()
    reads = quiet.reads
    push(store, "one")
    clock.advance(3.9)
    assert provider.cached() is before
    assert quiet.reads == reads
    clock.advance(0.1)
    assert pool_of(provider.cached()) == ("one",)


def test_cached_is_the_same_object_while_nothing_changes(store, clock):
    push(store, "one")
    provider = Provider(store, clock)
    before = provider.cached()
    clock.advance(10)
    assert provider.cached() is before
    assert provider.latest() is before


@pytest.mark.parametrize(("topic", "is_new"), [("cfg", True), ("*", True), ("bot", False)])
def test_cached_reads_again_at_once_when_the_store_notifies(store, clock, topic, is_new):
    calling = Calling(store)
    provider = Provider(calling, clock)
    provider.cached()
    push(store, "one")
    calling.call(topic)
    assert (provider.cached().rev == 1) is is_new


@pytest.mark.spec("7.5.1.2")
def test_latest_always_looks(store, clock):
    provider = Provider(Quiet(store), clock)
    digest = push(store, "one")
    assert provider.latest().rev == 1
    push(store, "two", parent=digest)
    assert pool_of(provider.latest()) == ("two",)


@pytest.mark.spec("2.7.p1", "7.5.1.2")
def test_fresh_enough_reads_again_only_when_somebody_has_seen_more(store, clock):
    quiet = Quiet(store)
    provider = Provider(quiet, clock)
    first = push(store, "one")
    seen = provider.cached().fetched_ms
    push(store, "two", parent=first, now_ms=seen)
    reads = quiet.reads
    assert provider.fresh_enough(seen).rev == 1
    assert quiet.reads == reads
    assert provider.fresh_enough(seen + 1).rev == 2
    assert provider.fresh_enough(seen + 9_999).rev == 2


def test_provider_reads_again_after_an_outage(store, clock):
    quiet = Quiet(store)
    provider = Provider(quiet, clock)
    provider.cached()
    push(store, "one")
    clock.advance(4)
    quiet.is_down = True
    with pytest.raises(Outage):
        provider.cached()
    quiet.is_down = False
    assert provider.cached().rev == 1


def test_cached_serves_the_one_before_while_a_new_one_is_parsed(store, clock):
    seen = []

    def native(fn):
        if provider._snapshot.rev:
            clock.advance(60)
            seen.append(provider.cached().rev)
        return fn()

    provider = Provider(store, clock, native)
    first = push(store, "one")
    assert provider.cached().rev == 1
    push(store, "two", parent=first)
    assert (provider.latest().rev, seen) == (2, [1])
    assert provider.cached().rev == 2


def test_cached_waits_for_the_first_revision_of_all(store, clock):
    """The built-in file must not be served in its place: it refuses every bot."""
    seen = []

    def native(fn):
        if not seen:
            seen.append(0)
            seen.append(provider.cached().rev)
        return fn()

    provider = Provider(store, clock, native)
    push(store, "one")
    assert provider.cached().rev == 1
    assert seen == [0, 1]


def test_provider_parses_again_after_a_failure(store, clock):
    failures = iter([None, MemoryError("no"), None])

    def native(fn):
        failure = next(failures)
        if failure:
            raise failure
        return fn()

    provider = Provider(store, clock, native)
    first = push(store, "one")
    assert provider.latest().rev == 1
    push(store, "two", parent=first)
    with pytest.raises(MemoryError):
        provider.latest()
    assert provider.cached().rev == 2


def test_provider_never_goes_back_when_the_store_does(store, clock):
    digest = push(store, "one")
    push(store, "two", parent=digest)
    provider = Provider(store, clock)
    assert provider.latest().rev == 2
    empty = MemoryStore(Threads(), clock)
    provider._store = empty  # a replica that lags behind
    assert provider.latest().rev == 2


def test_provider_fails_when_the_revision_in_force_is_missing(store, clock):
    push(store, "one")
    store.transact(lambda txn: txn.delete(KIND, revision_key(1)), label="test")
    with pytest.raises(LookupError, match="revision 1"):
        Provider(store, clock).latest()


def test_rejected_tells_why_the_file_is_kept_out(store, clock):
    provider = Provider(store, clock)
    assert provider.rejected() is None
    rejected = Rejected("raw:1", NOW, ("bots.cfg:1:1: wrong",))
    reject_config(store, rejected)
    assert provider.rejected() == rejected


def test_file_digest_tells_which_files_were_acted_on(store, clock):
    provider = Provider(store, clock)
    assert provider.file_digest() == ""
    one = source("one")
    push_config(store, one, parent="", author="file", now_ms=NOW, from_disk=True)
    assert provider.file_digest() == one.digest()


def test_close_ends_the_subscription(store, clock):
    calling = Calling(store)
    provider = Provider(calling, clock)
    provider.close()
    assert calling.call is None
