"""Processes that say they are there, and the schema number that none of them may be behind."""

from dataclasses import replace

import pytest

from botapi.scheduler.presence import EVERY_S, Presence
from botapi.store import schema
from botapi.store.protocol import SCHEMA_NUMBER, SchemaMismatch
from botapi.transactions.server_presence import (
    ALIVE_MS,
    Server,
    announce,
    leave,
    living,
    raise_schema,
)

NEXT = SCHEMA_NUMBER + 1
OLD = Server("old", "host1", "1.0", SCHEMA_NUMBER, "", 0)
NEW = Server("new", "host2", "2.0", NEXT, "", 0)


@pytest.fixture(autouse=True)
def number():
    """The number in force belongs to the process, and so to all tests."""
    yield
    schema.put_in_force(SCHEMA_NUMBER)


def say(store, server, clock):
    return announce(store, replace(server, seen_ms=clock.now_ms()))


def test_process_is_there_for_a_minute_after_it_said_so(store, clock):
    say(store, OLD, clock)
    assert [server.server_id for server in living(store, clock.now_ms())] == ["old"]
    clock.advance(ALIVE_MS / 1000)
    assert living(store, clock.now_ms()) == []
    say(store, OLD, clock)
    leave(store, "old")
    assert living(store, clock.now_ms()) == []


def test_number_is_raised_once_audited_and_never_lowered(store, clock):
    raised = [
        raise_schema(store, number, entry_id=f"e{n}", now_ms=clock.now_ms())
        for n, number in enumerate((NEXT, NEXT, SCHEMA_NUMBER))
    ]
    assert raised == [SCHEMA_NUMBER, NEXT, NEXT]
    assert store.schema().active == NEXT
    entries = store.scan("audit", "", "~", limit=9)
    assert [(doc.body["verb"], doc.body["after"]) for doc in entries] == [("schema.raise", "2")]


def test_one_of_two_with_other_blobs_ends_when_both_began_at_once(store, clock):
    ended = []
    pair = [
        Presence(
            store, clock, replace(OLD, server_id=name, blobs=place), lambda n=name: ended.append(n)
        )
        for name, place in (("a", "here"), ("b", "there"))
    ]
    for presence in pair:
        say(store, presence.me, clock)
    for presence in [*pair, *pair]:
        presence.beat()
    assert ended == ["b"]


def test_older_process_is_refused_and_ends_when_the_number_was_raised(store, clock):
    ended = []
    presence = Presence(store, clock, OLD, lambda: ended.append(True))
    presence.beat()
    assert ended == []
    raise_schema(store, NEXT, entry_id="e", now_ms=clock.now_ms())
    presence.beat()
    assert ended == []
    clock.advance(EVERY_S)
    presence.beat()
    assert ended == [True]
    with pytest.raises(SchemaMismatch, match=f"needs schema {NEXT} now; this Skep knows"):
        say(store, OLD, clock)
    assert say(store, NEW, clock) == NEXT


def test_process_writes_the_number_in_force_as_soon_as_it_hears_of_it(store, clock, monkeypatch):
    monkeypatch.setattr(schema, "SCHEMA_NUMBER", NEXT)
    schema.put_in_force(SCHEMA_NUMBER)
    presence = Presence(store, clock, NEW, lambda: None)
    presence.beat()
    assert schema.body({})["v"] == SCHEMA_NUMBER
    raise_schema(store, NEXT, entry_id="e", now_ms=clock.now_ms())
    clock.advance(EVERY_S)
    presence.beat()
    assert schema.body({})["v"] == NEXT


def test_process_that_ends_is_not_waited_for(store, clock):
    presence = Presence(store, clock, OLD, lambda: None)
    presence.close()
    presence.beat()
    assert len(living(store, clock.now_ms())) == 1
    presence.close()
    assert living(store, clock.now_ms()) == []
