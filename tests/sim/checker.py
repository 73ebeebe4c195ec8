"""The promises of the server, checked over one history (one pass, a state per key).

Each predicate has the id that `docs/simulation.md` explains. The checker believes nothing of
the server's own rules: the table of transitions, the matching of dimensions and the order of
a queue are written down here a second time.
"""

import base64
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from tests.sim.bots import payload
from tests.sim.server import CANARY, GRACE_S, OUTPUT_LIMIT, POOL_OF, SILENCE_S, TOLERANCE_S

LOST = frozenset({"BOT_DIED", "EXPIRED", "NO_RESOURCE", "CLIENT_ERROR"})
END = frozenset({"COMPLETED", "TIMED_OUT", "CANCELED", "KILLED"}) | LOST
LEGAL = {
    "": {"PENDING"},
    "PENDING": {"RUNNING", "CANCELED", "EXPIRED", "NO_RESOURCE", "BOT_DIED"},
    "RUNNING": {"COMPLETED", "TIMED_OUT", "BOT_DIED", "CANCELED", "KILLED", "CLIENT_ERROR"},
}
AFTER_KILL = frozenset({"KILLED", "TIMED_OUT", "COMPLETED", "BOT_DIED"})
RESULT = (
    "state",
    "exit_code",
    "duration_s",
    "completed_ms",
    "output_bytes",
    "missing_bytes",
    "bot_id",
    "session_id",
    "claim_id",
    "error",
    "started_ms",
)
"""What never changes after the end."""
CLOCK_SLACK_S = 30.0
"""Steps of the clock, and what a killed process had not written down of whom it heard."""
FOLLOW_S = 60.0
"""Time in which what an end set in motion is done, when there are no faults."""
KILL_LIMIT_S = SILENCE_S + GRACE_S + TOLERANCE_S + 120.0

CANARY_B64 = base64.b64encode(CANARY)[:-4]
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True)
class Violation:
    rule: str
    text: str
    keys: tuple
    at: int
    """Index of the record at which it showed."""


@dataclass
class _Task:
    task_id: str
    request: dict
    state: str = ""
    doc: dict = field(default_factory=dict)
    claims: int = 0
    length: int = 0
    ended_by: tuple | None = None
    cancel_ok: bool = False
    kill_ok_at: float | None = None
    kill_at: int | None = None
    kill_at_s: float | None = None
    ended_at: float = 0.0
    read: int = 0
    claimed_at: int = -1
    """Index of the record of its claim."""
    children: list = field(default_factory=list)


