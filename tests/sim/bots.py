"""Bots as generators: the real client's loop, with tasks whose every byte is known."""

import base64
import hashlib

from tests.sim.net import Request, Sleep
from tests.sim.server import CANARY, CONTACT_S, FLAKY, GRACE_S, HOLD_S, TOLERANCE_S

CHUNK = 400
POST_EVERY_S = 5.0
PING_EVERY_S = 12.0
DELIVERY_LIMIT_S = 300.0


class _SessionLost(Exception):
    """401 or 403: only a new handshake helps."""


class _Leave(Exception):
    """This process ends for good."""


class _Restart(Exception):
    """This process starts over."""


def payload(session_id, run_id, size):
    """What the task writes when this session runs it; other sessions write other bytes."""
    return hashlib.shake_128(f"{session_id} {run_id}".encode()).digest(size)


class Bot:
    """One process of a bot. `dims` is what it says of itself, lies included."""

    def __init__(self, sim, bot_id, number, dims):
        self.sim = sim
        self.random = sim.world.random
        self.bot_id = bot_id
        self.name = f"{bot_id}-{number}"
        self.dims = {**dims, "id": [bot_id]}
        self.sessions = 0
        self.calls = 0
        self.events = 0
        self.session_id = ""
        self.token = None
        self.seq = 0
        self.heard = ""
        self.takes_claims = self.random.random() < 0.7
        self.held = ""
        self.is_running = False
        self.has_swapped = False

    @property
    def now(self):
        return self.sim.world.now

    def _say(self, what, *data):
        self.sim.history.add(self.name, "truth", what, (self.session_id, *data))

    # calls

    def _send(self, path, timeout_s=12.0, note=(), **fields):
        """One call, one try."""
        self.calls += 1
        number = self.calls
        history = self.sim.history
        history.add(self.name, "invoke", path, (number, self.session_id, note))
        sent_at = self.now
        fields["session"] = self.token
        if path == "/handshake":
            del fields["session"]
        answer = yield Request(
            self.name, number, path, fields, None, timeout_s, self.session_id, note
        )
        kind = "ok" if answer.status == 200 else "info"
        if 400 <= answer.status < 500:
            kind = "fail"
        history.add(self.name, kind, path, (number, self.session_id, note, _short(answer)))
        if answer.status == 200:
            self.contact_at = max(self.contact_at, sent_at)
            self.token = answer.body.get("session") or self.token
        return answer

    def _call(self, path, tries=4, timeout_s=12.0, note=(), **fields):
        """One call with its repeats; status 0 or 5xx when none of them was answered."""
        self.seq += 1
        if path not in {"/event", "/task_error"}:
            fields["skep"] = {"v": 1, "seq": self.seq}
        if path in {"/poll", "/rbe/session/update"} and self.takes_claims:
            fields["skep"]["lease"] = self.heard
        for left in reversed(range(tries)):
            answer = yield from self._send(path, timeout_s, note, **fields)
            if answer.status in {401, 403}:
                raise _SessionLost
            if 0 < answer.status < 500 or not left:
                return answer
            yield Sleep(self.random.uniform(0.05, 1.5))
        raise AssertionError

    def _uuid(self):
        return f"{self.random.getrandbits(64):016x}"

    # life

    def life(self):
        yield Sleep(self.random.uniform(0.0, 2.0))
        while True:
            self.sessions += 1
            self.session_id = f"{self.name}/{self.sessions}"
            self.token, self.seq, self.heard, self.contact_at = None, 0, "", self.now
            try:
                yield from self._live()
            except _Leave:
                return
            except (_Restart, _SessionLost):
                pass
            finally:
                self._drop()
                self._say("gone")
            yield Sleep(self.random.uniform(0.1, 3.0))

    def _state(self, **more):
        return {"client": {"name": "skep", "version": "1"}, "rbe_idle": True, **more}

    def _live(self):
        answer = yield from self._call(
            "/handshake",
            tries=8,
            dimensions=self.dims,
            state=self._state(),
            version=self.sim.shared.bot_version,
            session_id=self.session_id,
        )
        if answer.status != 200:
            raise _Restart
        self._say("connected", answer.body["bot_version"])
        self.poll_at, self.poll_uuid = 0.0, self._uuid()
        self.finished, self.has_lease_session = None, False
        while True:
            if self.random.random() < self.sim.plan.rogue:
                yield from self._meddle()
            if self.random.random() < self.sim.plan.event:
                yield from self._event("bot_log")
            yield from self._cycle()

    def _cycle(self):
        """One poll if it is time for one, and one call for work."""
        if self.now >= self.poll_at and (yield from self._poll_and_obey()):
            return
        if not self.has_lease_session:
            answer = yield from self._call("/rbe/session/create", tries=1)
            if answer.status != 200:
                yield Sleep(self.random.uniform(0.5, 3))
                return
            self.has_lease_session = True
        answer = yield from self._update("OK", lease=self.finished, timeout_s=HOLD_S + 8)
        if answer.status != 200:
            yield Sleep(self.random.uniform(0.2, 3))
            return
        self.finished = None
        if answer.body["status"] != "OK":
            self.has_lease_session = False
            yield Sleep(self.random.uniform(0.1, 1))
            return
        if (answer.body.get("skep") or {}).get("poll"):
            self.poll_at = 0.0
        lease = answer.body.get("lease")
        if lease is not None and lease["state"] == "PENDING":
            self.heard = lease["id"]
            claim = (answer.body.get("skep") or {}).get("claim")
            self.finished = yield from self._work(lease, claim)
            if self.random.random() < self.sim.plan.restart:
                raise _Restart
        elif self.random.random() < self.sim.plan.leave:
            yield from self._shut_down()

    def _poll_and_obey(self):
        """True when the bot has slept, as it was told."""
        if self.finished is not None and self.has_lease_session:
            yield from self._update("MAINTENANCE", tries=2, lease=self.finished, nonblocking=True)
        self.finished = None
        answer = yield from self._poll(self.poll_uuid)
        if answer.status != 200:
            self.poll_at = self.now + self.random.uniform(1, 5)
            return False
        self.poll_uuid = self._uuid()
        self.poll_at = self.now + self.random.uniform(25, 35)
        sleep_s = yield from self._obey(answer.body)
        if not sleep_s:
            return False
        self.has_lease_session = False
        yield Sleep(sleep_s)
        self.poll_at = 0.0
        return True

    def _poll(self, uuid):
        return (
            yield from self._call(
                "/poll",
                tries=2,
                dimensions=self.dims,
                state=self._state(),
                version=self.sim.shared.bot_version,
                request_uuid=uuid,
            )
        )

    def _obey(self, reply):
        """Seconds to sleep; 0 is lease mode."""
        if reply["cmd"] == "bot_restart":
            if "took this bot id over" in reply["message"] and self.random.random() < 0.6:
                raise _Leave  # somebody stops the second process
            raise _Restart
        if reply["cmd"] == "sleep":
            yield from self._update("BOT_TERMINATING", tries=1)
            return min(reply["duration"], 60.0)
        assert reply["cmd"] == "rbe", reply
        return 0.0

    def _update(self, status, tries=1, timeout_s=12.0, **fields):
        if fields.get("lease") is None:
            fields.pop("lease", None)
        else:
            fields["lease"] = self.sim.lease_report(**fields["lease"])
        return (
            yield from self._call("/rbe/session/update", tries, timeout_s, status=status, **fields)
        )

    def _event(self, kind, message="said"):
        self.events += 1
        uuid = self._uuid()
        note = (uuid, self.events)
        yield from self._call(
            "/event",
            note=note,
            event=kind,
            message=message,
            request_uuid=uuid,
            version=self.sim.shared.bot_version,
        )

    def _shut_down(self):
        yield from self._update("BOT_TERMINATING", tries=2)
        self._say("leaves")
        yield from self._event("bot_shutdown")
        raise _Leave

    # work

    def _drop(self):
        """Whatever it was busy with, it is so no more."""
        if self.is_running:
            self.is_running = False
            self._say("stop", self.held)
        if self.held:
            self._say("drop", self.held)
            self.held = ""

    def _work(self, lease, claim):
        """Claim, unless the lease came with the answer, and run; the report of the lease."""
        slot = lease["payload"]
        report = {"id": lease["id"], "state": "COMPLETED"}
        if self.random.random() < self.sim.plan.ignore_lease:
            return None if self.random.random() < 0.5 else {**report, "bot_internal_error": "no"}
        if claim is None and self.random.random() < self.sim.plan.slow_claim:
            yield Sleep(self.random.uniform(5, 30))
        self.held = slot["task_id"][:-1] + "1"
        self._say("hold", self.held)
        try:
            if claim is None:
                answer = yield from self._claim(lease["id"], slot)
                if answer.status != 200:
                    return {**report, "bot_internal_error": f"claim failed: {answer.status}"}
                claim = answer.body
            if claim["cmd"] == "run":
                yield from self._run(claim["manifest"], lease)
            elif claim["cmd"] == "terminate":
                yield from self._terminate(claim["task_id"])
            else:
                return {**report, "skip_reason": claim["reason"]}
            return report
        finally:
            self._drop()

    def _claim(self, lease_id, slot):
        return (
            yield from self._call(
                "/claim",
                tries=self.random.choice((1, 3, 6)),
                note=(self.held, lease_id),
                claim_id=lease_id,
                task_id=slot["task_id"],
                task_to_run_shard=slot["task_to_run_shard"],
                task_to_run_id=slot["task_to_run_id"],
                state=self._state(),
            )
        )

    def _meddle(self):
        """Report on a run of somebody else; nothing must come of it."""
        others = [run for run, bot in self.sim.runs.items() if bot != self.bot_id]
        if not others:
            return
        run_id = self.random.choice(others)
        yield from self._call(
            "/task_update",
            tries=1,
            note=(run_id, 0, 5, True, 5),
            task_id=run_id,
            output=base64.b64encode(b"rogue").decode(),
            output_chunk_start=0,
            exit_code=0,
            duration=0.1,
        )

    def _terminate(self, run_id):
        yield from self._call(
            "/task_update", task_id=run_id, exit_code=0, duration=0.0, note=(run_id, 0, 0, True, 0)
        )
        self._drop()
        yield from self._update("BOT_TERMINATING", tries=2)
        yield from self._event("bot_shutdown")
        raise _Leave

    def _run(self, manifest, lease):
        run = _Run(self, manifest, lease)
        self.is_running = True
        self._say("start", run.run_id)
        self.sim.runs[run.run_id] = self.bot_id
        yield from run.drive()
        self.is_running = False
        self._say("stop", run.run_id)
        yield from run.deliver()


