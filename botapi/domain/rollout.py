"""Which bot runs which release, and how a new one reaches the fleet, ring by ring.

A *release* is what an archive is made of, apart from what the server adds for each
address; its id is a content digest. `Deployed` says which releases this server keeps and
who runs them; every change of it is one of the functions here, and `judge` is the health
gate of a rollout (docs/archives.md).
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from botapi.domain.channel import bucket
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import Deployment, RolloutRule
from botapi.domain.manifest import Label

DEFAULT_RULE = RolloutRule(rings=(5, 25, 100), soak_s=600, max_failed_percent=10)
MAX_RINGS = 10
MAX_SOAK_S = 30 * 24 * 3600
KEEP_UNREFERENCED = 20
KEEP_UNREFERENCED_MS = 24 * 3600 * 1000
"""A build of the server's own sources that nobody runs is deleted after so long (bot-api 8.2)."""
MAX_REJECTED = 20
MAX_SHOWN_FAILURES = 20
RETURN_S = 120.0
"""A bot that is away for so long after its update will not come back by itself."""


class Origin(StrEnum):
    """Where a release comes from."""

    SOURCE = "source"
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Release:
    """One release that the store keeps. `number` is 0 for an unsigned one. Times in ms."""

    release_id: str
    origin: Origin
    label: Label
    key_id: str
    number: int
    min_server: str
    created_ms: int
    actor: str
    file_name: str
    files: int
    size: int
    chunks: int
    referenced_ms: int


class Stage(StrEnum):
    """How a rollout stands."""

    RUNNING = "running"
    HALTED = "halted"
    DONE = "done"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One way of a release through the fleet; the bots outside of the ring run `previous`.

    `follows_source`: it was begun by, or for, the server's own sources.
    """

    candidate: str
    previous: str
    rule: RolloutRule
    stage: Stage
    started_by: str
    started_ms: int
    ring_since_ms: int
    ring: int = 0
    ended_ms: int = 0
    reason: str = ""
    follows_source: bool = False
    failures: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Does it decide what bots run?"""
        return self.stage in {Stage.RUNNING, Stage.HALTED}

    @property
    def percent(self) -> int:
        """Part of the fleet that runs the candidate by now."""
        return self.rule.rings[self.ring]


@dataclass(frozen=True, slots=True)
class Deployed:
    """All that the server decides about archives. An empty id means "none yet"."""

    rev: int = 0
    stable: str = ""
    former: str = ""
    source: str = ""
    """The build of the server's own sources that was seen last."""
    follows_source: bool = True
    """Does a new build become stable by itself?"""
    canary: str = ""
    canary_percent: int = 0
    rollout: Rollout | None = None
    rejected: tuple[str, ...] = ()
    """Releases that were rolled back: none of them comes back by itself."""
    last_number: int = 0
    """Of the builds of the server's own sources."""
    releases: tuple[Release, ...] = ()
    last_change: str = ""
    """Names the change that led here, so that its repeat is none."""

    def get(self, release_id: str) -> Release | None:
        """A release that is kept."""
        return next((r for r in self.releases if r.release_id == release_id), None)

    @property
    def open_rollout(self) -> Rollout | None:
        """The rollout that decides what bots run, if there is one."""
        return self.rollout if self.rollout is not None and self.rollout.is_open else None


@dataclass(frozen=True, slots=True)
class Channels:
    """Who runs what: pins aside, `canary` below its percent, `candidate` below its, else stable."""

    stable: str
    canary: str = ""
    canary_percent: int = 0
    candidate: str = ""
    candidate_percent: int = 0
    is_fixed: bool = False
    """Does settings.cfg say so?"""

    def of(self, bot_id: str) -> str:
        """The release of a bot whose group pins none (bot-api 8.3)."""
        if not self.canary and not self.candidate:
            return self.stable
        drawn = bucket(bot_id)
        if self.canary and drawn < self.canary_percent:
            return self.canary
        if self.candidate and drawn < self.candidate_percent:
            return self.candidate
        return self.stable


def channels_of(deployed: Deployed, fixed: Deployment | None) -> Channels:
    """The channels in force; `bot_deployment` of settings.cfg wins when its stable is kept here.

    Its other names are those of foreign packages, which mean nothing here. A missing
    canary is stable (bot-api 7.8).
    """
    kept = {release.release_id for release in deployed.releases}
    if fixed is not None and fixed.stable in kept:
        canary = fixed.canary if fixed.canary in kept else fixed.stable
        return Channels(fixed.stable, canary, fixed.canary_percent, is_fixed=True)
    rollout = deployed.open_rollout
    return Channels(
        deployed.stable,
        deployed.canary if deployed.canary in kept else "",
        deployed.canary_percent,
        rollout.candidate if rollout is not None else "",
        rollout.percent if rollout is not None else 0,
    )


