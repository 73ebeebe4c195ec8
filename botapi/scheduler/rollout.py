"""The duty of rollouts: look at the bots of the ring, ask the health gate, go on or back.

One server process at a time does it, the one that sweeps. It also deletes the releases
that nobody runs any more.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from botapi import metrics
from botapi.cfg import releases
from botapi.cfg.provider import Provider
from botapi.cfg.releases import Releases
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_groups import ArchivePolicy, BotGroup
from botapi.domain.rollout import (
    MAX_SHOWN_FAILURES,
    Channels,
    Deployed,
    Outcome,
    Rollout,
    Stage,
    Step,
    Tally,
    Trail,
    Verdict,
    advance,
    expected_release,
    judge,
    outcome_of,
    referenced,
    roll_back,
    unwanted,
)
from botapi.scheduler.last_seen import LastSeen
from botapi.store import codec
from botapi.store.protocol import Doc, Store, join_key, prefix_range, split_key
from botapi.store.walk import PAGE, find_pages, key_pages
from botapi.transactions.change_deployment import Author, change_deployment
from botapi.transactions.delete_releases import delete_releases

EVENTS_OF_A_BOT = 50
"""Newest events of a bot that its outcome is told by."""
TRAILS_PER_ROUND = 500
"""Bots whose events one round reads; the others keep their outcome of the round before."""
RENEW_MS = 3_600_000
TIDY_EVERY_S = 60.0

LOAD = 20
"""Looking at the bots for one second is followed by so many seconds without."""
_NOT_LOOKED_AT = (Outcome.WAITING, "")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Member:
    """A bot that the rollout may reach; `is_told`: it is in the ring."""

    bot: Bot
    is_told: bool
    runs_candidate: bool


@dataclass(slots=True)
class RingWatch:
    """What became of the bots of a ring; it remembers what earlier rounds found."""

    store: Store
    concurrency: Concurrency
    config: Provider
    archives: Releases
    last_seen: LastSeen
    _of: tuple[str, int] = ("", 0)
    _outcomes: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    _offset: int = 0

    def tally(self, rollout: Rollout, now_ms: int) -> Tally:
        """The bots of the present ring by outcome; all zero while settings.cfg decides instead."""
        channels = self.archives.channels()
        if channels.candidate != rollout.candidate:
            return Tally()
        if self._of != (rollout.candidate, rollout.started_ms):
            self._of = (rollout.candidate, rollout.started_ms)
            self._outcomes.clear()
        members = list(self._members(rollout, channels))
        self._look(rollout, [m for m in members if m.is_told], now_ms)
        found = {
            member.bot.bot_id: self._outcomes.get(member.bot.bot_id, _NOT_LOOKED_AT)
            for member in members
            if member.is_told and (member.bot.bot_id in self._outcomes or not member.bot.dead)
        }
        count = Counter(outcome for outcome, _ in found.values())
        failures = sorted(f"{i}: {why}" for i, (o, why) in found.items() if o is Outcome.FAILED)
        return Tally(
            fleet=sum(not member.bot.dead for member in members),
            waiting=count[Outcome.WAITING],
            healthy=count[Outcome.HEALTHY],
            failed=count[Outcome.FAILED],
            unfit=count[Outcome.UNFIT],
            failures=tuple(failures[:MAX_SHOWN_FAILURES]),
        )

    def _members(self, rollout: Rollout, channels: Channels) -> Iterator[_Member]:
        groups = self.config.cached().bots
        kept = {release.release_id for release in self.archives.deployed().releases}

        def select(docs: list[Doc]) -> list[_Member]:
            found = []
            for bot in map(codec.read_bot, docs):
                group = groups.group_of(bot.bot_id)
                if _is_reachable(bot, group, kept):
                    release = expected_release(bot.bot_id, group.archive_pin, channels, kept)
                    runs = self._runs(bot, rollout)
                    found.append(_Member(bot, release == rollout.candidate, runs))
            return found

        for docs in find_pages(self.store, codec.BOT, []):
            yield from self.concurrency.native(partial(select, docs))

    def _look(self, rollout: Rollout, told: list[_Member], now_ms: int) -> None:
        """Find the outcome of each bot that was told, as far as the bounds of a round allow."""
        unclear = []
        for at in range(0, len(told), PAGE):
            some = told[at : at + PAGE]
            live = self.last_seen.get(*(member.bot.bot_id for member in some))
            for member in some:
                if member.runs_candidate and not member.bot.quarantined and not member.bot.dead:
                    self._note(member, self._trail(member, live, now_ms, rollout, []))
                else:
                    unclear.append((member, live))
        first = self._offset if self._offset < len(unclear) else 0
        chosen = unclear[first : first + TRAILS_PER_ROUND]
        self._offset = first + len(chosen)
        for member, live in chosen:
            events = self.store.scan(
                codec.EVENT, *prefix_range(member.bot.bot_id), limit=EVENTS_OF_A_BOT
            )
            now = self._as_it_is_now(member, rollout)
            self._note(member, self._trail(now, live, now_ms, rollout, events))

    def _as_it_is_now(self, member: _Member, rollout: Rollout) -> _Member:
        """The member, read after its events.

        Of one that was read before them and updated meanwhile, the events would say that it
        ran the candidate, and the bot that it went back.
        """
        (doc,) = self.store.get(codec.BOT, join_key(member.bot.bot_id))
        if doc is None:
            return member
        bot = codec.read_bot(doc)
        return replace(member, bot=bot, runs_candidate=self._runs(bot, rollout))

    def _runs(self, bot: Bot, rollout: Rollout) -> bool:
        return self.archives.release_of(bot.version) == rollout.candidate

    def _note(self, member: _Member, trail: Trail | None) -> None:
        if trail is None:
            self._outcomes.pop(member.bot.bot_id, None)
        else:
            self._outcomes[member.bot.bot_id] = outcome_of(trail)

    def _trail(
        self,
        member: _Member,
        live: Mapping[str, LiveBot],
        now_ms: int,
        rollout: Rollout,
        docs: Collection[Doc],
    ) -> Trail | None:
        """None for a bot that died before it was told anything."""
        bot = member.bot
        seen = live.get(bot.bot_id)
        state = (seen.state if seen is not None else None) or {}
        before = ""
        steps: list[Step] = []
        for event in map(codec.read_event, docs):
            if event.at_ms < rollout.started_ms:
                before = event.quarantined
                break
            ran = self.archives.release_of(event.version) == rollout.candidate
            steps.append(Step(event.kind, ran, event.quarantined, event.message))
        steps.reverse()
        if bot.dead and not member.runs_candidate and not _was_told(steps):
            return None
        return Trail(
            runs_candidate=member.runs_candidate,
            dead=bot.dead,
            quarantined=bot.quarantined,
            has_polled=not state.get("handshaking"),
            silent_s=(now_ms - seen.seen_ms) / 1000 if seen is not None else 0.0,
            failed_update=self._failed_update(state, rollout.candidate),
            before=before,
            steps=tuple(steps),
        )

    def _failed_update(self, state: Mapping[str, object], candidate: str) -> str:
        """What a bot of ours says about an update to the candidate that it could not do."""
        said = state.get("update")
        if not isinstance(said, Mapping):
            return ""
        version = said.get("failed_version")
        if not isinstance(version, str) or self.archives.release_of(version) != candidate:
            return ""
        return str(said.get("reason") or "failed to self-update")[:300]


def _is_reachable(bot: Bot, group: BotGroup, kept: Collection[str]) -> bool:
    is_pinned = bool(group.archive_pin) and group.archive_pin in kept
    return group.bot_archive is not ArchivePolicy.KEEP and not bot.note and not is_pinned


def _was_told(steps: Collection[Step]) -> bool:
    return any(step.kind == "request_update" or step.ran_candidate for step in steps)


@dataclass(slots=True)
class Rollouts:
    """The duty itself; `round` is called by the process that sweeps."""

    watch: RingWatch
    clock: Clock
    rng: Rng
    _next_judge: float = 0.0
    _next_tidy: float = 0.0
    _orphans: frozenset[str] = frozenset()

    def round(self, now_ms: int) -> int:
        """Let a running rollout go on, or back; how many things changed."""
        rollout = self.watch.archives.deployed().open_rollout
        done = 0
        began = self.clock.monotonic()
        if rollout is None:
            metrics.ROLLOUT_BOTS.clear()
        if rollout is not None and rollout.stage is Stage.RUNNING and began >= self._next_judge:
            done += self._judge(rollout, now_ms)
            ended = self.clock.monotonic()
            self._next_judge = ended + LOAD * (ended - began)
        if self.clock.monotonic() >= self._next_tidy:
            self._next_tidy = self.clock.monotonic() + TIDY_EVERY_S
            done += self._tidy(now_ms)
        return done

    def _judge(self, rollout: Rollout, now_ms: int) -> int:
        tally = self.watch.tally(rollout, now_ms)
        _show(rollout, tally)
        verdict = judge(rollout, tally, now_ms)
        if verdict is Verdict.WAIT:
            return 0
        if verdict is Verdict.ROLL_BACK:
            reason = f"{tally.failed} of {tally.told} bots failed; {'; '.join(tally.failures)}"
            verb = "rollout.rollback"
        else:
            reason = f"{tally.healthy} of {tally.told} bots are healthy, {tally.failed} failed"
            verb = "rollout.advance"
        log.warning("%s of %s: %s", verb, rollout.candidate[:12], reason)

        def change(deployed: Deployed) -> Deployed:
            if deployed.rollout != rollout:
                return deployed  # a person was faster
            if verdict is Verdict.ADVANCE:
                return advance(deployed, now_ms)
            return roll_back(deployed, reason[:1000], now_ms, tally.failures)

        author = Author(
            actor="rollout",
            verb=verb,
            target=f"release {rollout.candidate[:12]}",
            reason=reason[:1000],
            at_ms=now_ms,
            change_id=f"{self.rng.randbits(96):024x}",
        )
        change_deployment(self.watch.store, change, author)
        return 1

    def _tidy(self, now_ms: int) -> int:
        """Delete what nobody runs; renew the references at most once an hour (bot-api 8.2)."""
        archives, store = self.watch.archives, self.watch.store
        deployed, pins = archives.deployed(), archives.pins()
        kept = {release.release_id: release for release in deployed.releases}
        used = [kept[i] for i in referenced(deployed, pins) if i in kept]
        is_due = any(now_ms - release.referenced_ms >= RENEW_MS for release in used)
        gone = {release.release_id for release in unwanted(deployed, pins, now_ms)}
        found = self._stored() - kept.keys() if is_due else frozenset()
        orphans = found & self._orphans  # twice an hour apart: nobody is uploading them now
        self._orphans = found if is_due else self._orphans
        if not is_due and not gone:
            return 0
        stored = {i: releases.stored_keys(store, [i]) for i in gone | orphans}
        change_id = f"{self.rng.randbits(96):024x}"
        deleted = delete_releases(store, stored, pins, now_ms=now_ms, change_id=change_id)
        for release_id in deleted:
            log.info("the release %s is deleted: nobody runs it", release_id[:12])
        return len(deleted)

    def _stored(self) -> frozenset[str]:
        """The releases of which the store has pieces."""
        found = key_pages(self.watch.store, releases.KIND, *prefix_range("chunk"))
        return frozenset(split_key(key)[1] for keys in found for key in keys)


def _show(rollout: Rollout, tally: Tally) -> None:
    """What became of the bots of the ring, for the metrics."""
    metrics.ROLLOUT_BOTS.clear()
    ring = f"{rollout.percent}%"
    for state in ("waiting", "healthy", "failed", "unfit"):
        shown = metrics.ROLLOUT_BOTS.labels(rollout.candidate[:12], ring, state)
        shown.set(getattr(tally, state))