class Checker:
    """Reads a run's history once; `violations` is what it found."""

    def __init__(self, result):
        self.result = result
        self.violations = []
        self.tasks = {}
        self.by_key = {}
        self.requests = {}
        self.requests_by_id = {}
        self.uuids = {}
        self.created = {}
        self.retries = {}
        self.pend = {}
        self.bots = {}
        self.bot_sessions = {}
        self.holds = {}
        self.wrote = {}
        self.running = {}
        self.heard = {}
        self.heard_run = {}
        self.begun = {}  # by copy, and by call: its latest
        self.notes = {}
        self.events = {}
        self.event_kinds = {}
        self.posted = set()
        self.connected = set()
        self.truth_runs = {}
        self.truth_sessions = {}
        self.index = 0
        self.now = 0.0
        self.calm_at = 0.0

    def check(self):
        """Every violation, in the order in which it showed."""
        for index, (at, who, kind, what, data) in enumerate(self.result.history.records):
            self.index, self.now = index, at
            reader = self._READERS.get(kind)
            if reader is not None:
                reader(self, who, what, data)
        self._at_the_end()
        return self.violations

    def _bad(self, rule, text, *keys):
        self.violations.append(Violation(rule, text, keys, self.index))

    def _require(self, holds, rule, text, *keys):
        if not holds:
            self._bad(rule, text, *keys)

    # what the store took

    def _applied(self, label, _what, data):
        by, changes = data
        groups = {}
        for change in changes:
            groups.setdefault(change[0], []).append(change[1:])
        for kind in ("bot", "req", "pend", "task", "out", "outpos", "event", "offer"):
            for key, before, after in groups.get(kind, ()):
                self._DOCUMENTS[kind](self, label, by, key, before, after)
        if label == "offer_leases":
            left = groups.get("pend", ())
            self._order(_decode(was.body) for _key, was, after in left if after is None)

    def _bot(self, _label, _by, key, _before, after):
        if after is None:
            self.bots.pop(key, None)
            self.bot_sessions.pop(key, None)
            return
        body = _decode(after.body)
        self.bots[key] = body
        sessions = self.bot_sessions.setdefault(key, [])
        if body["session_id"] not in sessions[-1:]:
            self._require(
                body["session_id"] not in sessions,
                "S2",
                f"the older session {body['session_id']} took the id back from {sessions[-1:]}",
                body["session_id"],
            )
            sessions.append(body["session_id"])

    def _req(self, _label, _by, key, before, after):
        if after is None or before is not None:
            return
        body = _decode(after.body)
        self.requests[key] = self.requests_by_id[body["task_id"]] = body
        if body.get("retry_of"):
            retries = self.retries.setdefault(body["retry_of"], [])
            retries.append(body["task_id"])
            self._retried(body, retries)
        elif body["request_uuid"]:
            others = self.uuids.setdefault(body["name"], [])
            others.append(body["task_id"])
            self._require(len(others) == 1, "T1", f"{body['name']} made {others}", *others)
        if body.get("parent_task_id"):
            parent = self.tasks[body["parent_task_id"][:-1] + "0"]
            parent.children.append(body["task_id"])
            self._require(
                parent.state not in END,
                "P1",
                f"child of {parent.task_id}, which had ended",
                body["task_id"],
                parent.task_id,
            )

    def _retried(self, body, retries):
        """R1: one retry of what the infrastructure failed, and no more than were asked for."""
        of = self.tasks[body["retry_of"]]
        self._require(len(retries) == 1, "R1", f"tried again as {retries}", of.task_id, *retries)
        self._require(
            of.state == "BOT_DIED" and body["retry_number"] <= body["max_retries"],
            "R1",
            f"retry {body['retry_number']} of a task that ended {of.state}",
            of.task_id,
        )

    def _pend(self, _label, _by, key, _before, after):
        if after is None:
            self.pend.pop(key, None)
        else:
            self.pend[key] = _decode(after.body)

    def _order(self, given):
        """Q1: what was just given stood before everything that still waits in its queue."""
        for slot in given:
            mine = self._rank(slot)
            for other in self.pend.values():
                if other["queue_key"] == slot["queue_key"] and self._rank(other) < mine:
                    self._bad(
                        "Q1",
                        f"offered before {other['task_id']}",
                        slot["task_id"],
                        other["task_id"],
                    )

    def _rank(self, slot):
        request = self.tasks[slot["task_id"]].request
        newest_first = request["slices"][0]["dimensions"].get("pool") == ["two"]
        created = request["created_ms"]
        return request["priority"], -created if newest_first else created

    def _task(self, label, by, key, before, after):
        if after is None:
            return
        body = _decode(after.body)
        task = self.by_key.get(key) or self._new_task(key, body["task_id"])
        old, new = task.state, body["state"]
        was, task.doc, task.state = task.doc, body, new
        if old in END:
            changed = [name for name in RESULT if was.get(name) != body.get(name)]
            rule = "C2" if new == "RUNNING" else "F1"
            self._require(
                not changed, rule, f"{label} changed {changed} after the end {old}", task.task_id
            )
            return
        if body.get("killing") and not was.get("killing"):
            task.kill_at, task.kill_at_s = self.index, self.now
        if old == new:
            if new == "RUNNING":
                taken = [n for n in ("session_id", "claim_id", "bot_id") if was[n] != body[n]]
                self._require(not taken, "C1", f"claimed again: {taken} changed", task.task_id)
            return
        deduped = not old and body.get("deduped_from")
        if deduped:
            self._deduplicated(task, body)
        self._require(
            deduped or new in LEGAL.get(old, ()), "K1", f"{label}: {old} became {new}", task.task_id
        )
        if new == "RUNNING":
            self._claimed(task, by)
        elif old == "RUNNING":
            self._ended(task, label, by)
        if new in END:
            task.ended_at = self.now

    def _new_task(self, key, task_id):
        task = _Task(task_id, self.requests.get(key, {}))
        self.by_key[key] = self.tasks[task_id] = task
        self._require(bool(task.request), "T2", "a task without a request", task_id)
        return task

    def _deduplicated(self, task, body):
        """R2: its result is that of a successful run of the same properties."""
        origin = self.tasks[body["deduped_from"][:-1] + "0"]
        wanted = {slice_["properties_hash"] for slice_ in task.request["slices"]}
        self._require(
            origin.state == "COMPLETED"
            and origin.doc["exit_code"] == 0
            and origin.doc["properties_hash"] in wanted - {""},
            "R2",
            f"the result of {origin.task_id}, {origin.state}",
            task.task_id,
            origin.task_id,
        )

    def _root(self, task_id):
        """The task of which this is a retry of a retry."""
        while of := self.requests_by_id.get(task_id, {}).get("retry_of"):
            task_id = of
        return task_id

    def _claimed(self, task, by):
        doc, session = task.doc, task.doc["session_id"]
        task.claims += 1
        task.claimed_at = self.index
        self._require(task.claims == 1, "C1", "claimed twice", task.task_id)
        self._require(not task.cancel_ok, "K2", "claimed after its cancel", task.task_id)
        others = self.running.setdefault(session, set())
        self._require(not others, "C3", f"{session} runs {sorted(others)} already", task.task_id)
        others.add(task.task_id)
        bot = self.bots.get(doc["bot_id"], {})
        self._require(
            bot.get("session_id") == session,
            "S2",
            f"claimed by the older session {session}",
            task.task_id,
        )
        if by is not None:
            self._require(by[2] == session, "S1", f"claimed by a call of {by[2]}", task.task_id)
        self.heard_run[session] = self.now
        self._matches(task, bot)

    def _matches(self, task, bot):
        """C6, with the pool as the configuration has it."""
        wanted = task.request["slices"][task.doc["slice_index"]]["dimensions"]
        has = set(bot.get("dimensions", ()))
        own = POOL_OF[task.doc["bot_id"][0]]
        pools = {flat for flat in has if flat.startswith("pool:")}
        fits = all(
            any(f"{key}:{value}" in has for value in constraint.split("|"))
            for key, constraints in wanted.items()
            for constraint in constraints
        )
        self._require(
            fits and pools == {f"pool:{own}"} and wanted.get("pool", [own]) == [own],
            "C6",
            f"{wanted} given to {sorted(has)}",
            task.task_id,
        )

    def _ended(self, task, label, by):
        doc, session = task.doc, task.doc["session_id"]
        self.running.get(session, set()).discard(task.task_id)
        own = by is not None and by[2] == session
        if label in {"update_task", "task_error"}:
            task.ended_by = by
            self._require(own, "S1", f"ended by {by and by[2]}, run by {session}", task.task_id)
            if label == "update_task":
                self._whole(task, by)
            return
        self._abandoned(task, session)
        self._require(
            doc["state"] in {"BOT_DIED", "KILLED", "TIMED_OUT", "CANCELED"},
            "F1",
            f"{label} ended a run as {doc['state']}",
            task.task_id,
        )

    def _abandoned(self, task, session):
        """C5: its session ended, nothing was heard for long enough, or the bot gave it up."""
        run_id = task.task_id[:-1] + "1"
        newest = self.bots.get(task.doc["bot_id"], {}).get("session_id")
        is_held = (session, run_id) in self.holds
        silent_s = self.now - self.heard.get(session, 0.0)
        unspoken_s = self.now - self.heard_run.get(session, 0.0)
        self._require(
            newest != session
            or not is_held
            or silent_s >= SILENCE_S - CLOCK_SLACK_S
            or unspoken_s >= TOLERANCE_S - CLOCK_SLACK_S,
            "C5",
            f"abandoned while {session} worked on it, heard of {silent_s:.0f} s ago",
            task.task_id,
            session,
        )

    def _whole(self, task, by):
        """O3, at the end that the bot reported: all that was written, or a number for it."""
        note = self.notes.get(by[:2])
        if note is None:
            return
        wrote = note[4]
        kept = min(wrote, OUTPUT_LIMIT)
        said = (task.doc["output_bytes"], task.doc["missing_bytes"])
        self._require(
            said == (kept, wrote - kept),
            "O3",
            f"wrote {wrote}, says {said[0]} kept and {said[1]} missing",
            task.task_id,
        )

    def _out(self, label, by, key, before, after):
        task_id, run, offset = key.split("!")
        task = self.tasks[task_id]
        if after is None or run != "1":
            return
        data = _decode(after.body)["data"]
        start, end = int(offset), int(offset) + len(data)
        session, run_id = task.doc["session_id"], task_id[:-1] + "1"
        self._require(
            by is not None and by[2] == session,
            "S1",
            f"output of {by and by[2]}, run by {session}",
            task_id,
        )
        self._require(
            before is None and start == task.length,
            "O1",
            f"piece {start}:{end} stored behind {task.length}",
            task_id,
        )
        self._require(
            payload(session, run_id, end)[start:] == data,
            "O1",
            f"piece {start}:{end} is not what the task wrote",
            task_id,
        )
        self._require(
            end <= self.wrote.get((session, run_id), 0),
            "O1",
            f"{end} bytes, never written",
            task_id,
        )
        task.length = max(task.length, end)

    def _outpos(self, label, _by, key, _before, after):
        if after is None:
            return
        task = self.tasks[key.split("!")[0]]
        body = _decode(after.body)
        # pieces of the same commit come before this document
        self._require(
            body["committed"] == task.length,
            "O1",
            f"{label} says {body['committed']} bytes, {task.length} are stored",
            task.task_id,
        )

    def _event(self, _label, _by, _key, before, after):
        if after is None or before is not None:
            return
        body = _decode(after.body)
        if body["event_id"] in self.posted:
            seen = (body["bot_id"], body["event_id"])
            self.events[seen] = self.events.get(seen, 0) + 1
            self._require(self.events[seen] == 1, "E1", "event stored twice", *seen)
        if body["kind"] in {"request_task", "task_completed", "task_killed"} and body["task_id"]:
            once = (body["kind"].replace("killed", "completed"), body["task_id"])
            if body["message"].startswith("late result"):
                return
            self.event_kinds[once] = self.event_kinds.get(once, 0) + 1
            task_id = body["task_id"][:-1] + "0"
            self._require(self.event_kinds[once] == 1, "E1", f"{once[0]} kept twice", task_id)

    def _nothing(self, *_):
        pass

    _DOCUMENTS: ClassVar = {
        "bot": _bot,
        "req": _req,
        "pend": _pend,
        "task": _task,
        "out": _out,
        "outpos": _outpos,
        "event": _event,
        "offer": _nothing,
    }

    # what callers and servers saw

    def _invoke(self, who, what, data):
        if what.startswith("/"):
            number, _session, note = data
            if note:
                self.notes[who, number] = note
            if what == "/event":
                self.posted.add(note[0])

    def _begin(self, _who, _what, data):
        client, number, session, copy = data
        if session:
            bot = self.bots.get(session.split("-")[0], {})
            known = self.bot_sessions.get(session.split("-")[0], ())
            is_old = session in known and bot.get("session_id") != session
            self.begun[client, number] = self.begun[copy] = (self.now, self.index, is_old)

    def _served(self, _who, what, data):
        _client, _number, session, status, note, said, copy = data
        if not session or not 200 <= status < 300:
            return
        begun_at, begun, is_old = self.begun[copy]
        self.heard[session] = max(self.heard.get(session, 0.0), begun_at)
        if what == "/task_update":
            self.heard_run[session] = max(self.heard_run.get(session, 0.0), begun_at)
            self._stop_told(session, begun, note, said)
        elif what == "/claim":
            self._claim_answered(session, begun, is_old, note, said)

    def _stop_told(self, session, begun, note, said):
        """K3: whoever speaks of a run that is to be killed is told."""
        task = self.tasks.get(note[0][:-1] + "0")
        if task is None or note[3] or not said.get("ok"):
            return
        is_killed = task.kill_at is not None and task.kill_at < begun
        if is_killed and task.state == "RUNNING":
            self._require(said.get("must_stop"), "K3", "not told to stop", task.task_id, session)

    def _claim_answered(self, session, begun, is_old, note, said):
        task = self.tasks.get(note[0][:-1] + "0")
        if said["cmd"] in {"run", "terminate"}:
            self._require(not is_old, "S2", f"claim of the older {session}", task.task_id)
            self._require(
                task.doc["session_id"] == session or task.state in END,
                "C1",
                f"given to {session}, run by {task.doc['session_id']}",
                task.task_id,
            )
        elif task is not None and not is_old:
            mine = task.doc.get("claim_id") == f"{session.split('-')[0]}:{note[1]}"
            still = task.state == "RUNNING" and task.doc["session_id"] == session
            claimed_before = task.claimed_at < begun
            self._require(
                not (mine and still and claimed_before),
                "C1",
                f"the same claim again is answered {said}",
                task.task_id,
                session,
            )

    def _ok(self, who, what, data):
        if what == "create":
            uuid, body = data[0], data[-1]
            first = self.created.setdefault((who, uuid), body["task_id"])
            self._require(
                first == body["task_id"],
                "T1",
                f"{uuid} answered {first}, then {body['task_id']}",
                first,
                body["task_id"],
            )
            self._require(body["task_id"] in self.tasks, "T2", "not stored", body["task_id"])
        elif what == "cancel":
            self._cancel_ok(data)
        elif what == "read":
            self._read(data)
        elif what == "/task_update":
            self._update_ok(data)
        elif what == "/event":
            self._event_ok(who, data)

    def _cancel_ok(self, data):
        task_id, _, body = data
        task = self.tasks[task_id]
        if not body["canceled"]:
            return
        if body["was_running"]:
            task.kill_ok_at = task.kill_ok_at or self.now
        else:
            task.cancel_ok = True
            self._require(
                task.state == "CANCELED", "K2", f"canceled, and yet {task.state}", task_id
            )

    def _read(self, data):
        task_id, body = data
        task = self.tasks[task_id]
        output, run_id = body["output"], task.doc.get("deduped_from") or task_id[:-1] + "1"
        session = self.tasks[run_id[:-1] + "0"].doc.get("session_id", "")
        self._require(
            output == payload(session, run_id, len(output)) if output else True,
            "O1",
            "read what was never written",
            task_id,
        )
        self._require(len(output) >= task.read, "O1", "a read was shorter than before", task_id)
        task.read = len(output)

    def _update_ok(self, data):
        _number, session, note, (_status, body) = data
        task = self.tasks.get(note[0][:-1] + "0")
        if not body.get("ok") or task is None:
            return
        if task.state in END and (task.ended_by is None or task.ended_by[2] != session):
            return
        if task.state in END and not note[3]:
            return
        kept = min(note[1] + note[2], OUTPUT_LIMIT)
        self._require(
            task.length >= kept,
            "O2",
            f"{kept} bytes acknowledged, {task.length} stored",
            task.task_id,
            session,
        )

    def _event_ok(self, who, data):
        number, session, note, _answer = data
        bot_id = session.split("-")[0]
        newest = self.bots.get(bot_id, {}).get("session_id")
        if newest != session or self.begun[who, number][2]:
            return  # of an older session nothing is kept
        self._require(
            self.events.get((bot_id, note[0])) == 1,
            "E1",
            f"acknowledged event {note[0]} not kept",
            bot_id,
            session,
        )

    def _truth(self, who, what, data):
        session, *rest = data
        if what == "hold":
            self.holds[session, rest[0]] = True
        elif what in {"drop", "error"}:
            self.holds.pop((session, rest[0]), None)
        elif what == "wrote":
            self.wrote[session, rest[0]] = rest[1]
        elif what == "start":
            self._run_began(session, rest[0])
        elif what == "stop":
            self._run_ended(session, rest[0])
        elif what == "connected":
            self.connected.add(rest[0])

    def _run_began(self, session, run_id):
        others = self.truth_runs.setdefault(self._root(run_id[:-1] + "0"), set())
        rivals = sorted(others)
        self._require(not rivals, "C4", f"{session} and {rivals} run it", run_id[:-1] + "0")
        others.add(session)
        mine = self.truth_sessions.setdefault(session, set())
        self._require(not mine, "C3", f"{session} runs {sorted(mine)} too", run_id[:-1] + "0")
        mine.add(run_id)

    def _run_ended(self, session, run_id):
        self.truth_runs.get(self._root(run_id[:-1] + "0"), set()).discard(session)
        self.truth_sessions.get(session, set()).discard(run_id)

    def _fault(self, _who, what, _data):
        if what == "calm":
            self.calm_at = self.now

    def _log(self, who, what, data):
        self._bad("LOG", f"{who}: {what} {data}")

    _READERS: ClassVar = {
        "applied": _applied,
        "invoke": _invoke,
        "begin": _begin,
        "served": _served,
        "ok": _ok,
        "truth": _truth,
        "log": _log,
        "fault": _fault,
    }

    # at rest

    def _at_the_end(self):
        kinds = self.result.ground.contents()
        stored = kinds["task"].packed if "task" in kinds else {}
        for (_who, uuid), task_id in self.created.items():
            there = any(
                task.task_id == task_id and key in stored for key, task in self.by_key.items()
            )
            self._require(there, "T2", f"{uuid}: {task_id} is gone", task_id)
        for task in self.tasks.values():
            self._task_at_the_end(task)
        self._leftovers(kinds)
        for kind, of_kind in kinds.items():
            for key, packed in of_kind.packed.items():
                self._require(not _has_canary(packed.body), "X1", f"a secret in {kind} {key}")
        known = set(_decode(kinds["archive"].packed["versions"].body)["versions"])
        self._require(
            self.connected <= known, "D1", f"archives nobody recorded: {self.connected - known}"
        )

    def _task_at_the_end(self, task):
        wanted = task.request["slices"][0]["dimensions"]
        is_for_nobody = task.state == "PENDING" and wanted.get("id", ["?"])[0] not in {
            "?",
            *self.result.bots,
        }
        self._require(
            task.state in END or is_for_nobody, "L1", f"never ended: {task.state}", task.task_id
        )
        self._offspring(task)
        if task.cancel_ok:
            self._require(task.state == "CANCELED", "K2", f"ended {task.state}", task.task_id)
        if task.kill_ok_at is not None:
            self._require(
                task.state in AFTER_KILL, "K3", f"killed, ended {task.state}", task.task_id
            )
            took_s = task.ended_at - task.kill_ok_at
            self._require(took_s <= KILL_LIMIT_S, "K3", f"took {took_s:.0f} s", task.task_id)
        if task.state in END and task.claims:
            self._require(
                task.doc["output_bytes"] == task.length,
                "O3",
                f"says {task.doc['output_bytes']} bytes, {task.length} are stored",
                task.task_id,
            )

    def _offspring(self, task):
        """P1: children are stopped soon after their parent; R1: a retry that is due is made."""
        if task.state not in END:
            return
        stopped_at = task.ended_at if task.kill_at_s is None else task.kill_at_s
        limit = max(stopped_at, self.calm_at) + FOLLOW_S
        for child in map(self.tasks.get, task.children):
            ended = child.state in END and child.ended_at <= limit
            told = child.kill_at_s is not None and child.kill_at_s <= limit
            self._require(
                ended or told,
                "P1",
                f"outlived {task.task_id}: {child.state}",
                child.task_id,
                task.task_id,
            )
        request = task.request
        if task.state == "BOT_DIED" and request["retry_number"] < request["max_retries"]:
            parent = self.tasks.get(request["parent_task_id"][:-1] + "0")
            self._require(
                task.task_id in self.retries or (parent is not None and parent.state in END),
                "R1",
                "not tried again",
                task.task_id,
            )

    def _leftovers(self, kinds):
        """L2: what stands in a queue, is offered or has a timer is still pending."""
        open_ids = {t.task_id for t in self.tasks.values() if t.state == "PENDING"}
        for kind, names in (
            ("pend", [key.rsplit("!", 1)[1] for key in _keys(kinds, "pend")]),
            ("due", [key.split("!")[3] for key in _keys(kinds, "due")]),
            ("offer", [self.by_key[key].task_id for key in _keys(kinds, "offer")]),
        ):
            left = sorted(set(names) - open_ids)
            self._require(not left, "L2", f"{kind} left over", *left)