def expected_release(bot_id: str, pin: str, channels: Channels, kept: Collection[str]) -> str:
    """The release that a bot should run; `pin` is its group's, which counts when it is kept."""
    return pin if pin and pin in kept else channels.of(bot_id)


# Changes. Each takes what is and gives what shall be, or raises Refusal.


def with_source(
    deployed: Deployed, release: Release, rule: RolloutRule | None, now_ms: int
) -> Deployed:
    """A server has seen this build of its own sources.

    The first one is stable at once. Later ones replace it at once, or through a rollout
    when there is a rule; unless stable was chosen by a person, or this build was rolled
    back before.
    """
    if deployed.source == release.release_id:
        return deployed
    new = replace(_with_release(deployed, release), source=release.release_id)
    if not deployed.stable:
        return replace(new, stable=release.release_id)
    if not deployed.follows_source or release.release_id in deployed.rejected:
        return new
    rollout = deployed.open_rollout
    if rollout is not None and not rollout.follows_source:
        return new
    if release.release_id == deployed.stable:
        return _ended(new, Stage.ROLLED_BACK, "the sources are again those of stable", now_ms)
    if rollout is not None:
        again = replace(
            rollout, candidate=release.release_id, ring=0, started_ms=now_ms, ring_since_ms=now_ms
        )
        return replace(new, rollout=replace(again, stage=Stage.RUNNING, reason="", failures=()))
    if rule is None:
        return replace(new, former=deployed.stable, stable=release.release_id)
    return replace(
        new,
        rollout=Rollout(
            candidate=release.release_id,
            previous=deployed.stable,
            rule=rule,
            stage=Stage.RUNNING,
            started_by="rollout",
            started_ms=now_ms,
            ring_since_ms=now_ms,
            follows_source=True,
        ),
    )


def with_upload(deployed: Deployed, release: Release) -> Deployed:
    """Keep an uploaded release; nobody runs it by that."""
    return _with_release(deployed, release)


@dataclass(frozen=True, slots=True)
class Start:
    """What a person asks for: `candidate` is an id, `follows_source` for the word "source"."""

    candidate: str
    rule: RolloutRule
    follows_source: bool = False
    allow_downgrade: bool = False


def start(deployed: Deployed, asked: Start, *, actor: str, now_ms: int) -> Deployed:
    """Begin a rollout. Raises Refusal."""
    rollout = deployed.open_rollout
    if rollout is not None:
        raise _refused(
            f"a rollout of {rollout.candidate[:12]} is {rollout.stage}; "
            "wait for its end or roll it back"
        )
    _check_kept(deployed, asked.candidate)
    if asked.candidate == deployed.stable:
        raise _refused(f"{asked.candidate[:12]} is stable already")
    problem = "" if asked.allow_downgrade else downgrade_problem(deployed, asked.candidate)
    if problem:
        raise _refused(problem)
    return replace(
        deployed,
        rejected=tuple(r for r in deployed.rejected if r != asked.candidate),
        rollout=Rollout(
            candidate=asked.candidate,
            previous=deployed.stable,
            rule=asked.rule,
            stage=Stage.RUNNING,
            started_by=actor,
            started_ms=now_ms,
            ring_since_ms=now_ms,
            follows_source=asked.follows_source,
        ),
    )


def downgrade_problem(deployed: Deployed, candidate: str) -> str:
    """Why this release would be a step back from stable; empty when it is none.

    Numbers are compared within one label only; after a signed release only another one
    counts (docs/archives.md).
    """
    stable, new = deployed.get(deployed.stable), deployed.get(candidate)
    if stable is None or new is None:
        return ""
    if stable.label is Label.RELEASE and new.label is not Label.RELEASE:
        return f"stable is a signed release, {candidate[:12]} is {new.label}; allow the downgrade"
    if stable.label is new.label and new.number < stable.number:
        return f"release {new.number} is older than stable, {stable.number}; allow the downgrade"
    return ""


def halt(deployed: Deployed, reason: str) -> Deployed:
    """Stop before the next ring, until a person decides. Raises Refusal."""
    rollout = _open(deployed, Stage.RUNNING)
    return replace(deployed, rollout=replace(rollout, stage=Stage.HALTED, reason=reason))


def resume(deployed: Deployed, now_ms: int) -> Deployed:
    """Go on with a halted rollout; the present ring soaks anew. Raises Refusal."""
    rollout = _open(deployed, Stage.HALTED)
    going = replace(rollout, stage=Stage.RUNNING, reason="", ring_since_ms=now_ms, failures=())
    return replace(deployed, rollout=going)


