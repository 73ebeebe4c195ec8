"""Waiting bots and the one loop of this process that gives them work.

A bot's held call waits here on an event of its own. The loop wakes when a slice was queued
(here or in another process), takes the heads of the queues concerned, and sets the event of
exactly the bots that got one. On a store whose hints stay in one process the loop looks by
itself: every FIRST_LOOK_S at first, and ever less often while there is nothing. `hot` are
the queues that may hold something: a bot that begins to wait while none of its queues is
hot costs no store access at all. Every hint may be lost, so the queues with waiters are
looked at again every `RECHECK_S`.

Where transactions commit in groups a round does not wait for the hint: it is asked for with the
task (`expect`), and so both share one commit. The hint that follows is about a slice that is
given away already: one read by key tells. There, and where the store is in this process, the round
also claims for the bots that want it (docs/extensions.md): elsewhere each claim would be several
round trips in which other bots' offers wait.
"""

import logging
from _thread import LockType
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from math import floor, log2

from botapi.clock import Clock, Rng, SystemRng
from botapi.concurrency import Concurrency, Event, native_lock
from botapi.domain.matching import Queue, fits
from botapi.domain.task import Offer
from botapi.scheduler.idle_bots import IdleBots
from botapi.store import codec
from botapi.store.protocol import Key, Store, StoreError
from botapi.store.walk import key_pages
from botapi.transactions.claim_slice import Claimant, Claimed
from botapi.transactions.offer_lease import Offered, Waiting, offer_leases

RECHECK_S = 15.0
FIRST_LOOK_S = 0.5
LONGEST_LOOK_S = 5.0
"""Between two looks for waiting bots where other processes' hints do not arrive, jittered."""
RETRY_S = 0.5
ROUND_S = 2.0
"""Longest that a caller without patience waits for the round it is in."""
TOGETHER = 32
"""Most held calls that end in one moment: a task's call that comes then waits for 20 ms of them."""
PHASE_S = 1.0
"""The processes of a machine have their moments at times of their own."""
MAX_ROUND = 64
"""Most bots served in one transaction."""
MAX_CLAIMS = 8
"""Most of them for which it claims as well; the others claim themselves."""
_QUEUE_PAGE = 1_000

log = logging.getLogger(__name__)


def cannot_tell() -> bool:
    """Whether a caller is there still, where nobody looks at its connection."""
    return True


@dataclass(slots=True)
class Waiter:
    """One held call. `offer` is set before `done` is. An impatient one ends with its round.

    Its caller waits for `done`, `wait_s` at most; `is_there` tells whether it has hung up.
    `claimed`: the offer is claimed for it already.
    """

    bot_id: str
    lease_session_id: str
    dimensions: frozenset[str]
    done: Event
    queue_keys: frozenset[Key]
    is_patient: bool
    is_there: Callable[[], bool]
    claimant: Claimant | None = None
    wait_s: float = 0.0
    offer: Offer | None = None
    claimed: Claimed | None = None


@dataclass(slots=True)
class Queues:
    """Every queue this process has heard of; what one asks for never changes."""

    store: Store
    lock: LockType
    by_key: dict[Key, Queue] = field(default_factory=dict)

    def load(self) -> set[Key]:
        """Read all queues there are; the keys that are new to this process.

        A queue that is gone is forgotten: it is learned anew when it is filled again.
        """
        gone = set(self.by_key)
        new: set[Key] = set()
        for keys in key_pages(self.store, codec.QUEUE, limit=_QUEUE_PAGE):
            gone.difference_update(keys)
            new.update(key for key in keys if self.learn(key))
        with self.lock:
            for key in gone:
                del self.by_key[key]
        return new

    def learn(self, key: Key) -> bool:
        """Is there such a queue, and was it new?"""
        if key in self.by_key:
            return False
        (doc,) = self.store.get(codec.QUEUE, key)
        if doc is None:
            return False
        queue = codec.read_queue(doc)
        with self.lock:
            self.by_key[key] = queue
        return True

    def fitting(self, dimensions: frozenset[str]) -> frozenset[Key]:
        """The queues that a bot with these flat dimensions can serve."""
        return frozenset(
            key for key, queue in list(self.by_key.items()) if fits(dimensions, queue.constraints)
        )


