"""Notifications: after the commit, and only then."""

import queue
import threading

import pytest

from tests.store.conformance.support import LIMIT_S, doc, put, together


def notify(store, *topics):
    def work(txn):
        for topic in topics:
            txn.notify(topic)

    store.transact(work, label="notify")


def watch_while_notifying(store, watched, *topics):
    """What `watch` answers while the topics are notified again and again."""
    done = threading.Event()

    def watch():
        try:
            return store.watch(watched, LIMIT_S)
        finally:
            done.set()

    def keep_notifying():
        while not done.wait(0.005):
            notify(store, *topics)

    return together(watch, keep_notifying)[0]


class Wakeups:
    @pytest.fixture
    def heard(self, store):
        topics = queue.SimpleQueue()
        end = store.subscribe(topics.put)
        yield topics
        end()

    def test_subscriber_hears_every_topic_once_when_transaction_commits(self, store, heard):
        notify(store, "a", "b", "a")
        assert {heard.get(timeout=LIMIT_S), heard.get(timeout=LIMIT_S)} == {"a", "b"}
        notify(store, "end")
        assert heard.get(timeout=LIMIT_S) == "end"

    def test_subscriber_sees_the_writes_when_it_hears_of_them(self, store):
        seen = queue.SimpleQueue()
        end = store.subscribe(lambda topic: seen.put(store.get("thing", "k")))

        def work(txn):
            txn.notify("t")
            txn.put("thing", doc("k", n=1))

        store.transact(work, label="test")
        assert seen.get(timeout=LIMIT_S) == [doc("k", n=1)]
        end()

    def test_subscriber_hears_nothing_when_transaction_fails(self, store, heard):
        put(store, "thing", doc("taken"))

        def raising(txn):
            txn.notify("raised")
            raise LookupError

        def conflicting(txn):
            txn.notify("refused")
            txn.insert("thing", doc("taken"))

        for work in (raising, conflicting):
            with pytest.raises(Exception, match=r"^$|exists"):
                store.transact(work, label="test")
        notify(store, "good")
        assert heard.get(timeout=LIMIT_S) == "good"

    def test_subscriber_hears_no_more_when_it_has_ended(self, store):
        early, late = queue.SimpleQueue(), queue.SimpleQueue()
        end_early = store.subscribe(early.put)
        end_late = store.subscribe(late.put)
        end_early()
        end_early()
        notify(store, "t")
        assert late.get(timeout=LIMIT_S) == "t"
        assert early.empty()
        end_late()

    def test_subscriber_that_raises_harms_nobody(self, store, heard):
        def fail(topic):
            raise LookupError

        end = store.subscribe(fail)
        last = queue.SimpleQueue()
        end_last = store.subscribe(last.put)
        notify(store, "t")
        assert (heard.get(timeout=LIMIT_S), last.get(timeout=LIMIT_S)) == ("t", "t")
        put(store, "thing", doc("k"))
        end()
        end_last()

    @pytest.mark.parametrize("topic", ["", "two\nlines"])
    def test_topic_is_refused_when_it_is_not_one_line(self, store, topic):
        with pytest.raises(ValueError, match="topic"):
            notify(store, topic)

    def test_watch_returns_the_topic_when_it_is_notified(self, store):
        assert watch_while_notifying(store, ["a", "b"], "b") == {"b"}

    def test_watch_matches_by_prefix_when_topic_ends_in_star(self, store):
        assert watch_while_notifying(store, ["q!*"], "q", "r!1", "q!7") == {"q!7"}

    def test_watch_returns_nothing_when_time_is_up(self, store):
        assert store.watch(["never"], 0.01) == set()
        notify(store, "other")
        assert store.watch(["never*"], 0.01) == set()
