"""The supervisor's side of one task: drive the runner, keep the server told, deliver the end.

The main thread reads the runner and watches the limits; `poster` does the network meanwhile.
Whatever happens ends in exactly one report: a completing update, or a ``task_error``.
"""

import base64
import json
import logging
import platform
import select
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from bot_client import frames
from bot_client.blob_api import BlobApi, Stop
from bot_client.cas import INSTANCE
from bot_client.chore import Chore
from bot_client.clock import Backoff, Clock
from bot_client.errors import Interrupted, Refused, Transient
from bot_client.manifest import Manifest
from bot_client.output import OutputBuffer
from bot_client.output_tree import TaskFault
from bot_client.poster import CHUNK_BYTES, Pings, Poster, post_piece, resend_from
from bot_client.redaction import Redactor
from bot_client.runner_link import RunnerGone, RunnerLink
from bot_client.server_api import OutputPiece, ServerApi
from bot_client.signals import Signals
from bot_client.storage import Room, Storage
from bot_client.workspace import COLLECT_LIMIT_S, PREPARE_LIMIT_S, MissingInputs, Workspace

log = logging.getLogger("bot.task")

Json = dict[str, Any]

DELIVERY_LIMIT_S = 24 * 3600.0
DELIVERY_PAUSE_CAP_S = 30.0
MIN_GRACE_S = 30.0
MIN_IO_S = 1200.0


class Verdict(NamedTuple):
    """How a task ended, for the hooks and for the bot's own health.

    ``internal`` is the bot's failure, None when the task simply ended.
    """

    exit_code: Optional[int]
    internal: Optional[str]
    survivors: list[str]