class _Run:
    """One task on one bot, from its start to its report."""

    def __init__(self, bot, manifest, lease):
        self.bot = bot
        self.random = bot.random
        self.run_id = manifest["task_id"]
        self.lease = lease
        _, seconds, size, exit_code = manifest["command"]
        assert manifest.get("secret_bytes") in {None, base64.b64encode(CANARY).decode()}
        self.wanted_s, self.size = float(seconds), int(size)
        self.exit_code = self.random.randint(0, 1) if exit_code == FLAKY else int(exit_code)
        self.hard_s = manifest["hard_timeout"] or 1e9
        self.grace_s = manifest["grace_period"]
        self.data = payload(bot.session_id, self.run_id, self.size)
        self.begun_at = bot.now
        self.written = self.acked = 0
        self.stopping = ""
        self.internal = ""
        self.timed_out = False
        self.ping_at = bot.now + PING_EVERY_S * self.random.uniform(0.8, 1.2)
        self.fails_at = self.wanted_s * self.random.random()
        self.fails = self.random.random() < bot.sim.plan.task_error

    def drive(self):
        """Run until the task ends by itself or is stopped."""
        bot = self.bot
        while True:
            ends_at = self.begun_at + min(self.wanted_s, self.hard_s)
            step = min(POST_EVERY_S * self.random.uniform(0.3, 1.0), ends_at - bot.now)
            yield Sleep(max(0.0, step))
            self._write()
            if bot.now >= ends_at:
                self.timed_out = self.wanted_s > self.hard_s
                return
            if self.fails and bot.now - self.begun_at >= self.fails_at:
                self.internal = "the runner died"
                return
            yield from self._talk()
            if bot.now >= bot.contact_at + CONTACT_S:
                self.stopping, self.internal = "no contact", "no contact with the server"
            if self.stopping:
                yield Sleep(self.random.uniform(0.0, self.grace_s))
                return

    def _write(self):
        share = min(1.0, (self.bot.now - self.begun_at) / max(self.wanted_s, 0.001))
        self.written = max(self.written, int(self.size * share))
        self.bot._say("wrote", self.run_id, self.written)

    def _talk(self):
        if self.bot.now >= self.ping_at:
            self.ping_at = self.bot.now + PING_EVERY_S * self.random.uniform(0.8, 1.2)
            answer = yield from self.bot._update(
                "OK", lease={"id": self.lease["id"], "state": "ACTIVE"}
            )
            if answer.status == 200:
                said = answer.body.get("lease") or {}
                if said.get("state") != "ACTIVE" or answer.body["status"] != "OK":
                    self.stopping = "the lease was lost or canceled"
        else:
            answer = yield from self._post()
            if answer.status == 200 and answer.body.get("must_stop"):
                self.stopping = answer.body.get("stop_reason", "told to")

    def _post(self, tries=1):
        """What was written and not acknowledged, at most a chunk of it."""
        piece = self.data[self.acked : min(self.written, self.acked + CHUNK)]
        answer = yield from self._update(piece, tries)
        if answer.status == 200 and answer.body.get("ok"):
            self.acked = max(self.acked, self.offset + len(piece))
        elif not answer.status and self.random.random() < 0.7:
            self.acked = self.offset + len(piece)  # hopes for the best; a 409 sets it right
        return answer

    def _update(self, piece, tries, **ending):
        self.offset = self.acked
        fields = {
            "task_id": self.run_id,
            "cost_usd": 0.0,
            "request_uuid": self.bot._uuid(),
            **ending,
        }
        if piece:
            fields["output"] = base64.b64encode(piece).decode()
            fields["output_chunk_start"] = self.offset
        note = (self.run_id, self.offset, len(piece), bool(ending), self.written)
        answer = yield from self.bot._call("/task_update", tries, note=note, **fields)
        if answer.status == 409:
            self.acked = int(dict(answer.headers)["X-Skep-Committed"])
        elif 400 <= answer.status < 500:
            self.internal = self.stopping = f"refused: {answer.body}"
        return answer

    def deliver(self):
        """The report, repeated until the server has it."""
        until = self.bot.now + DELIVERY_LIMIT_S
        ending = (
            {}
            if self.internal
            else {
                "exit_code": -9 if self.stopping or self.timed_out else self.exit_code,
                "duration": self.bot.now - self.begun_at,
                "hard_timeout": self.timed_out,
                "io_timeout": False,
            }
        )
        while self.bot.now < until:
            rest = self.written - self.acked
            if rest > CHUNK or (self.internal and rest):
                answer = yield from self._post(2)
                if answer.status == 200 and not answer.body.get("ok"):
                    return
            elif ending:
                piece = self.data[self.acked : self.written]
                answer = yield from self._update(piece, 2, **ending)
                if answer.status == 200:
                    return
            else:
                yield from self._say_error()
                return
            if self.internal:
                ending = {}
                if 400 <= answer.status < 500 and answer.status != 409:
                    self.acked = self.written
            if answer.status != 200:
                yield Sleep(self.random.uniform(0.2, 4.0))

    def _say_error(self):
        self.bot._say("error", self.run_id)
        yield from self.bot._call(
            "/task_error",
            tries=20,
            note=(self.run_id,),
            task_id=self.run_id,
            id=self.bot.bot_id,
            message=self.internal,
            request_uuid=self.bot._uuid(),
        )


def _short(answer):
    """What a caller saw, without tokens."""
    body = {key: value for key, value in answer.body.items() if key in _SHOWN}
    return (answer.status, body)


_SHOWN = frozenset(
    {"cmd", "reason", "ok", "must_stop", "stop_reason", "status", "lease", "error", "message"}
)
__all__ = ["Bot", "payload", "GRACE_S", "TOLERANCE_S"]