def roll_back(
    deployed: Deployed, reason: str, now_ms: int, failures: tuple[str, ...] = ()
) -> Deployed:
    """Take the new release back at once: that of an open rollout, else the present stable.

    Raises Refusal when there is nothing to go back to.
    """
    rollout = deployed.open_rollout
    if rollout is not None:
        ended = _ended(deployed, Stage.ROLLED_BACK, reason, now_ms, failures)
        return _reject(ended, rollout.candidate)
    if not deployed.former or deployed.get(deployed.former) is None:
        raise _refused("there is no former stable release to go back to")
    back = replace(deployed, stable=deployed.former, former="")
    return _reject(back, deployed.stable)


def advance(deployed: Deployed, now_ms: int) -> Deployed:
    """The next ring, or after the last one: the candidate is stable. Raises Refusal."""
    rollout = _open(deployed, Stage.RUNNING)
    if rollout.ring + 1 < len(rollout.rule.rings):
        further = replace(rollout, ring=rollout.ring + 1, ring_since_ms=now_ms)
        return replace(deployed, rollout=further)
    done = _ended(deployed, Stage.DONE, "", now_ms)
    return replace(
        done,
        former=deployed.stable,
        stable=rollout.candidate,
        follows_source=rollout.follows_source,
    )


def with_canary(deployed: Deployed, release_id: str, percent: int) -> Deployed:
    """Give this release to a part of the fleet; 0 percent or no release ends that.

    Raises Refusal.
    """
    if not release_id or not percent:
        return replace(deployed, canary="", canary_percent=0)
    _check_kept(deployed, release_id)
    return replace(deployed, canary=release_id, canary_percent=percent)


def referenced(deployed: Deployed, pinned: Collection[str]) -> frozenset[str]:
    """The releases that somebody runs or may go back to; these are never deleted."""
    used = {deployed.stable, deployed.former, deployed.source, deployed.canary, *pinned}
    rollout = deployed.open_rollout
    if rollout is not None:
        used |= {rollout.candidate, rollout.previous}
    return frozenset(used)


def unwanted(deployed: Deployed, pinned: Collection[str], now_ms: int) -> tuple[Release, ...]:
    """The releases to delete: not referenced, and too many or too old.

    The newest 20 uploads stay; a build of the server's own sources goes after a day, or
    as soon as there are 20 newer ones.
    """
    used = referenced(deployed, pinned)
    idle = sorted(
        (release for release in deployed.releases if release.release_id not in used),
        key=lambda release: release.created_ms,
        reverse=True,
    )
    found = []
    for origin in Origin:
        of_origin = [release for release in idle if release.origin is origin]
        found += of_origin[KEEP_UNREFERENCED:]
        if origin is Origin.SOURCE:
            old_ms = now_ms - KEEP_UNREFERENCED_MS
            found += [r for r in of_origin[:KEEP_UNREFERENCED] if r.referenced_ms < old_ms]
    return tuple(found)


def without(deployed: Deployed, gone: Collection[str]) -> Deployed:
    """Forget these releases."""
    left = tuple(r for r in deployed.releases if r.release_id not in gone)
    return replace(deployed, releases=left)


def with_references(deployed: Deployed, pinned: Collection[str], now_ms: int) -> Deployed:
    """Note that the referenced releases were so now."""
    used = referenced(deployed, pinned)
    return replace(
        deployed,
        releases=tuple(
            replace(release, referenced_ms=now_ms) if release.release_id in used else release
            for release in deployed.releases
        ),
    )


def _with_release(deployed: Deployed, release: Release) -> Deployed:
    others = tuple(r for r in deployed.releases if r.release_id != release.release_id)
    return replace(deployed, releases=(*others, release))


def _ended(
    deployed: Deployed, stage: Stage, reason: str, now_ms: int, failures: tuple[str, ...] = ()
) -> Deployed:
    rollout = deployed.open_rollout
    if rollout is None:
        return deployed
    ended = replace(rollout, stage=stage, reason=reason, ended_ms=now_ms, failures=failures)
    return replace(deployed, rollout=ended)


def _reject(deployed: Deployed, release_id: str) -> Deployed:
    others = tuple(r for r in deployed.rejected if r != release_id)
    rejected = (*others, release_id)[-MAX_REJECTED:]
    canary = "" if deployed.canary == release_id else deployed.canary
    percent = deployed.canary_percent if canary else 0
    return replace(deployed, rejected=rejected, canary=canary, canary_percent=percent)


