"""bots.cfg on disk: put in force when it changes, and said what came of it."""

import logging

from botapi import metrics
from botapi.cfg.bundle import Meaning, Source
from botapi.cfg.impact import impact
from botapi.cfg.provider import Provider, Rejected
from botapi.cfg.watcher import Change, Watcher
from botapi.concurrency import Concurrency
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import Store, Txn
from botapi.transactions.enrol_bot import enrolled_digest
from botapi.transactions.push_config import Outdated, Pushed, push_config, reject_config

log = logging.getLogger(__name__)


def config_watcher(
    settings: Settings, store: Store, concurrency: Concurrency, config: Provider
) -> Watcher:
    """What notices a change of the files, and puts it in force unless too many bots would go."""
    folder = settings.config_dir

    def push(source: Source, *, parent: str, now_ms: int) -> bool | None:
        author, reason = "bots.cfg", "the file on disk changed"

        def audit(txn: Txn, pushed: Pushed) -> None:
            entry = codec.audit_doc(
                at_ms=now_ms,
                entry_id=f"config-{pushed.head.rev}",
                actor=author,
                verb="config.apply",
                target="bots.cfg",
                reason=reason,
                before=pushed.before,
                after=pushed.head.digest,
            )
            txn.put(codec.AUDIT, entry)

        pushed = push_config(
            store,
            source,
            parent=parent,
            author=author,
            now_ms=now_ms,
            reason=reason,
            from_disk=True,
            also=audit,
        )
        return None if isinstance(pushed, Outdated) else pushed.is_new

    def guard(before: Meaning, after: Meaning) -> str:
        change = impact(store, before, after, lambda host: enrolled_digest(store, host) is not None)
        percent = before.fleet.max_dropped_percent
        if not change.exceeds(percent):
            return ""
        return (
            f"would drop {change.dropped} of {change.live} live bots, more than {percent} %; "
            f"skep config preview {folder} names them, "
            f"skep config apply {folder} --drop {change.dropped} does it all the same"
        )

    def reject(rejected: Rejected) -> None:
        metrics.CONFIG_ERRORS.inc()
        reject_config(store, rejected)

    return Watcher(
        folder, config, push, reject, guard, concurrency.native, is_needed=not settings.is_shared
    )


def watch_config(watcher: Watcher, now_ms: int) -> None:
    """Look at bots.cfg on disk; say what came of a change."""
    match watcher.check(now_ms):
        case Change(before, after):
            log.info("bots.cfg %s is in force, before it %s", after[:12], before[:12] or "none")
        case Rejected(_digest, _at_ms, mistakes):
            for mistake in mistakes:
                log.error("%s (the last good bots.cfg stays in force)", mistake)
        case None:
            pass
