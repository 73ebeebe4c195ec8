from threading import Event

import pytest

from botapi.cfg.bundle import Source
from botapi.cfg.provider import (
    FILE_KEY,
    HEAD_KEY,
    KIND,
    MAX_REVISIONS,
    MAX_STORED_MISTAKES,
    REJECTED_KEY,
    Head,
    Rejected,
    head_body,
    head_of,
    read_file,
    read_head,
    read_rejected,
    read_source,
    revision_body,
    revision_key,
)
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Doc
from botapi.transactions.push_config import Outdated, Pushed, push_config, reject_config
from tests.auth.fixed import FixedClock
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.twice_store import TwiceStore

NOW = 1_772_604_367_000
ONE = Source("# one", {"s.py": b"pass"})
TWO = Source("# two", {})


@pytest.fixture(params=["plain", "twice", "ambiguous"])
def store(request):
    memory = MemoryStore(Threads(), FixedClock())
    if request.param == "twice":
        return TwiceStore(memory)
    if request.param == "ambiguous":
        return FaultyStore(memory, seed=1, after=0.5)
    return memory


def push(store, source, parent="", now_ms=NOW, **more):
    return push_config(store, source, parent=parent, author="me", now_ms=now_ms, **more)


def file_digest(store):
    return read_file(store.get(KIND, FILE_KEY)[0])


def head(store):
    return read_head(store.get(KIND, HEAD_KEY)[0])


def test_push_puts_the_first_revision_in_force(store):
    pushed = push(store, ONE, reason="because")
    assert pushed == Pushed(head(store), "", is_new=True)
    assert (pushed.head.rev, pushed.head.digest) == (1, ONE.digest())
    assert (pushed.head.fetched_ms, pushed.head.applied_at_ms) == (NOW, NOW)
    assert (pushed.head.author, pushed.head.reason) == ("me", "because")
    (revision,) = store.get(KIND, revision_key(1))
    assert read_source(revision.body) == ONE
    assert head_of(revision.body) == pushed.head


def test_push_keeps_the_revision_before(store):
    push(store, ONE)
    pushed = push(store, TWO, parent=ONE.digest(), now_ms=NOW + 5)
    assert (pushed.head.rev, pushed.before) == (2, ONE.digest())
    revisions = store.get(KIND, revision_key(1), revision_key(2))
    assert [read_source(doc.body) for doc in revisions] == [ONE, TWO]


def test_push_of_what_is_in_force_changes_nothing(store):
    push(store, ONE)
    again = push(store, ONE, parent=ONE.digest(), now_ms=NOW + 5)
    assert again == Pushed(head(store), ONE.digest(), is_new=False)
    assert head(store).applied_at_ms == NOW
    assert push(store, ONE, parent="anything", now_ms=NOW + 6).is_new is False


def test_push_is_refused_when_somebody_else_was_faster(store):
    push(store, ONE)
    assert push(store, TWO, parent="", now_ms=NOW + 5) == Outdated(head(store))
    assert head(store).rev == 1


@pytest.mark.parametrize("later_ms", [0, -60_000])
def test_fetched_grows_when_the_clock_stands_still_or_goes_back(store, later_ms):
    push(store, ONE)
    pushed = push(store, TWO, parent=ONE.digest(), now_ms=NOW + later_ms)
    assert pushed.head.fetched_ms == NOW + 1
    assert pushed.head.applied_at_ms == NOW + later_ms


def test_push_writes_the_audit_entry_of_its_caller_in_the_same_transaction(store):
    def also(txn, pushed):
        txn.put("audit", Doc("entry", {"before": pushed.before, "after": pushed.head.digest}))

    push(store, ONE, also=also)
    (entry,) = store.get("audit", "entry")
    assert dict(entry.body) == {"before": "", "after": ONE.digest()}


def test_push_writes_nothing_when_the_audit_entry_fails(store):
    def also(txn, pushed):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        push(store, ONE, also=also)
    assert head(store).rev == 0


def test_rejection_is_kept_until_a_good_file_comes(store):
    rejected = Rejected("raw:1", NOW, ("bots.cfg:1:1: wrong",))
    reject_config(store, rejected)
    reject_config(store, Rejected("raw:1", NOW + 9, ("bots.cfg:1:1: wrong",)))
    assert read_rejected(store.get(KIND, REJECTED_KEY)[0]) == rejected
    other = Rejected("raw:2", NOW + 10, ("bots.cfg:1:2: wrong",))
    reject_config(store, other)
    assert read_rejected(store.get(KIND, REJECTED_KEY)[0]) == other
    push(store, ONE, from_disk=True)
    assert store.get(KIND, REJECTED_KEY) == [None]