def _check_kept(deployed: Deployed, release_id: str) -> None:
    """No bot is sent for what was deleted a moment ago."""
    if deployed.get(release_id) is None:
        raise Refusal(
            Code.NOT_FOUND, f"the release {release_id[:12]} is not kept any more; upload it again"
        )


def _open(deployed: Deployed, stage: Stage) -> Rollout:
    rollout = deployed.rollout
    if rollout is None:
        raise _refused("there is no rollout")
    if rollout.stage is not stage:
        raise _refused(f"the rollout of {rollout.candidate[:12]} is {rollout.stage}, not {stage}")
    return rollout


def _refused(why: str) -> Refusal:
    return Refusal(Code.ABORTED, why)


# The health gate.


class Outcome(StrEnum):
    """What became of one bot that was told to run the candidate."""

    WAITING = "waiting"
    HEALTHY = "healthy"
    FAILED = "failed"
    UNFIT = "unfit"
    """Quarantined for a reason of its own, before the update as after it: proves nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a bot. `ran_candidate`: the version it ran then is one of the candidate."""

    kind: str
    ran_candidate: bool
    quarantined: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Trail:
    """What is known of one bot of the ring; the steps are those since the rollout, oldest first.

    `before` is why it was quarantined before them. `failed_update` is what the bot itself
    says of the candidate, empty for nothing.
    """

    runs_candidate: bool
    dead: bool
    quarantined: str
    has_polled: bool
    silent_s: float
    failed_update: str
    before: str
    steps: tuple[Step, ...]


def outcome_of(trail: Trail) -> tuple[Outcome, str]:
    """The outcome, and for a failure one line on why."""
    if trail.runs_candidate:
        return _outcome_of_updated(trail)
    if trail.failed_update:
        return Outcome.FAILED, trail.failed_update
    if any(step.ran_candidate for step in trail.steps):
        return Outcome.FAILED, "went back to its old version"
    kinds = [step.kind for step in trail.steps]
    if "request_update" not in kinds:
        return Outcome.WAITING, ""
    since_told = trail.steps[kinds.index("request_update") :]
    error = next((step.message for step in since_told if step.kind == "bot_error"), None)
    if error is not None:
        return Outcome.FAILED, error or "an error without words"
    if trail.dead and trail.silent_s > RETURN_S:
        return Outcome.FAILED, "did not come back from its update"
    return Outcome.WAITING, ""


def _outcome_of_updated(trail: Trail) -> tuple[Outcome, str]:
    if trail.dead:
        late = trail.silent_s > RETURN_S
        return (Outcome.FAILED, "dead since its update") if late else (Outcome.WAITING, "")
    if trail.quarantined:
        was_unfit = trail.before
        for step in trail.steps:
            if step.ran_candidate:
                break
            was_unfit = step.quarantined
        return (Outcome.UNFIT, "") if was_unfit else (Outcome.FAILED, trail.quarantined)
    return (Outcome.HEALTHY, "") if trail.has_polled else (Outcome.WAITING, "")


@dataclass(frozen=True, slots=True)
class Tally:
    """The bots of the ring that were told to update, by outcome; `fleet` is every bot alive
    that the rollout may reach at all."""

    fleet: int = 0
    waiting: int = 0
    healthy: int = 0
    failed: int = 0
    unfit: int = 0
    failures: tuple[str, ...] = ()
    """The first of them, a line each."""

    @property
    def told(self) -> int:
        """The bots that the ring is judged by."""
        return self.waiting + self.healthy + self.failed


class Verdict(StrEnum):
    """What the health gate says."""

    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll_back"


def judge(rollout: Rollout, tally: Tally, now_ms: int) -> Verdict:
    """Shall a running rollout go on?

    Back at once when more bots failed than the rule allows, whatever becomes of the rest;
    and after the soak time when more failed than it allows of those that took the release
    by then. On when the ring has soaked with enough healthy bots. A ring without any bot
    proves nothing and delays nothing, as long as there is a bot somewhere.
    """
    limit = rollout.rule.max_failed_percent
    if tally.failed * 100 > limit * tally.told:
        return Verdict.ROLL_BACK
    if not tally.told:
        return Verdict.ADVANCE if tally.fleet else Verdict.WAIT
    if now_ms - rollout.ring_since_ms < rollout.rule.soak_s * 1000:
        return Verdict.WAIT
    if tally.failed * 100 > limit * (tally.failed + tally.healthy):
        return Verdict.ROLL_BACK
    enough = tally.healthy >= min(rollout.rule.min_updated, tally.told)
    return Verdict.ADVANCE if enough else Verdict.WAIT
