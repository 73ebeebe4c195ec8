"""The scheduler by itself: bots that wait without HTTP, tasks, and a fleet of sessions."""

import threading

import pytest

from botapi.domain.bot_event import BotUpdate, CallInfo, EventKind
from botapi.domain.claim import Attempt
from botapi.domain.matching import shard
from botapi.store import codec
from botapi.store.codec import LeaseSession
from botapi.transactions.claim_slice import Claim, claim_slice
from botapi.transactions.lease_session import open_lease_session
from botapi.transactions.update_bot import Stamp, update_bot
from tests.handlers.conftest import write_bot

LIMIT_S = 20.0
HOLD_S = 60.0
"""Held longer than a test waits: a call that only its timeout ends is a failure."""
KEEP_MS = 1_000_000_000


@pytest.fixture
def settings(tmp_path):
    from botapi.settings import Settings

    return Settings(data_dir=tmp_path / "data", bot_archive=write_bot(tmp_path / "bot.zip"))


def wait(offers, *call):
    """What a call gets that is held here."""
    waiter = offers.begin(*call)
    waiter.done.wait(waiter.wait_s)
    return offers.end(waiter)


def connect(store, bot_id, now_ms, pool="default", **dims):
    """A bot that has a session and an open lease session, as after handshake and poll."""
    flat = tuple(sorted((f"id:{bot_id}", f"pool:{pool}", *(f"{k}:{v}" for k, v in dims.items()))))
    call = CallInfo(f"{bot_id}/1", "127.0.0.1", "bot:test", "v1")
    update = BotUpdate(EventKind.BOT_CONNECTED, dedup_key=f"{bot_id}/1", call=call)
    stamp = Stamp(now_ms, f"connect-{bot_id}", KEEP_MS)
    update_bot(store, bot_id, update, stamp, first_dimensions=flat)
    open_lease_session(store, LeaseSession(bot_id, f"ls-{bot_id}", f"{bot_id}/1", now_ms))
    return frozenset(flat)


def claim(store, bot_id, task_id, now_ms, claim_id="", index=0):
    """What the claim handler does."""
    key = claim_id or f"claim-{task_id}"
    (req,) = store.get(codec.REQ, codec.task_key(task_id))
    slices = codec.read_request(req).slices
    attempt = Attempt(f"{bot_id}/1", f"{bot_id}:{key}", index, shard(slices[index].dimensions))
    wanted = Claim(bot_id, task_id, attempt, key, 1, ())
    return claim_slice(store, wanted, Stamp(now_ms, f"claim-{bot_id}-{task_id}", KEEP_MS)).decision


class Threads:
    """Threads that are joined, with what they returned; errors rise in the test."""

    def __init__(self):
        self.running = []

    def start(self, fn, *args):
        box = {}

        def run():
            try:
                box["value"] = fn(*args)
            except BaseException as error:  # noqa: BLE001 - it rises in `join`
                box["error"] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.running.append((thread, box))
        return box

    def join(self):
        values = []
        for thread, box in self.running:
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "a thread hangs"
            if "error" in box:
                raise box["error"]
            values.append(box["value"])
        self.running = []
        return values


@pytest.fixture
def threads():
    return Threads()


def at_once(threads, *acts):
    """Run all acts from one barrier; their results in order."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait(LIMIT_S)
        return act()

    for act in acts:
        threads.start(run, act)
    return threads.join()
