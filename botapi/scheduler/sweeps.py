"""What time does by itself: one process at a time looks for what is due and does it.

Each item is one transaction that checks again, so a sweeper that was paused for an hour
and goes on does no harm. One item that fails does not stop the others.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from botapi import metrics
from botapi.clock import DAY_MS, Clock, Rng
from botapi.concurrency import Concurrency, Event
from botapi.domain.bot import Bot, LiveBot
from botapi.domain.contact import DEFAULT_GRACE_S, silence_limit_s, silent_s
from botapi.domain.deadline import is_overdue, stop_grace_s
from botapi.domain.names import new_request_id, parse_task_id, task_id
from botapi.domain.task import Slice, Task
from botapi.scheduler.blob_sweep import BlobSweep
from botapi.scheduler.follow_ups import FollowUps
from botapi.scheduler.known_bots import any_bot
from botapi.scheduler.last_seen import FLUSH_EVERY_S, LastSeen
from botapi.scheduler.rollout import Rollouts
from botapi.secrets.vault import OF_TASKS
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import (
    Doc,
    Key,
    Outage,
    Store,
    StoreError,
    join_key,
    prefix_range,
    split_key,
)
from botapi.store.walk import END, PAGE, find_pages, key_pages, walk
from botapi.transactions.bot_missing import bot_missing, forget_live, kill_ignored, run_missing
from botapi.transactions.cancel_task import kill_run
from botapi.transactions.delete_queue import delete_queue
from botapi.transactions.delete_task import delete_output, delete_task, forget_due
from botapi.transactions.expire_slice import expire_slice
from botapi.transactions.follow_up import TOPIC
from botapi.transactions.hold_duty import Fence, hold_duty, leave_duty
from botapi.transactions.offer_lease import return_offer
from botapi.transactions.repair_pending import repair_pending
from botapi.transactions.rotate_keys import ROTATING, advance_rotation
from botapi.transactions.server_presence import KIND as SERVERS
from botapi.transactions.skip_slice import skip_slice
from botapi.transactions.update_bot import Stamp

DUTY = "sweeper"
DUTY_MS = 10_000
SILENT_EVERY_ROUNDS = 3
SILENT_EVERY_S = 60.0
"""Seconds between two looks for silent bots, or a tenth of the silence that makes a bot dead,
which is less: a look reads when each bot of the fleet was heard of."""
SLOW_EVERY_S = 60.0
LOOK_S = 1.0
PAUSED_S = 20.0
"""A process that did nothing for so long was not up: it could not have heard any bot."""
QUEUE_KEEP_MS = 7 * DAY_MS
"""How long an empty queue is kept after it was last used."""
QUEUES_EVERY_S = 3_600.0
MAX_PASSES = 16
"""Looks at the timers in one go: what is done may set more in motion."""
OVERRAN = "it went on long after its limits"
DELETE_PIECES = 100
MAX_SHOWN_QUEUES = 100
"""Queues without a bot whose slices are counted for the metrics, `PAGE` of each at most."""
EXPIRING = (codec.BOT, codec.EVENT, codec.DEDUP, codec.AUDIT, OF_TASKS, SERVERS)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Sweeps:
    """The sweeper of one process.

    `watch` looks at files on disk, in the process that sweeps, every round; `look` at what
    changed, in every process, about once a second. `bot_death_s` is the silence that makes
    a bot dead, as settings.cfg or else the environment says.
    """

    store: Store
    concurrency: Concurrency
    clock: Clock
    rng: Rng
    settings: Settings
    last_seen: LastSeen
    watch: Callable[[int], None]
    look: Callable[[], None]
    bot_death_s: Callable[[], float]
    rollouts: Rollouts
    blobs: BlobSweep
    ready_ms: int
    holder: str
    closed: bool = False
    next_silent: float = 0.0
    held_until_ms: int = 0
    fence: int = 0
    next_queues: float = 0.0
    next_slow: float = 0.0
    without_bots: frozenset[Key] = frozenset()
    """The queues in which slices waited a minute ago although no known bot could run them."""
    wake: Event = field(init=False)
    unsubscribe: Callable[[], None] = field(init=False)
    follow_ups: FollowUps = field(init=False)

    def __post_init__(self) -> None:
        self.wake = self.concurrency.event()
        self.follow_ups = FollowUps(self.store, self.rng, self.clock.now_ms)
        self.unsubscribe = self.store.subscribe(self.hear)

    def hear(self, topic: str) -> None:
        """A commit somewhere made a timer that is due at once; runs on any thread."""
        if topic.startswith(TOPIC) and self.held_until_ms:
            self.wake.set()

    def run(self) -> None:
        """Sweep until closed."""
        next_flush = self.clock.monotonic() + FLUSH_EVERY_S
        next_round = 0.0
        while not self.closed:
            before_ms = self.clock.now_ms()
            is_woken = self.wake.wait(min(self.settings.sweep_s, LOOK_S))
            if self.closed:
                return
            self.notice_pause(before_ms)
            if is_woken:
                self.wake.clear()
                self._guard("due", self.do_due)
            now = self.clock.monotonic()
            if now >= next_flush:
                next_flush = now + FLUSH_EVERY_S
                self._guard("flush", self.last_seen.flush)
            if now >= next_round:
                next_round = now + self.settings.sweep_s
                self._guard("sweep", self.round)
            self._guard("look", self.look)

    def notice_pause(self, before_ms: int) -> None:
        """Begin to count the silence of bots anew when this process has stood still since."""
        now_ms = self.clock.now_ms()
        if now_ms - before_ms > PAUSED_S * 1000:
            log.warning("this process stood still for %d s", (now_ms - before_ms) // 1000)
            self.ready_ms = now_ms

    def close(self) -> None:
        """Stop, store what is only in memory, and leave the duty to others."""
        self.closed = True
        self.unsubscribe()
        self.wake.set()
        self._guard("flush", lambda: self.last_seen.flush(everything=True))
        self._guard("leave", lambda: leave_duty(self.store, DUTY, self.holder))

    def round(self) -> dict[str, int]:
        """One round: how many items each sweep changed; empty when another process sweeps."""
        if not self._holds_duty():
            metrics.TASKS_UNRUNNABLE.clear()
            metrics.ROLLOUT_BOTS.clear()
            return {}
        with self._timed("sweep"):
            return self._round(self.clock.now_ms())

    def _round(self, now_ms: int) -> dict[str, int]:
        self.watch(now_ms)
        done = {}
        with self._timed("timers"):
            done["slices"] = self._do_timers(now_ms)
        with self._timed("offers"):
            done["offers"] = self._return_offers(now_ms)
        if self.clock.monotonic() >= self.next_silent:
            seldom_s = min(SILENT_EVERY_S, self.bot_death_s() / 10)
            every_s = max(SILENT_EVERY_ROUNDS * self.settings.sweep_s, seldom_s)
            self.next_silent = self.clock.monotonic() + every_s
            with self._timed("silence"):
                done["bots"] = self._silent_bots(now_ms)
                done["runs"] = self._silent_runs(now_ms)
        with self._timed("rollout"):
            self._guard("rollout", lambda: self.rollouts.round(now_ms))
        self._guard("blobs", self.blobs.round)
        if self.clock.monotonic() >= self.next_slow:
            self.next_slow = self.clock.monotonic() + SLOW_EVERY_S
            with self._timed("slow"):
                done["skipped"] = self._skip_slices()
                done["repairs"] = self._repair()
                done["keys"] = self._advance_keys(now_ms)
                done["expired"] = self._delete_expired(now_ms)
                done["tasks"] = self._delete_old_tasks(now_ms)
        if self.clock.monotonic() >= self.next_queues:
            self.next_queues = self.clock.monotonic() + QUEUES_EVERY_S
            done["queues"] = self._delete_queues(now_ms)
        return done

    @contextmanager
    def _timed(self, job: str) -> Iterator[None]:
        """Note how long a part of the round took, and when it last came to its end."""
        began = self.clock.monotonic()
        yield
        metrics.SWEEP_SECONDS[job,].observe(self.clock.monotonic() - began)
        metrics.SWEEP_SUCCESS[job,].set(self.clock.now_ms() / 1000)

    def do_due(self) -> bool:
        """Only what is due by a timer, and only in the process that sweeps."""
        return self._holds_duty() and self._do_timers(self.clock.now_ms()) > 0

    def _holds_duty(self) -> bool:
        """Is it this process that sweeps? Asks the store only when its time is half over."""
        now_ms = self.clock.now_ms()
        if self.held_until_ms - now_ms > DUTY_MS // 2:
            return True
        fence = hold_duty(self.store, DUTY, self.holder, now_ms=now_ms, for_ms=DUTY_MS)
        self.held_until_ms = 0 if fence is None else now_ms + DUTY_MS
        self.fence = fence or 0
        return fence is not None

    def _guard(self, what: str, act: Callable[[], object]) -> bool:
        """Run one item; an error is logged and the next one goes on."""
        try:
            return bool(act())
        except Outage as error:
            log.warning("%s: %s", what, error)
            self.ready_ms = self.clock.now_ms()
        except StoreError as error:
            log.warning("%s: %s", what, error)
        except Exception:
            log.exception("%s failed", what)
        return False

    def _do_timers(self, now_ms: int) -> int:
        """Slices that expire, and what ends and wishes have set in motion."""
        total = 0
        for _ in range(MAX_PASSES):
            done = self._pass(now_ms)
            total += done
            if not done:
                break
        return total

    def _pass(self, now_ms: int) -> int:
        done = 0
        for bucket in range(codec.DUE_BUCKETS):
            lo, _ = prefix_range(f"{bucket:02x}")
            hi = join_key(f"{bucket:02x}", codec.oldest_first(now_ms + 1))
            for doc in walk(self.store, codec.DUE, lo, hi):
                done += self._guard(split_key(doc.key)[2], partial(self._do, doc, now_ms))
        return done

    def _do(self, due: Doc, now_ms: int) -> bool:
        return self.follow_ups.act(due) or self._expire(due, now_ms)

    def _expire(self, due: Doc, now_ms: int) -> bool:
        of = split_key(due.key)[3]
        if expire_slice(self.store, of, due.body["slice_index"], now_ms) is None:
            forget_due(self.store, due.key)
            return False
        return True

    def _return_offers(self, now_ms: int) -> int:
        limit_ms = int(self.settings.offer_timeout_s * 1000)
        done = 0
        for doc in walk(self.store, codec.OFFER):
            offer = codec.read_offer(doc)
            if now_ms - offer.offered_ms > limit_ms:
                done += self._guard(
                    "return offer",
                    partial(
                        return_offer,
                        self.store,
                        offer,
                        now_ms,
                        f"not claimed within {limit_ms // 1000} s",
                    ),
                )
        metrics.LEASES_EXPIRED.inc(done)
        return done

    def _skip_slices(self) -> int:
        """Slices for which there has been no bot for a minute: dimensions may flicker."""
        done, lo, without = 0, "", set[Key]()
        while keys := self.store.scan_keys(codec.PEND, lo, END, limit=1):
            queue_key = codec.queue_of_pend(keys[0])
            pending = codec.queue_range(queue_key)
            lo = pending[1]
            (doc,) = self.store.get(codec.QUEUE, queue_key)
            if doc is None or any_bot(self.store, codec.read_queue(doc).constraints):
                continue
            without.add(queue_key)
            if queue_key in self.without_bots and self._holds_duty():
                done += self._skip_queue(pending)
        self.without_bots = frozenset(without)
        self._show_unrunnable()
        return done

    def _show_unrunnable(self) -> None:
        """How many slices wait in each pool that nobody could run."""
        waiting: Counter[str] = Counter()
        for queue_key in sorted(self.without_bots)[:MAX_SHOWN_QUEUES]:
            keys = self.store.scan_keys(codec.PEND, *codec.queue_range(queue_key), limit=PAGE)
            waiting[metrics.pool_label(split_key(queue_key)[0])] += len(keys)
        metrics.TASKS_UNRUNNABLE.clear()
        for pool, count in waiting.items():
            metrics.TASKS_UNRUNNABLE.labels(pool).set(count)

    def _skip_queue(self, pending: tuple[Key, Key]) -> int:
        done, fence = 0, Fence(DUTY, self.holder, self.fence)
        for slot in map(codec.read_pending, walk(self.store, codec.PEND, *pending)):
            if not slot.waits_for_capacity:
                now_ms = self.clock.now_ms()
                slot_of = (slot.task_id, slot.slice_index)
                act = partial(skip_slice, self.store, *slot_of, now_ms, fence)
                done += self._guard("skip slice", act)
        return done

    def _silent_bots(self, now_ms: int) -> int:
        done = 0
        for shard in range(codec.LIVE_SHARDS):
            for doc in self._not_heard(prefix_range(f"{shard:x}"), now_ms):
                live = self.last_seen.newest(codec.read_live(doc))
                if silent_s(now_ms, live.seen_ms, self.ready_ms) > self._limit_s(None):
                    done += self._guard("silent bot", partial(self._bury, live, now_ms))
        return done

    def _not_heard(self, within: tuple[Key, Key], now_ms: int) -> Iterator[Doc]:
        """The stored entries of bots that were silent for too long as far as this process heard."""
        limit_s = self._limit_s(None)
        for keys in key_pages(self.store, codec.LIVE, *within):
            heard = ((key, self.last_seen.heard_ms(split_key(key)[1])) for key in keys)
            quiet = [key for key, ms in heard if silent_s(now_ms, ms, self.ready_ms) > limit_s]
            yield from filter(None, self.store.get(codec.LIVE, *quiet))

    def _silent_runs(self, now_ms: int) -> int:
        """Runs of bots that call, but not about their run. A bot with a run counts as busy."""
        done = 0
        for docs in find_pages(self.store, codec.BOT, [frozenset({"s:busy"})]):
            bots = [bot for bot in map(codec.read_bot, docs) if bot.task_id and not bot.dead]
            seen = self.last_seen.get(*(bot.bot_id for bot in bots))
            for bot in bots:
                if bot.bot_id in seen:
                    act = partial(self._lost, bot, seen[bot.bot_id], now_ms)
                    done += self._guard("silent run", act)
        return done

    def _limit_s(self, grace_s: float | None) -> float:
        return silence_limit_s(
            self.bot_death_s(),
            self.settings.contact_s,
            DEFAULT_GRACE_S if grace_s is None else grace_s,
            self.settings.seen_flush_s,
        )

    def _bury(self, live: LiveBot, now_ms: int) -> bool:
        (doc,) = self.store.get(codec.BOT, join_key(live.bot_id))
        if doc is None:
            self.last_seen.forget(live.bot_id)
            forget_live(self.store, live.bot_id)
            return False
        bot = codec.read_bot(doc)
        if bot.dead:
            return False
        if bot.task_id:
            # Its claim may be younger than what other processes have stored of its calls.
            grace_s, started_ms = self._run_of(bot)
            silent = silent_s(now_ms, max(live.seen_ms, started_ms), self.ready_ms)
            if silent <= self._limit_s(grace_s):
                return False
        return bot_missing(self.store, live, bot, self._stamp(now_ms))

    def _run_of(self, bot: Bot) -> tuple[float, int]:
        """The grace period of the bot's run in seconds, and when it was claimed."""
        key = codec.task_key(parse_task_id(bot.task_id))
        req, task = (*self.store.get(codec.REQ, key), *self.store.get(codec.TASK, key))
        if req is None or task is None:
            return DEFAULT_GRACE_S, 0
        known = codec.read_task(task)
        chosen = codec.read_request(req).slices[known.slice_index]
        return float(chosen.grace_period_s), known.started_ms

    def _lost(self, bot: Bot, live: LiveBot, now_ms: int) -> bool:
        """A bot that calls, but not about its run, for longer than the task tolerates."""
        key = codec.task_key(parse_task_id(bot.task_id))
        task_doc, req = (*self.store.get(codec.TASK, key), *self.store.get(codec.REQ, key))
        if task_doc is None or req is None:
            return False
        task, request = codec.read_task(task_doc), codec.read_request(req)
        if task.is_final:
            return False
        heard_ms = max(live.run_seen_ms, task.started_ms)
        limit_s = request.bot_ping_tolerance_s + self.settings.seen_flush_s
        if silent_s(now_ms, heard_ms, self.ready_ms) <= limit_s:
            return self._overdue(bot, task, request.slices[task.slice_index], now_ms)
        finished = run_missing(self.store, live, bot, self._stamp(now_ms))
        return finished is not None and finished.changed

    def _overdue(self, bot: Bot, task: Task, chosen: Slice, now_ms: int) -> bool:
        """A run that its bot does not end: it is told to stop, and after that given up."""
        if not task.killing:
            if not is_overdue(task, chosen, now_ms):
                return False
            return kill_run(self.store, task.task_id, task.started_ms, now_ms, OVERRAN)
        limit_s = self._limit_s(stop_grace_s(chosen))
        if silent_s(now_ms, task.abandoned_ms, self.ready_ms) <= limit_s:
            return False
        stamp = self._stamp(now_ms)
        ended = kill_ignored(self.store, bot.bot_id, bot.task_id, task.abandoned_ms, stamp)
        return ended is not None and ended.changed

    def _repair(self) -> int:
        done = 0
        for docs in find_pages(self.store, codec.TASK, [frozenset({"st:PENDING"})]):
            tasks = [codec.read_task(doc) for doc in docs]
            entries = self.store.get(codec.PEND, *(task.pend_key for task in tasks))
            for task, entry in zip(tasks, entries, strict=True):
                if entry is None and repair_pending(self.store, task.task_id, self.clock.now_ms()):
                    log.error("task %s was pending and in no queue: repaired", task.task_id)
                    done += 1
        return done

    def _advance_keys(self, now_ms: int) -> int:
        return sum(
            self._guard(
                f"rotation of {purpose} keys",
                partial(
                    advance_rotation,
                    self.store,
                    purpose,
                    entry_id=f"{self.rng.randbits(96):024x}",
                    now_ms=now_ms,
                ),
            )
            for purpose in ROTATING
        )

    def _delete_expired(self, now_ms: int) -> int:
        return sum(self.store.sweep_expired(kind, now_ms, PAGE) for kind in EXPIRING)

    def _delete_queues(self, now_ms: int) -> int:
        """Queues that nobody uses: they are made anew when somebody does."""
        done, unused_since_ms = 0, now_ms - QUEUE_KEEP_MS
        for doc in walk(self.store, codec.QUEUE):
            if codec.queue_used_ms(doc) > unused_since_ms:
                continue
            if self.store.scan_keys(codec.PEND, *codec.queue_range(doc.key), limit=1):
                continue
            act = partial(delete_queue, self.store, doc.key, unused_since_ms)
            done += self._guard("delete queue", act)
        return done

    def _delete_old_tasks(self, now_ms: int) -> int:
        oldest_kept_ms = now_ms - self.settings.task_retention_days * DAY_MS
        lo = codec.task_key(task_id(new_request_id(oldest_kept_ms, 0)))
        done = 0
        for doc in self.store.scan(codec.TASK, lo, END, limit=PAGE, reverse=True):
            task = codec.read_task(doc)
            if task.is_final:
                done += self._guard("delete task", partial(self._delete, doc.key, task.task_id))
        return done

    def _delete(self, key: Key, of: str) -> bool:
        while True:
            pieces = self.store.scan_keys(
                codec.OUT, *codec.any_output_range(of), limit=DELETE_PIECES
            )
            delete_output(self.store, pieces)
            if len(pieces) < DELETE_PIECES:
                return delete_task(self.store, key)

    def _stamp(self, now_ms: int) -> Stamp:
        keep_ms = self.settings.event_retention_days * DAY_MS
        return Stamp(now_ms, f"{self.rng.randbits(96):024x}", keep_ms)
