"""A change of the configuration: checked, previewed, put in force, taken back.

Parsing files and looking at every bot takes long: all of it runs on native threads.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import msgspec
from werkzeug.http import parse_etags

from botapi.api.bodies import Body
from botapi.api.config import head_view, revision_body
from botapi.api.parts import ApiParts, Json
from botapi.api.queries import reason, refuse
from botapi.cfg import bots_cfg as bots_file
from botapi.cfg import pools_cfg, provider, settings_cfg
from botapi.cfg.bundle import SCRIPTS, Meaning, Source, load, read
from botapi.cfg.impact import LostSlice, impact, lost_slices
from botapi.cfg.mistakes import BadConfig
from botapi.cfg.provider import Snapshot
from botapi.domain.config_change import ChangedBot, ConfigChange
from botapi.domain.errors import Code, Refusal
from botapi.store import codec
from botapi.store.protocol import StoreError, Txn
from botapi.transactions.enrol_bot import enrolled_digest
from botapi.transactions.push_config import Outdated, Pushed, push_config
from botapi.wire_json import dumps

FILES = (bots_file.FILE_NAME, pools_cfg.FILE_NAME, settings_cfg.FILE_NAME)
MAX_LISTED = 10_000
"""Most bots, and most tasks, that one preview names; the numbers of bots are always whole."""


class ConfigRefusal(Refusal):
    """A refusal with a code of its own, and more members of the problem object."""

    def __init__(self, code: Code, word: str, message: str, **details: object) -> None:
        super().__init__(code, message)
        self.word = word
        self.details = details


class FilesBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /config/validate`."""

    files: dict[str, str]


class PreviewBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /config/preview`: files, or a revision to go back to."""

    files: dict[str, str] | None = None
    rev: int | None = None


class ApplyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /config/apply`."""

    files: dict[str, str]
    reason: str
    parent: str | None = None
    drop: int | None = None


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /config/rollback`."""

    rev: int
    reason: str
    parent: str | None = None
    drop: int | None = None


FILES_BODY = Body(FilesBody)
PREVIEW_BODY = Body(PreviewBody)
APPLY_BODY = Body(ApplyBody)
ROLLBACK_BODY = Body(RollbackBody)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A change that was read and compared with what is in force."""

    current: Snapshot
    source: Source
    meaning: Meaning
    change: ConfigChange

    @property
    def percent(self) -> int:
        """How much of the fleet may be dropped without being asked for."""
        return self.current.fleet.max_dropped_percent


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A change that somebody wants, and may have."""

    plan: _Plan
    verb: str
    target: str
    reason: str
    if_match: str


def validate(parts: ApiParts, raw: bytes) -> Json:
    """The digest and the warnings of good files. Raises ConfigRefusal with every mistake."""

    def work() -> Json:
        source, meaning = _read(FILES_BODY.read(raw).files)
        return {"digest": source.digest(), "mistakes": [], "warnings": _warnings(meaning)}

    return parts.concurrency.native(work)


def preview(parts: ApiParts, raw: bytes) -> bytes:
    """What a change would do, as JSON: it may be long."""

    def work() -> bytes:
        body = PREVIEW_BODY.read(raw)
        if (body.files is None) is (body.rev is None):
            raise refuse("the body", "give either files or rev")
        plan = _plan(parts, *(_read(body.files) if body.rev is None else _old(parts, body.rev)))
        return dumps(_plan_view(parts, plan)) + b"\n"

    return parts.concurrency.native(work)


def apply(parts: ApiParts, actor: str, raw: bytes, if_match: str) -> Json:
    """Put files in force. Raises ConfigRefusal when they are bad, late, or drop too many bots.

    `if_match` is that header (RFC 9110 13.1.1), empty without one.
    """

    def work() -> _Wanted:
        body = APPLY_BODY.read(raw)
        reason = _reason(body.reason)
        plan = _allowed(_plan(parts, *_read(body.files)), body, if_match)
        return _Wanted(plan, "config.apply", "bots.cfg", reason, if_match)

    return _push(parts, actor, work)


def rollback(parts: ApiParts, actor: str, raw: bytes, if_match: str) -> Json:
    """Put the files of an older revision in force, as a new one. Errors as of `apply`."""

    def work() -> _Wanted:
        body = ROLLBACK_BODY.read(raw)
        reason = _reason(body.reason)
        plan = _allowed(_plan(parts, *_old(parts, body.rev)), body, if_match)
        target = f"bots.cfg revision {body.rev}"
        said = f"back to revision {body.rev}: {reason}"
        return _Wanted(plan, "config.rollback", target, said, if_match)

    return _push(parts, actor, work)


def _push(parts: ApiParts, actor: str, work: Callable[[], _Wanted]) -> Json:
    wanted = parts.concurrency.native(work)
    plan, now_ms, entry_id = wanted.plan, parts.clock.now_ms(), parts.new_id()

    def audit(txn: Txn, pushed: Pushed) -> None:
        entry = codec.audit_doc(
            at_ms=now_ms,
            entry_id=entry_id,
            actor=actor,
            verb=wanted.verb,
            target=wanted.target,
            reason=wanted.reason,
            before=pushed.before,
            after=pushed.head.digest,
        )
        txn.put(codec.AUDIT, entry)

    pushed = push_config(
        parts.store,
        plan.source,
        parent=plan.current.digest,
        author=actor,
        now_ms=now_ms,
        reason=wanted.reason,
        also=audit,
    )
    if isinstance(pushed, Outdated):
        raise _outdated(pushed.head.rev, wanted.if_match)
    with suppress(StoreError):  # it is in force; so that it is for whoever we tell, too
        parts.config.latest()
    return {
        **head_view(pushed.head, pushed.head),
        "is_new": pushed.is_new,
        "live_bots": plan.change.live,
        "dropped_bots": plan.change.dropped,
        "restarting_bots": plan.change.restarts,
        "warnings": _warnings(plan.meaning),
    }