class Offers:
    """The waiting bots of this process. Start `run` once, in the background."""

    def __init__(
        self, store: Store, concurrency: Concurrency, clock: Clock, rng: Rng | None = None
    ) -> None:
        declared = store.capabilities()
        self._must_look = declared.shared and not declared.push_wakeup
        self._may_expect = declared.group_commit
        self.may_claim = declared.group_commit or not declared.shared
        """Should held calls begin with a `claimant`?"""
        self._expected: set[Key] = set()
        self._given_early: set[Key] = set()
        self._look_s = FIRST_LOOK_S
        self._rng = rng or SystemRng()
        self._phase_s = self._rng.uniform(0, PHASE_S)
        self._store = store
        self._concurrency = concurrency
        self._clock = clock
        self._lock = native_lock()
        self._queues = Queues(store, self._lock)
        self._waiters: dict[str, Waiter] = {}
        hears = declared.push_wakeup or not declared.shared
        self.idle = IdleBots(clock.monotonic, hears_of_changes=hears)
        self._hot: set[Key] = set()
        self._wake = concurrency.event()
        self._closed = False
        self._recheck_at = 0.0
        self._unsubscribe = store.subscribe(self._hear)

    def begin(
        self,
        bot_id: str,
        lease_session_id: str,
        dimensions: frozenset[str],
        timeout_s: float,
        *,
        is_there: Callable[[], bool] = cannot_tell,
        claimant: Claimant | None = None,
    ) -> Waiter:
        """A call that is held from now on, until `end`; nobody is held after `close`.

        With no time at all the caller gets what is there now. A second call for one bot
        sends the first one home. With a `claimant` what it gets may be claimed already.
        """
        done = self._concurrency.event()
        known = len(self._queues.by_key)
        fitting = self._queues.fitting(dimensions)
        waiter = Waiter(
            bot_id,
            lease_session_id,
            dimensions,
            done,
            fitting,
            timeout_s > 0,
            is_there,
            claimant,
        )
        with self._lock:
            if self._closed:
                return waiter
            if len(self._queues.by_key) != known:
                # A queue was learned meanwhile, and nobody told a waiter not yet there.
                waiter.queue_keys = fitting = self._queues.fitting(dimensions)
            if self._must_look and not self._waiters:
                self._look_soon()
            before = self._waiters.pop(bot_id, None)
            self._waiters[bot_id] = waiter
            may_get = any(key in fitting or key not in self._queues.by_key for key in self._hot)
        if before is not None:
            before.done.set()
        if may_get:
            self._wake.set()
        if may_get or timeout_s > 0:
            waiter.wait_s = timeout_s or ROUND_S
        return waiter

    def end(self, waiter: Waiter) -> Offer | None:
        """The call is held no longer; what it got, and whether it is `claimed`."""
        self._leave(waiter)
        return waiter.offer

    def expect(self, queue_key: Key) -> None:
        """A slice is about to be queued: to be called right before its transaction is asked for.

        Nothing depends on it: a round that comes too early finds nothing, and the hint follows.
        """
        if not (self._may_expect and self._waiters and queue_key in self._queues.by_key):
            return
        with self._lock:
            self._hot.add(queue_key)
            self._expected.add(queue_key)
        self._wake.set()

    def hold_s(self, least_s: float, most_s: float) -> float:
        """For how long one more call should be held: so that it ends together with others.

        A process that wakes for one call at a time finds its caches cold each time, and takes
        twice as long. The moments are as far apart as leaves half of TOGETHER to all of them for
        one, a power of two, so that they stay the same while the fleet grows a little.
        """
        drawn_s = self._rng.uniform(least_s, most_s)
        apart_s = min(most_s - least_s, TOGETHER * drawn_s / max(1, len(self._waiters)))
        if apart_s <= 0:
            return drawn_s
        apart_s = 2.0 ** floor(log2(apart_s))
        over_s = (self._clock.monotonic() + self._phase_s + drawn_s) % apart_s
        return drawn_s - over_s if drawn_s - over_s >= least_s else drawn_s - over_s + apart_s

    def waiting_count(self) -> int:
        """How many calls are held now."""
        return len(self._waiters)

    def release_held(self) -> None:
        """Answer every held call now; the bots come back at once. For news they must hear."""
        with self._lock:
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.done.set()

    def close(self) -> None:
        """Answer every held call now, and hold none any more: the process is stopping."""
        self._closed = True
        self._unsubscribe()
        self.release_held()
        self._wake.set()

    def run(self) -> None:
        """Serve until closed; the store being away for a while ends nothing."""
        while not self._closed:
            try:
                self._recheck()
                while self._serve():
                    pass
            except StoreError as error:
                log.warning("no offers now: %s", error)
                self._later()
            except Exception:
                log.exception("no offers now")
                self._later()
            else:
                self._wake.wait(max(0.0, self._recheck_at - self._clock.monotonic()))
            self._wake.clear()

    def _later(self) -> None:
        """Look at everything again after a short while: nobody else serves the waiters."""
        self._recheck_at = 0.0
        self._concurrency.sleep(RETRY_S)

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            if self._waiters.get(waiter.bot_id) is waiter:
                del self._waiters[waiter.bot_id]

    def _hear(self, topic: str) -> None:
        """A commit somewhere queued something, or steered a bot; runs on any thread."""
        kind, _, key = topic.partition("!")
        if kind == "bot":
            self.idle.hear()
            self._send_home(key)
            return
        if kind == "pend":
            with self._lock:
                self._hot.add(key)
        elif topic == "*":
            self.idle.hear()
            self._recheck_at = 0.0
        else:
            return
        self._wake.set()

    def _send_home(self, bot_id: str) -> None:
        with self._lock:
            waiter = self._waiters.get(bot_id)
        if waiter is not None:
            waiter.done.set()

    def _recheck(self) -> None:
        """Look into the queues of all waiters, in case a hint was lost."""
        now = self._clock.monotonic()
        if now < self._recheck_at:
            return
        self._recheck_at = now + self._pause_s()
        with self._lock:
            hot = set(self._hot)
        new = self._queues.load()
        self._tell_waiters(new)
        with self._lock:
            self._hot -= hot - self._queues.by_key.keys()  # gone, or asked for at every poll
            self._expected &= self._queues.by_key.keys()
            self._hot |= new  # what was queued before this process ran, it never heard of
            wanted = frozenset().union(*(w.queue_keys for w in self._waiters.values()))
        for key in sorted(wanted - self._hot):
            if self._store.scan_keys(codec.PEND, *codec.queue_range(key), limit=1):
                with self._lock:
                    self._hot.add(key)
                self._look_s = FIRST_LOOK_S

    def _pause_s(self) -> float:
        """Until the next look; longer and longer while nothing is found."""
        if not (self._must_look and self._waiters):
            return RECHECK_S
        pause_s, self._look_s = self._look_s, min(LONGEST_LOOK_S, 2 * self._look_s)
        return self._rng.uniform(pause_s / 2, pause_s)

    def _look_soon(self) -> None:
        """The first bot waits, and what was queued elsewhere meanwhile nobody here has heard."""
        self._look_s = FIRST_LOOK_S
        self._recheck_at = min(self._recheck_at, self._clock.monotonic() + FIRST_LOOK_S)
        self._wake.set()

    def _tell_waiters(self, new: set[Key]) -> None:
        """Queues unknown until now may suit bots that wait already."""
        for key in new:
            wanted = self._queues.by_key[key].constraints
            for waiter in list(self._waiters.values()):
                if key not in waiter.queue_keys and fits(waiter.dimensions, wanted):
                    waiter.queue_keys |= {key}

    def _serve(self) -> bool:
        """One round; True when another one may give more."""
        if self._closed:
            return False
        self._drop_empty()
        with self._lock:
            hot = set(self._hot)
            waiters = list(self._waiters.values())
        self._tell_waiters({key for key in sorted(hot) if self._queues.learn(key)})
        fitting = [w for w in waiters if not w.queue_keys.isdisjoint(hot)]
        self._dismiss([w for w in waiters if not w.is_patient and w.queue_keys.isdisjoint(hot)])
        chosen = fitting[:MAX_ROUND]
        gone = [w for w in chosen if not w.is_there()]
        if gone:
            self._dismiss(gone)
            return True
        ranges = sorted(key for key in hot if any(key in w.queue_keys for w in chosen))
        if not ranges:
            return False
        with self._lock:
            self._hot.difference_update(ranges)
            early = self._expected.intersection(ranges)
            self._expected -= early
        claimants = self._claimants(chosen)
        waiting = [
            Waiting(w.bot_id, w.lease_session_id, w.queue_keys, claimants.get(w.bot_id))
            for w in chosen
        ]
        try:
            offered = offer_leases(self._store, ranges, waiting, self._clock.now_ms())
        except Exception:
            with self._lock:
                self._hot.update(ranges)
            raise
        finally:
            self.idle.hear()  # whom it gave something may not be known, if an answer was lost
        with self._lock:
            self._hot |= offered.more
        given = {offer.pending.queue_key for offer in offered.offers.values()}
        self._given_early |= early & given
        self._deliver(chosen, offered)
        return bool(offered.more) or len(fitting) > MAX_ROUND

    def _claimants(self, chosen: list[Waiter]) -> dict[str, Claimant]:
        """For whom this round claims."""
        able = (w.claimant for w in chosen if w.claimant is not None)
        return {who.bot_id: who for who in islice(able, MAX_CLAIMS)}

    def _drop_empty(self) -> None:
        """Queues whose hint may be that of a slice which was given away with its own commit."""
        with self._lock:
            doubtful = self._given_early & (self._hot - self._expected)
            self._hot -= doubtful  # before the look: a hint that comes now counts
        self._given_early -= doubtful
        for key in sorted(doubtful):
            if self._store.scan_keys(codec.PEND, *codec.queue_range(key), limit=1):
                with self._lock:
                    self._hot.add(key)

    def _deliver(self, chosen: list[Waiter], offered: Offered) -> None:
        for waiter in chosen:
            offer = offered.offers.get(waiter.bot_id)
            if offer is not None:
                self._give(waiter, offer, offered.claimed.get(waiter.bot_id))
            elif waiter.bot_id in offered.stale or not waiter.is_patient:
                self._dismiss([waiter])

    def _give(self, waiter: Waiter, offer: Offer, claimed: Claimed | None) -> None:
        """Hand the offer to the bot's call: to a later one if this was sent home meanwhile."""
        with self._lock:
            held = self._waiters.get(waiter.bot_id)
            if held is None or held.lease_session_id != waiter.lease_session_id:
                held = waiter
            else:
                del self._waiters[waiter.bot_id]
        held.offer, held.claimed = offer, claimed
        held.done.set()

    def _dismiss(self, waiters: list[Waiter]) -> None:
        """Send these calls home without an offer."""
        for waiter in waiters:
            self._leave(waiter)
            waiter.done.set()