def _has_canary(body):
    return CANARY in body or CANARY_B64 in body


def _keys(kinds, kind):
    return list(kinds[kind].packed) if kind in kinds else []


def check(result):
    """Every violation of one run."""
    return Checker(result).check()


def slice_of(result, violation, before=40):
    """The records that have to do with a violation, up to where it showed."""
    names = set(violation.keys)
    names |= {key[:-1] + "1" for key in violation.keys if len(key) == 16}
    lines = []
    for at, who, kind, what, data in result.history.records[: violation.at + 1]:
        text = _text(kind, data)
        if any(name in text or name == who for name in names):
            lines.append(f"{at:9.3f} {who:>14} {kind:7} {what} {text}")
    return lines[-before:]


def _text(kind, data):
    if kind != "applied":
        return repr(data)
    by, changes = data
    parts = []
    for name, key, _before, after in changes:
        body = None if after is None else _decode(after.body)
        shown = "gone" if body is None else {k: v for k, v in body.items() if k in _WORTH}
        parts.append(f"{name} {key} {shown}")
    return f"for {by}: " + "; ".join(parts)


_WORTH = frozenset(
    {
        "task_id",
        "state",
        "session_id",
        "bot_id",
        "claim_id",
        "slice_index",
        "killing",
        "kind",
        "event_id",
        "committed",
        "output_bytes",
        "lease_id",
        "pending",
        "dead",
    }
)
"""Fields of documents that are shown."""
