"""When each bot was last heard of: kept in memory, stored now and then.

An idle call touches memory only. Every `FLUSH_EVERY_S` the entries whose stored value is
older than `age_s` go out in one batch, so 10,000 bots cost about 167 small writes a second.
What a bot said of its state is the largest part of an entry, and is dropped once it is stored.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from botapi.concurrency import giving_way, native_lock
from botapi.domain.bot import LiveBot
from botapi.store import codec
from botapi.store.protocol import Store

FLUSH_EVERY_S = 10.0
REMEMBERED_POLLS = 16
REMEMBERED_BOTS = 20_000


class LastSeen:
    """The bots that this process has heard of."""

    def __init__(self, store: Store, age_s: float) -> None:
        self._store = store
        self._age_ms = int(age_s * 1000)
        self._live: dict[str, LiveBot] = {}
        self._stored_ms: dict[str, int] = {}
        self._lock = native_lock()

    def touch(
        self,
        bot_id: str,
        now_ms: int,
        *,
        state: Mapping[str, Any] | None = None,
        is_run: bool = False,
    ) -> None:
        """The bot called; `is_run`: it spoke of its run. A state replaces the last one."""
        with self._lock:
            old = self._live.get(bot_id)
            self._live[bot_id] = LiveBot(
                bot_id,
                now_ms,
                run_seen_ms=now_ms if is_run else (0 if old is None else old.run_seen_ms),
                state=state if state else (old.state if old is not None else None),
            )

    def get(self, *bot_ids: str) -> dict[str, LiveBot]:
        """The newest known of these bots: from memory and the store."""
        stored = self._store.get(codec.LIVE, *(codec.live_key(bot_id) for bot_id in bot_ids))
        found = {
            live.bot_id: live for live in map(codec.read_live, filter(None, giving_way(stored)))
        }
        for bot_id in bot_ids:
            own = self._live.get(bot_id)
            if own is not None:
                found[bot_id] = _merged(own, found[bot_id]) if bot_id in found else own
        return found

    def heard_ms(self, bot_id: str) -> int:
        """When this process heard of the bot last, 0 for never."""
        own = self._live.get(bot_id)
        return 0 if own is None else own.seen_ms

    def newest(self, stored: LiveBot) -> LiveBot:
        """The stored entry with what this process has heard since."""
        own = self._live.get(stored.bot_id)
        return stored if own is None else _merged(own, stored)

    def flush(self, *, everything: bool = False) -> int:
        """Store what is old enough; how many entries went out. Outage leaves them for later."""
        with self._lock:
            due = [
                live
                for bot_id, live in self._live.items()
                if live.seen_ms > self._stored_ms.get(bot_id, 0)
                and (everything or live.seen_ms - self._stored_ms.get(bot_id, 0) >= self._age_ms)
            ]
        if not due:
            return 0
        stored = self._store.get(codec.LIVE, *(codec.live_key(live.bot_id) for live in due))
        self._store.write_many(
            (
                codec.LIVE,
                codec.live_doc(live if doc is None else _merged(live, codec.read_live(doc)), doc),
            )
            for live, doc in zip(due, stored, strict=True)
        )
        with self._lock:
            for live in due:
                self._stored_ms[live.bot_id] = live.seen_ms
                newest = self._live.get(live.bot_id)
                if newest is not None and newest.state is live.state:
                    self._live[live.bot_id] = replace(newest, state=None)
        return len(due)

    def forget(self, bot_id: str) -> None:
        """The bot is gone; another process may still hear of it."""
        with self._lock:
            self._live.pop(bot_id, None)
            self._stored_ms.pop(bot_id, None)


class RecentPolls:
    """The latest `request_uuid`s of each bot's session that this process answered.

    A repeat of one is the retry of a poll whose reply was lost (bot-api 1.1).
    """

    def __init__(self) -> None:
        self._by_session: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    def add(self, bot_id: str, session_id: str, uuid: str) -> None:
        """This poll was answered; no uuid is nothing to remember."""
        if not uuid:
            return
        key = bot_id, session_id
        polls = self._by_session.pop(key, ())
        more = () if uuid in polls else (uuid,)
        self._by_session[key] = (*polls, *more)[-REMEMBERED_POLLS:]
        if len(self._by_session) > REMEMBERED_BOTS:
            self._by_session.popitem(last=False)

    def of(self, bot_id: str, session_id: str) -> tuple[str, ...]:
        """The last sixteen."""
        return self._by_session.get((bot_id, session_id), ())


def _merged(own: LiveBot, stored: LiveBot) -> LiveBot:
    """What two processes know together: each hears only some of a bot's calls."""
    is_newer = own.seen_ms >= stored.seen_ms
    newer, older = (own, stored) if is_newer else (stored, own)
    return replace(
        newer,
        run_seen_ms=max(own.run_seen_ms, stored.run_seen_ms),
        state=older.state if newer.state is None else newer.state,
    )
