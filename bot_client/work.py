"""Leases and tasks: claim, run, and what the lease's end says."""

import logging
import os
from typing import Any, Optional

from bot_client import lease as lease_session
from bot_client.errors import EXIT_OK, Refused, SessionLost, Transient
from bot_client.lease import Lease
from bot_client.lifecycle import Lifecycle
from bot_client.manifest import Manifest, ManifestError, parse
from bot_client.parts import Leave, Parts, Reporter, needed_text
from bot_client.poster import Pings
from bot_client.task import TaskRun, Verdict

log = logging.getLogger("bot.work")

Json = dict[str, Any]


class Work:
    """Outcomes of leases are left with the lease session; the next ask reports them."""

    def __init__(self, parts: Parts, reporter: Reporter, lifecycle: Lifecycle) -> None:
        """``last_task`` is what the state shows of the latest one."""
        self._p = parts
        self._reporter = reporter
        self._lifecycle = lifecycle
        self.last_task: Optional[Json] = None

    def execute(self, lease: Lease) -> None:
        """Claim a lease and do what the claim says."""
        p = self._p
        if lease.payload.get("noop"):
            p.lease.finish(lease, {})
            return
        if lease.claim is not None:
            self._obey_claim(lease.claim, lease)
            return
        if not isinstance(lease.payload.get("task_id"), str):
            self._fail_lease(lease, "a lease without task_id")
            return
        try:
            reply = p.api.claim(p.description.attributes, lease.lease_id, lease.payload)
        except (Transient, Refused) as failure:
            self._fail_lease(lease, f"claim failed: {failure}")
            return
        self._obey_claim(reply, lease)

    def _obey_claim(self, reply: Json, lease: Lease) -> None:
        command = reply.get("cmd")
        if command == "run" and "manifest" in reply:
            self.run_task(reply["manifest"], lease)
        elif command == "skip":
            self._p.lease.finish(lease, {"skip_reason": str(reply.get("reason") or "")})
        elif command == "terminate" and isinstance(reply.get("task_id"), str):
            self._p.lease.finish(lease, {})
            self.terminate(reply)
        else:
            self._fail_lease(lease, f"claim: cannot understand command {command!r}")

    def _fail_lease(self, lease: Lease, message: str) -> None:
        self._p.lease.finish(lease, {"bot_internal_error": message})
        self._reporter.error(message)

    def terminate(self, reply: Json) -> None:
        """Report the termination task as done, then leave with code 0."""
        task_id = needed_text(reply, "task_id")
        try:
            self._p.api.task_update(task_id, {"duration": 0, "exit_code": 0}, None)
        except (Transient, Refused, SessionLost) as failure:
            log.warning("the termination task could not be reported: %s", failure)
        self._lifecycle.trust()
        raise Leave("Signal was received", lease_session.BOT_TERMINATING, EXIT_OK)

    def run_task(self, raw: object, lease: Optional[Lease]) -> None:
        """Run a manifest to its report; every defect of it ends in a ``task_error``."""
        p = self._p
        try:
            manifest = parse(raw)
        except ManifestError as defect:
            self._refuse_task(defect, lease)
            return
        p.hooks.call("on_before_task", p.bot, None, [], {})
        p.api.give_up = lambda: p.signals.count > 2
        p.signals.on_third = p.link.abandon
        room = p.storage.room(p.description.settings())
        run = TaskRun(p.api, p.clock, p.link, p.signals, p.storage, room, _drain_s())
        try:
            verdict = run.run(manifest, self._pings(lease))
        finally:
            p.api.give_up = p.signals.stop_asked
        if lease is not None:
            p.lease.finish(lease, {})
        self._conclude(manifest, verdict)

    def _conclude(self, manifest: Manifest, verdict: Verdict) -> None:
        p = self._p
        if verdict.survivors:
            text = f"processes of {manifest.task_id} could not be killed: {verdict.survivors}"
            p.description.quarantine("survivors", text)
        ended = int(p.clock.wall())
        self.last_task = {
            "id": manifest.task_id,
            "exit_code": verdict.exit_code,
            "ended_ts": ended,
        }
        internal = verdict.internal is not None
        failed = internal or bool(verdict.exit_code)
        summary = verdict._asdict()
        p.hooks.call("on_after_task", p.bot, failed, internal, manifest.dimensions, summary)
        self._lifecycle.trust()

    def _refuse_task(self, defect: ManifestError, lease: Optional[Lease]) -> None:
        if defect.task_id is not None:
            try:
                self._p.api.task_error(defect.task_id, str(defect))
            except (Transient, Refused) as failure:
                log.warning("task_error was not taken: %s", failure)
        if lease is not None:
            self._p.lease.finish(lease, {"bot_internal_error": str(defect)})
        self._reporter.error(str(defect))

    def _pings(self, lease: Optional[Lease]) -> Optional[Pings]:
        if lease is not None:
            return Pings(lambda: self._p.lease.ping(lease), 10.0, 15.0)
        if self._p.lease.session_id is not None:
            return Pings(self._p.lease.keep, 60.0, 90.0)
        return None


def _drain_s() -> float:
    """``SWARMING_DRAIN_SECS``: how long after a drain signal a task may go on; 0 is no limit."""
    value = os.environ.get("SWARMING_DRAIN_SECS", "")
    return float(value) if value.replace(".", "", 1).isdigit() else 0.0
