"""Bot archives and their rollouts: upload, look, start, halt, go on, roll back."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from botapi import __version__
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import reason, refuse
from botapi.api.views import rfc3339
from botapi.auth.release_signing import Verified, verify_archive, without_unproved
from botapi.cfg.archive_builder import members_of_zip
from botapi.cfg.bot_archive import BadArchive, content_digest, pack
from botapi.cfg.releases import CHUNK_BYTES, read_release
from botapi.domain import rollout as rules
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import RolloutRule
from botapi.domain.manifest import BadManifest, Label, members_of
from botapi.domain.rollout import Deployed, Origin, Release, Rollout, Stage, Start
from botapi.scheduler.rollout import RingWatch
from botapi.transactions.change_deployment import Author, change_deployment
from botapi.transactions.upload_archive import upload_archive

MAX_UPLOAD_BYTES = 64 * 1024 * 1024
MAX_FILE_NAME = 200
MAX_MIN_UPDATED = 100_000
SOURCE = "source"
"""Names the build of the server's own sources wherever a release is asked for."""
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /rollout`; what is absent is as settings.cfg says, else as by default."""

    release: str
    rings: list[int] | None = None
    soak_s: int | None = None
    max_failed_percent: int | None = None
    min_updated: int | None = None
    allow_downgrade: bool = False
    reason: str = ""


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /rollout/halt`, `/rollout/resume` and `/rollout/rollback`."""

    reason: str = ""


class CanaryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /rollout/canary`; 0 percent ends it."""

    release: str
    percent: int
    reason: str = ""


START_BODY = Body(StartBody)
REASON_BODY = Body(ReasonBody)
CANARY_BODY = Body(CanaryBody)


def listed(parts: ApiParts) -> Json:
    """Every release that is kept, newest first."""
    deployed = parts.archives.deployed()
    newest = sorted(deployed.releases, key=lambda release: release.created_ms, reverse=True)
    return {"items": [_view(parts, deployed, release) for release in newest]}


def read(parts: ApiParts, text: str, base_url: str) -> Json:
    """One release, its members, and the version it has under this URL."""
    deployed = parts.archives.deployed()
    release = _find(deployed, text)
    try:
        members = read_release(parts.store, parts.concurrency, release.release_id)
        version = parts.archives.version(release.release_id, base_url)
    except BadArchive as error:
        raise Refusal(Code.NOT_FOUND, str(error)) from None
    entries = parts.concurrency.native(lambda: members_of(members))
    return _view(parts, deployed, release) | {
        "version": version,
        "members": [{"name": m.name, "length": m.length, "sha256": m.sha256} for m in entries],
    }