class TaskRun:
    """One task from the claim's reply to the accepted report."""

    def __init__(
        self,
        api: ServerApi,
        clock: Clock,
        link: RunnerLink,
        signals: Signals,
        storage: Storage,
        room: Room,
        drain_s: float = 0.0,
    ) -> None:
        """``drain_s`` is how long after a drain signal the task may still run; 0: to its end."""
        self._api = api
        self._clock = clock
        self._link = link
        self._signals = signals
        self._storage = storage
        self._room = room
        self._stop_chore: Optional[Stop] = None
        self._drain_s = drain_s
        self._stopping: Optional[str] = None
        self._internal: Optional[str] = None
        self._redactor = Redactor(())
        self._killed = False

    def run(self, manifest: Manifest, pings: Optional[Pings]) -> Verdict:
        """Run it and report it.  SessionLost or Interrupted when the report cannot be made."""
        claimed_at = self._clock.now()
        buffer = OutputBuffer(self._storage.bot_dir)
        self._redactor = Redactor(secrets_of(manifest))
        poster = Poster(self._api, self._clock, manifest.task_id, buffer, pings)
        try:
            report = self._with_files(manifest, poster, buffer)
            poster.end(self._must_leave)
            internal = self._internal or report.get("internal") or poster.failure
            if internal is None:
                total = self._clock.now() - claimed_at
                self._deliver(manifest.task_id, buffer, _final_fields(report, total))
            else:
                client_error = report.get("client_error")
                self._deliver_error(manifest.task_id, buffer, str(internal), client_error)
            return Verdict(report.get("exit_code"), internal, report.get("survivors") or [])
        finally:
            buffer.close()

    def _must_leave(self) -> bool:
        return self._signals.count > 2

    def _with_files(self, manifest: Manifest, poster: Poster, buffer: OutputBuffer) -> Json:
        """Inputs, command, outputs; returns the runner's report with what else there is to say."""
        blobs = BlobApi(self._api, manifest.task_id, Stop(self._clock, PREPARE_LIMIT_S))
        files = Workspace(manifest, self._storage, self._room, blobs)
        report = self._prepared(manifest, poster, files)
        if report is None:
            report = self._drive(manifest, poster, buffer, files)
            buffer.append(self._redactor.flush())
        if files.has_inputs() or report.get("handed_over"):
            report = self._finished(manifest, poster, files, report)
        notes = [*report.get("notes", ()), *files.notes]
        buffer.append("".join(f"skep: {note}\n" for note in notes).encode())
        return {**report, "files": {**files.stats, **_root_of(files)}}

    def _prepared(self, manifest: Manifest, poster: Poster, files: Workspace) -> Optional[Json]:
        """Make the run folder ready; a report when that is already the task's end."""
        if not files.has_inputs():
            return None
        try:
            self._chore(manifest, poster, files, files.prepare, PREPARE_LIMIT_S)
        except MissingInputs as missing:
            said = [{"instance": INSTANCE, "digest": str(digest)} for digest in missing.digests]
            return {"internal": str(missing), "client_error": {"missing_cas": said}}
        except TaskFault as fault:
            return {"exit_code": 1, "duration": 0.0, "notes": [str(fault)]}
        except Interrupted:
            return {"canceled": True}
        except Exception as failure:  # noqa: BLE001 - whatever it was, the task ends with it
            log.warning("task %s: inputs: %r", manifest.task_id, failure)
            return {"internal": f"the inputs could not be prepared: {failure}"}
        return {"canceled": True} if self._stopping is not None else None

    def _finished(self, manifest: Manifest, poster: Poster, files: Workspace, report: Json) -> Json:
        """Outputs and caches; a report that says so when outputs could not be kept."""
        keep = self._internal is None and "internal" not in report

        def finish() -> None:
            files.finish(report.get("handed_over"), keep_outputs=keep)

        try:
            self._chore(manifest, poster, files, finish, COLLECT_LIMIT_S)
        except TaskFault as fault:
            return {**report, "exit_code": report.get("exit_code") or 1, "notes": [str(fault)]}
        except Interrupted:
            return {**report, "notes": ["stopped before all outputs were kept"]}
        except Exception as failure:  # noqa: BLE001 - as above
            log.warning("task %s: outputs: %r", manifest.task_id, failure)
            return {**report, "internal": f"the outputs could not be kept: {failure}"}
        if files.undeleted and report.get("exit_code") == 0:
            left = ", ".join(files.undeleted[:20])
            return {**report, "exit_code": 1, "notes": [f"could not be deleted: {left}"]}
        return report

    def _chore(
        self,
        manifest: Manifest,
        poster: Poster,
        files: Workspace,
        act: Callable[[], None],
        limit_s: float,
    ) -> None:
        """Run a phase on a thread of its own; updates and stops go on meanwhile."""
        stop = self._stop_chore = Stop(self._clock, limit_s)
        files.begin(stop)
        chore = Chore(act, self._clock)
        while not chore.is_done():
            self._look_for_stops(manifest, poster)
            now = self._clock.now()
            if poster.needs_thread_at() <= now:
                poster.start()
            wake_at = min(poster.needs_thread_at(), self._next_check(manifest))
            select.select([self._clock.fileno()], [], [], max(0.0, min(wake_at - now, 3600.0)))
            self._clock.clear()
        self._stop_chore = None
        chore.result()

    def _drive(
        self, manifest: Manifest, poster: Poster, buffer: OutputBuffer, files: Workspace
    ) -> Json:
        """Feed the runner and read it until it is done; returns its report."""
        last_ditch_at = self._clock.now() + last_ditch_s(manifest)
        try:
            self._link.ensure()
            spec = run_message(manifest, self._api.transport.base_url, files.stage)
            self._link.run(spec)
            while True:
                report = self._turn(manifest, poster, buffer, last_ditch_at)
                if report is not None:
                    return report
        except (RunnerGone, OSError, ValueError) as gone:
            # Whatever it was (a full disk counts): nothing of the task may go on unwatched.
            log.warning("task %s: %s", manifest.task_id, gone)
            self._link.bury(self._storage.rescue)
            return {"internal": f"Execution failed: {gone}"}

    def _turn(
        self, manifest: Manifest, poster: Poster, buffer: OutputBuffer, last_ditch_at: float
    ) -> Optional[Json]:
        """One wait and what it brought."""
        self._look_for_stops(manifest, poster)
        now = self._clock.now()
        if now >= last_ditch_at:
            raise RunnerGone("the runner hung")
        if poster.needs_thread_at() <= now:
            poster.start()
        wake_at = min(poster.needs_thread_at(), last_ditch_at, self._next_check(manifest))
        watched = [self._clock.fileno()]
        if not buffer.is_full():
            watched.append(self._link.fileno())
        ready, _, _ = select.select(watched, [], [], max(0.0, min(wake_at - now, 3600.0)))
        self._clock.clear()
        if self._link.fileno() in ready:
            return self._read_runner(poster, buffer)
        return None

    def _read_runner(self, poster: Poster, buffer: OutputBuffer) -> Optional[Json]:
        for kind, payload in self._link.read():
            if kind == frames.OUTPUT:
                safe = self._redactor.feed(payload)
                if safe:
                    buffer.append(safe)
                    poster.note_output()
            elif kind == frames.DONE:
                report = json.loads(payload)
                return dict(report)
        return None

    def _next_check(self, manifest: Manifest) -> float:
        """When the contact rule or the drain limit may bite."""
        if self._stopping is not None:
            return float("inf")
        return min(self._contact_ends_at(), self._drain_ends_at(manifest))

    def _contact_ends_at(self) -> float:
        return self._api.last_contact_at + self._api.contact_s

    def _drain_ends_at(self, manifest: Manifest) -> float:
        """The ladder starts early enough to be over, and reported, within the limit."""
        first_at = self._signals.first_at
        if not self._drain_s or first_at is None:
            return float("inf")
        return first_at + max(0.0, self._drain_s - manifest.grace_period - 2.0)

    def _look_for_stops(self, manifest: Manifest, poster: Poster) -> None:
        """Anything that ends the task early: asked for by the server, or the bot's own trouble."""
        now = self._clock.now()
        if poster.failure is not None:
            self._stop(manifest, f"the server refused an update: {poster.failure}", internal=True)
        elif poster.must_stop is not None:
            self._stop(manifest, poster.must_stop, internal=False)
        elif self._signals.stop_now() or now >= self._drain_ends_at(manifest):
            self._stop(manifest, "the bot was told to shut down", internal=True)
        elif now >= self._contact_ends_at():
            silence = f"no contact with the server for {self._api.contact_s:.0f} s"
            self._stop(manifest, silence, internal=True)

    def _stop(self, manifest: Manifest, reason: str, *, internal: bool) -> None:
        """Start the ladder once; later reasons change nothing."""
        if self._stopping is not None:
            return
        log.info("stopping task %s: %s", manifest.task_id, reason)
        self._stopping = reason
        if internal:
            self._internal = f"the task was stopped: {reason}"
        if self._stop_chore is not None:
            self._stop_chore.ask()
            return
        grace_s = manifest.grace_period
        if self._signals.leash_lost:
            grace_s = min(grace_s, 10.0)
        self._link.stop(grace_s)

    def _deliver(self, task_id: str, buffer: OutputBuffer, fields: Json) -> None:
        """The completing update: repeated until the server has it, however long that takes."""

        def once() -> bool:
            if buffer.pending > CHUNK_BYTES:
                post_piece(self._api, task_id, buffer, 0.0)
                return False
            offset, data = buffer.peek(CHUNK_BYTES)
            try:
                self._api.task_update(task_id, fields, OutputPiece(offset, data))
            except Refused as refusal:
                resend_from(buffer, refusal)
                return False
            return True

        try:
            self._persist(once)
        except Refused as refusal:
            message = f"the result was refused: {refusal}"
            log.warning("task %s: %s", task_id, message)
            self._persist(lambda: self._post_error(task_id, message))

    def _deliver_error(
        self, task_id: str, buffer: OutputBuffer, message: str, client_error: Optional[Json]
    ) -> None:
        """The rest of the output if the server takes it, then the bot's failure."""

        def once() -> bool:
            if buffer.pending:
                post_piece(self._api, task_id, buffer, 0.0)
            return not buffer.pending

        try:
            self._persist(once)
        except Refused as refusal:
            log.warning("task %s: last output was refused: %s", task_id, refusal)
        self._persist(lambda: self._post_error(task_id, message, client_error))

    def _post_error(self, task_id: str, message: str, client_error: Optional[Json] = None) -> bool:
        try:
            self._api.task_error(task_id, message, client_error)
        except Refused as refusal:
            log.warning("task_error for %s was refused: %s", task_id, refusal)
        return True

    def _persist(self, step: Callable[[], bool]) -> None:
        """Repeat a step until it says done; outages only slow it down."""
        backoff = Backoff(self._clock, 1.4, DELIVERY_PAUSE_CAP_S)
        until = self._clock.now() + DELIVERY_LIMIT_S
        while True:
            if self._must_leave():
                raise Interrupted("leaving without the last report")
            try:
                if step():
                    return
                backoff.succeed()
            except Transient as failure:
                if self._clock.now() >= until:
                    raise
                log.warning("the report could not be delivered yet: %s", failure)
                self._clock.wait(backoff.fail())