def test_rejection_ends_when_the_file_is_the_one_in_force_again(store):
    push(store, ONE)
    reject_config(store, Rejected("raw:1", NOW, ("bots.cfg:1:1: wrong",)))
    again = push(store, ONE, parent=ONE.digest(), now_ms=NOW + 1, from_disk=True)
    assert again.is_new is False
    assert store.get(KIND, REJECTED_KEY) == [None]


def test_rejection_stays_when_a_person_pushes_something_else_than_the_files(store):
    rejected = Rejected("raw:1", NOW, ("bots.cfg:1:1: wrong",))
    reject_config(store, rejected)
    push(store, ONE)
    assert read_rejected(store.get(KIND, REJECTED_KEY)[0]) == rejected
    assert file_digest(store) == ""


def test_rejection_ends_when_a_person_pushes_what_the_files_say(store):
    reject_config(store, Rejected(ONE.digest(), NOW, ("bots.cfg:1:1: would drop 1",)))
    push(store, ONE)
    assert store.get(KIND, REJECTED_KEY) == [None]
    assert file_digest(store) == ONE.digest()


def test_files_that_were_acted_on_are_not_put_in_force_again(store):
    push(store, ONE, from_disk=True)
    push(store, TWO, parent=ONE.digest(), now_ms=NOW + 1)
    again = push(store, ONE, parent=TWO.digest(), now_ms=NOW + 2, from_disk=True)
    assert again == Pushed(head(store), TWO.digest(), is_new=False)
    assert (head(store).digest, file_digest(store)) == (TWO.digest(), ONE.digest())


def test_files_are_put_in_force_when_they_change_after_a_person_has_pushed(store):
    push(store, ONE, from_disk=True)
    push(store, TWO, parent=ONE.digest(), now_ms=NOW + 1)
    three = Source("# three", {})
    assert push(store, three, parent=TWO.digest(), now_ms=NOW + 2, from_disk=True).is_new
    assert (head(store).digest, file_digest(store)) == (three.digest(), three.digest())


def test_files_that_say_what_is_in_force_count_as_acted_on(store):
    push(store, ONE)
    assert push(store, ONE, parent="", now_ms=NOW + 1, from_disk=True).is_new is False
    assert file_digest(store) == ONE.digest()


def test_files_whose_push_lost_a_race_do_not_count_as_acted_on(store):
    push(store, ONE)
    assert isinstance(push(store, TWO, parent="", now_ms=NOW + 1, from_disk=True), Outdated)
    assert file_digest(store) == ""


def test_push_deletes_the_oldest_revision_beyond_those_that_are_kept(store):
    """As if it were the 1,001st push: revision 1 goes, 2 stays, and so does the newest."""
    push(store, ONE)
    late = Head(MAX_REVISIONS, TWO.digest(), NOW, NOW, "me")

    def skip(txn):
        for key in (revision_key(2), revision_key(late.rev)):
            txn.put(KIND, Doc(key, {**revision_body(TWO, late), "v": 1}))
        txn.put(KIND, Doc(HEAD_KEY, {**head_body(late), "v": 1}))

    store.transact(skip, label="test")
    assert push(store, ONE, parent=TWO.digest(), now_ms=NOW + 1).head.rev == MAX_REVISIONS + 1
    keys = [revision_key(rev) for rev in (1, 2, MAX_REVISIONS, MAX_REVISIONS + 1)]
    found = store.get(KIND, *keys)
    assert [doc is not None for doc in found] == [False, True, True, True]


def test_documents_of_an_older_release_have_no_reason():
    body = head_body(Head(1, "d", 2, 3, "me", "why"))
    del body["reason"]
    assert head_of(body) == Head(1, "d", 2, 3, "me", "")


def test_rejection_keeps_a_bounded_number_of_mistakes(store):
    many = tuple(f"bots.cfg:{n}:1: wrong" for n in range(MAX_STORED_MISTAKES + 5))
    reject_config(store, Rejected("raw:1", NOW, many))
    stored = read_rejected(store.get(KIND, REJECTED_KEY)[0])
    assert stored.mistakes == many[:MAX_STORED_MISTAKES]


def test_changes_are_notified():
    memory = MemoryStore(Threads(), FixedClock())
    heard = Event()
    memory.subscribe(lambda topic: heard.set() if topic == "cfg" else None)
    push(memory, ONE)
    assert heard.wait(5)
    heard.clear()
    reject_config(memory, Rejected("raw:1", NOW, ("bots.cfg:1:1: wrong",)))
    assert heard.wait(5)