def _read(files: Mapping[str, str]) -> tuple[Source, Meaning]:
    for name in files:
        if name not in FILES and not name.startswith(SCRIPTS):
            known = ", ".join([*FILES, f"{SCRIPTS}<name>.py"])
            raise refuse("/files", f'"{name[:80]}" is no file of the configuration: {known}')
    if bots_file.FILE_NAME not in files:
        raise refuse("/files", f"{bots_file.FILE_NAME} is missing; send all files together")
    try:
        return read({name: text.encode("utf-8", "surrogatepass") for name, text in files.items()})
    except BadConfig as error:
        raise _bad(error) from None


def _old(parts: ApiParts, rev: int) -> tuple[Source, Meaning]:
    """An older revision; today's rules are not applied to what was in force once."""
    source = provider.read_source(revision_body(parts, rev))
    try:
        return source, load(source)
    except BadConfig as error:
        raise _bad(error) from None


def _bad(error: BadConfig) -> ConfigRefusal:
    lines = error.lines()
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return ConfigRefusal(
        Code.INVALID_ARGUMENT, "bad_config", (lines[0] if lines else "") + more, mistakes=lines
    )


def _plan(parts: ApiParts, source: Source, meaning: Meaning) -> _Plan:
    current = parts.config.latest()
    if source.digest() == current.digest:
        return _Plan(current, source, meaning, ConfigChange())
    store = parts.store
    change = impact(
        store, current.meaning, meaning, lambda host: enrolled_digest(store, host) is not None
    )
    return _Plan(current, source, meaning, change)


def _allowed(plan: _Plan, body: ApplyBody | RollbackBody, if_match: str) -> _Plan:
    """The plan; raises ConfigRefusal when it is based on another revision or drops too much."""
    if body.parent is None and not if_match:
        said = "say what the change is based on: the digest in force as /parent or as If-Match"
        raise ConfigRefusal(Code.FAILED_PRECONDITION, "precondition_required", said)
    in_force = plan.current.digest
    if plan.source.digest() == in_force:
        return plan
    matches = not if_match or parse_etags(if_match).contains(in_force)
    if not matches or body.parent not in {None, in_force}:
        raise _outdated(plan.current.rev, "" if matches else if_match)
    refusal = plan.change.refusal(plan.percent, body.drop)
    if refusal:
        dropped, live = plan.change.dropped, plan.change.live
        raise ConfigRefusal(
            Code.ABORTED, "would_drop", refusal, dropped_bots=dropped, live_bots=live
        )
    return plan


def _outdated(rev: int, if_match: str) -> ConfigRefusal:
    said = f"revision {rev} is in force meanwhile; look at what it says and try again"
    if if_match:
        return ConfigRefusal(Code.FAILED_PRECONDITION, "precondition_failed", said, rev=rev)
    return ConfigRefusal(Code.ABORTED, "outdated", said, rev=rev)


def _reason(text: str) -> str:
    said = reason(text)
    if not said:
        raise refuse("/reason", "is empty; say why, it is kept with the revision")
    return said


def _warnings(meaning: Meaning) -> list[str]:
    return [str(warning) for warning in meaning.warnings]


def _plan_view(parts: ApiParts, plan: _Plan) -> Json:
    change = plan.change
    lost = list(islice(lost_slices(parts.store, change), MAX_LISTED + 1))
    old, new = plan.current.source.files(), plan.source.files()
    return {
        "parent": plan.current.digest,
        "parent_rev": plan.current.rev,
        "digest": plan.source.digest(),
        "is_new": plan.source.digest() != plan.current.digest,
        "files": sorted(name for name in {*old, *new} if old.get(name, b"") != new.get(name, b"")),
        "warnings": _warnings(plan.meaning),
        "live_bots": change.live,
        "changed_bots": len(change.bots),
        "restarting_bots": change.restarts,
        "dropped_bots": change.dropped,
        "max_dropped_percent": plan.percent,
        "needs_drop": change.exceeds(plan.percent),
        "bots": [_bot_view(bot) for bot in change.bots[:MAX_LISTED]],
        "bots_cut": len(change.bots) > MAX_LISTED,
        "tasks": [_task_view(slice_) for slice_ in lost[:MAX_LISTED]],
        "tasks_cut": len(lost) > MAX_LISTED,
    }


def _task_view(lost: LostSlice) -> Json:
    return {
        "task_id": lost.pending.task_id,
        "slice_index": lost.pending.slice_index,
        "wants": sorted("|".join(sorted(some)) for some in lost.queue.constraints),
    }


def _bot_view(bot: ChangedBot) -> Json:
    return {
        "bot_id": bot.bot_id,
        "live": bot.is_live,
        "changes": list(bot.aspects),
        "group_before": bot.group_before,
        "group_after": bot.group_after,
        "dimensions_added": list(bot.added),
        "dimensions_removed": list(bot.removed),
        "restarts": bot.restarts,
        "dropped": bot.dropped or None,
    }