def upload(
    parts: ApiParts, actor: str, content: bytes, file_name: str, *, allow_unsigned: bool
) -> Json:
    """Keep an archive made elsewhere. Raises Refusal INVALID_ARGUMENT for one that is no good."""
    if len(file_name) > MAX_FILE_NAME or not file_name.isprintable():
        raise refuse("?file_name", f"not up to {MAX_FILE_NAME} characters that can be printed")
    trust = parts.archives.trust()

    def check() -> tuple[Mapping[str, bytes], Verified | None, str, bytes]:
        found = members_of_zip(content)
        verified = verify_archive(found, trust)
        members = without_unproved(found, verified)
        return members, verified, content_digest(members), pack(members).content

    try:
        members, verified, release_id, packed = parts.concurrency.native(check)
    except (BadArchive, BadManifest) as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"the archive is refused: {error}") from None
    if verified is None and trust.release and not allow_unsigned:
        raise Refusal(
            Code.INVALID_ARGUMENT,
            "the archive is refused: it is not signed, and settings.cfg has release keys; "
            "sign it, or allow it (?allow_unsigned=1)",
        )
    _check_min_server(verified)
    now_ms = parts.clock.now_ms()
    release = Release(
        release_id=release_id,
        origin=Origin.UPLOAD,
        label=verified.label if verified else Label.UNSIGNED,
        key_id=verified.key_id if verified else "",
        number=verified.manifest.release if verified else 0,
        min_server=verified.manifest.min_server if verified else "",
        created_ms=now_ms,
        actor=actor,
        file_name=file_name,
        files=len(members),
        size=sum(map(len, members.values())),
        chunks=-(-len(packed) // CHUNK_BYTES),
        referenced_ms=now_ms,
    )
    target = f"release {release_id[:12]} {file_name}".rstrip()
    why = f"uploaded, {release.label}"
    author = Author(actor, "archive.upload", target, why, now_ms, parts.new_id())
    kept = upload_archive(parts.store, release, packed, author)
    return _view(parts, parts.archives.deployed(), kept)


def status(parts: ApiParts) -> Json:
    """Who runs what, and how the rollout stands."""
    deployed, channels = parts.archives.deployed(), parts.archives.channels()
    kept = {release.release_id for release in deployed.releases}
    fixed = channels.is_fixed
    canary = {"release": channels.canary, "percent": channels.canary_percent}
    return {
        "stable": channels.stable,
        "former": deployed.former or None,
        "source": deployed.source or None,
        "follows_source": deployed.follows_source and not fixed,
        "canary": canary if channels.canary else None,
        "fixed_by_settings_cfg": fixed,
        "pins": [{"release": pin, "is_kept": pin in kept} for pin in sorted(parts.archives.pins())],
        "problem": parts.archives.problem() or None,
        "rollout": _rollout_view(parts, deployed.rollout) if deployed.rollout else None,
    }


def start(parts: ApiParts, actor: str, body: StartBody) -> Json:
    """Begin to take a release through the fleet."""
    _check_not_fixed(parts)
    release = _find(parts.archives.deployed(), body.release)
    asked = Start(
        candidate=release.release_id,
        rule=_rule(parts, body),
        follows_source=body.release == SOURCE,
        allow_downgrade=body.allow_downgrade,
    )
    now_ms = parts.clock.now_ms()
    return _changed(
        parts,
        lambda deployed: rules.start(deployed, asked, actor=actor, now_ms=now_ms),
        Author(
            actor,
            "rollout.start",
            f"release {release.release_id[:12]}",
            reason(body.reason),
            now_ms,
            parts.new_id(),
        ),
    )


def halt(parts: ApiParts, actor: str, body: ReasonBody) -> Json:
    """Stop before the next ring."""
    author = _author(parts, actor, "rollout.halt", body.reason)
    return _changed(parts, lambda deployed: rules.halt(deployed, author.reason), author)


def resume(parts: ApiParts, actor: str, body: ReasonBody) -> Json:
    """Go on with a halted rollout."""
    author = _author(parts, actor, "rollout.resume", body.reason)
    return _changed(parts, lambda deployed: rules.resume(deployed, author.at_ms), author)


def roll_back(parts: ApiParts, actor: str, body: ReasonBody) -> Json:
    """Take the new release back at once, whether it is on its way or stable already."""
    _check_not_fixed(parts)
    author = _author(parts, actor, "rollout.rollback", body.reason)
    why = author.reason or f"{actor} rolled it back"
    return _changed(parts, lambda d: rules.roll_back(d, why, author.at_ms), author)


def canary(parts: ApiParts, actor: str, body: CanaryBody) -> Json:
    """Give a release to a part of the fleet."""
    _check_not_fixed(parts)
    if not 0 <= body.percent <= 100:
        raise refuse("/percent", f"is {body.percent}, not from 0 to 100")
    release = _find(parts.archives.deployed(), body.release)
    author = _author(parts, actor, "archive.canary", body.reason)
    return _changed(parts, lambda d: rules.with_canary(d, release.release_id, body.percent), author)


def _changed(parts: ApiParts, change: Callable[[Deployed], Deployed], author: Author) -> Json:
    change_deployment(parts.store, change, author)
    return status(parts)


def _author(parts: ApiParts, actor: str, verb: str, why: str) -> Author:
    return Author(actor, verb, "bot archives", reason(why), parts.clock.now_ms(), parts.new_id())


def _check_not_fixed(parts: ApiParts) -> None:
    if parts.archives.channels().is_fixed:
        raise Refusal(
            Code.ABORTED, "bot_deployment in settings.cfg names the stable release: change it there"
        )


def _check_min_server(verified: Verified | None) -> None:
    needed = verified.manifest.min_server if verified else "0"
    if _numbers(needed) > _numbers(__version__):
        raise Refusal(
            Code.INVALID_ARGUMENT,
            f"the archive is refused: it needs server {needed}, this is {__version__}",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d{1,9}", version)[:4])


def _find(deployed: Deployed, text: str) -> Release:
    """The release that an id, the beginning of one, or `source` names."""
    wanted = deployed.source if text == SOURCE else text
    found = []
    if _PREFIX.fullmatch(wanted):
        found = [r for r in deployed.releases if r.release_id.startswith(wanted)]
    if len(found) != 1:
        many = f"{len(found)} releases begin" if found else "no release begins"
        raise Refusal(Code.NOT_FOUND, f'{many} with "{text[:64]}"; `skep archive list` shows all')
    return found[0]


def _rule(parts: ApiParts, body: StartBody) -> RolloutRule:
    base = parts.config.cached().fleet.rollout or rules.DEFAULT_RULE
    rings = base.rings if body.rings is None else tuple(body.rings)
    is_growing = all(low < high for low, high in zip((0, *rings), rings, strict=False))
    if not rings or not is_growing or rings[-1] > 100 or len(rings) > rules.MAX_RINGS:
        raise refuse("/rings", f"not 1 to {rules.MAX_RINGS} growing numbers from 1 to 100")
    return RolloutRule(
        rings=rings if rings[-1] == 100 else (*rings, 100),
        soak_s=_within("/soak_s", body.soak_s, base.soak_s, rules.MAX_SOAK_S),
        max_failed_percent=_within(
            "/max_failed_percent", body.max_failed_percent, base.max_failed_percent, 100
        ),
        min_updated=_within("/min_updated", body.min_updated, base.min_updated, MAX_MIN_UPDATED, 1),
    )


def _within(place: str, value: int | None, default: int, high: int, low: int = 0) -> int:
    if value is None:
        return default
    if not low <= value <= high:
        raise refuse(place, f"is {value}, not from {low} to {high}")
    return value


def _view(parts: ApiParts, deployed: Deployed, release: Release) -> Json:
    channels, rollout = parts.archives.channels(), deployed.open_rollout
    roles = {
        "stable": channels.stable,
        "canary": channels.canary,
        "candidate": channels.candidate,
        "former": deployed.former,
        "source": deployed.source,
        "previous": rollout.previous if rollout is not None else "",
    }
    used_as = [name for name, release_id in roles.items() if release_id == release.release_id]
    if release.release_id in parts.archives.pins():
        used_as.append("pin")
    return {
        "release_id": release.release_id,
        "label": release.label,
        "number": release.number or None,
        "origin": release.origin,
        "used_as": used_as,
        "is_rejected": release.release_id in deployed.rejected,
        "key_id": release.key_id or None,
        "min_server": release.min_server or None,
        "file_name": release.file_name or None,
        "files": release.files,
        "size": release.size,
        "created_at": rfc3339(release.created_ms),
        "actor": release.actor or None,
    }


def _rollout_view(parts: ApiParts, rollout: Rollout) -> Json:
    view: dict[str, Any] = {
        "candidate": rollout.candidate,
        "previous": rollout.previous,
        "stage": rollout.stage,
        "percent": rollout.percent,
        "rings": list(rollout.rule.rings),
        "soak_s": rollout.rule.soak_s,
        "max_failed_percent": rollout.rule.max_failed_percent,
        "min_updated": rollout.rule.min_updated,
        "started_by": rollout.started_by,
        "started_at": rfc3339(rollout.started_ms),
        "ring_since": rfc3339(rollout.ring_since_ms),
        "ended_at": rfc3339(rollout.ended_ms) if rollout.ended_ms else None,
        "reason": rollout.reason or None,
        "failures": list(rollout.failures),
        "bots": None,
    }
    if rollout.stage in {Stage.RUNNING, Stage.HALTED}:
        now_ms = parts.clock.now_ms()
        watch = RingWatch(
            parts.store, parts.concurrency, parts.config, parts.archives, parts.last_seen
        )
        tally = watch.tally(rollout, now_ms)
        view["failures"] = list(tally.failures)
        view["bots"] = {
            "told": tally.told,
            "waiting": tally.waiting,
            "healthy": tally.healthy,
            "failed": tally.failed,
            "unfit": tally.unfit,
        }
    return view