def last_ditch_s(manifest: Manifest) -> float:
    """Seconds after which the runner itself must be broken; infinite without a hard timeout."""
    if not manifest.hard_timeout:
        return float("inf")
    graces = 3 * max(manifest.grace_period, MIN_GRACE_S)
    return manifest.hard_timeout + graces + max(manifest.io_timeout, MIN_IO_S)


def run_message(manifest: Manifest, server: str, stage: Optional[str] = None) -> Json:
    """What the runner gets to know; no token, no address but the server's name.

    ``stage`` is a run folder that was made ready.
    """
    pairs = sorted(f"{k}:{v}" for k, values in manifest.bot_dimensions.items() for v in values)
    task = {"server": server, "task_id": f"{manifest.task_id[:-1]}0", "bot_dimensions": pairs}
    swarming: Json = {"task": task}
    if manifest.secret_bytes:
        swarming["secret_bytes"] = manifest.secret_bytes
    context: Json = {"swarming": swarming}
    if manifest.realm:
        context["realm"] = manifest.realm
    if manifest.resultdb:
        context["resultdb"] = manifest.resultdb
    return {
        "task_id": manifest.task_id,
        "bot_id": manifest.bot_id,
        "server": server,
        "command": manifest.command,
        "env": manifest.env,
        "env_prefixes": manifest.env_prefixes,
        "relative_cwd": manifest.relative_cwd,
        "hard_timeout": manifest.hard_timeout,
        "io_timeout": manifest.io_timeout,
        "grace_period": manifest.grace_period,
        "architecture": architecture(),
        "secrets": dict(manifest.secrets),
        "context": context,
        "stage": stage,
        "keeps": bool(manifest.caches or manifest.outputs),
    }


def secrets_of(manifest: Manifest) -> list[bytes]:
    """Every value that must not appear in the task's output."""
    said = [value for _name, value in manifest.secrets]
    if manifest.secret_bytes:
        said.append(manifest.secret_bytes)
    return [base64.b64decode(value) for value in said]


def architecture() -> str:
    """The machine's architecture in the package client's words, such as amd64."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "i386": "386"}.get(
        machine, machine
    )


def _root_of(files: Workspace) -> Json:
    return {"cas_output_root": files.output_root} if files.output_root is not None else {}


def _final_fields(report: Json, total_s: float) -> Json:
    if report.get("canceled"):
        return {"canceled": True, "cost_usd": 0.0}
    duration = float(report.get("duration") or 0.0)
    return {
        "exit_code": report.get("exit_code", -1),
        "duration": duration,
        "bot_overhead": max(0.0, total_s - duration),
        "hard_timeout": bool(report.get("hard_timeout")),
        "io_timeout": bool(report.get("io_timeout")),
        "cost_usd": 0.0,
        **(report.get("files") or {}),
    }
