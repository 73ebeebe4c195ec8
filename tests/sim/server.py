"""Server processes over one store: the real parts, without HTTP and without a disk."""

import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace

from botapi import app as composition
from botapi.auth.botsession import BadToken, is_expired, is_too_old
from botapi.auth.credentials import Presented
from botapi.auth.keys import SESSION, KeyRing
from botapi.bot_call import Call, Reply, SessionCall, Text
from botapi.cfg.bundle import Source
from botapi.cfg.provider import Provider
from botapi.concurrency import Held, Threads
from botapi.domain.errors import Code, Refusal
from botapi.door import HTTP_STATUS
from botapi.handlers import claim, event, handshake, poll, rbe_session, task_error, task_update
from botapi.secrets.key_file import make_key_file
from botapi.settings import Settings
from botapi.store.protocol import StoreError
from botapi.transactions.push_config import push_config
from tests.factories import NO_LIMITS
from tests.sim.engines import EngineGround
from tests.sim.store import Ground, View
from tests.sim.world import Activity, Chance, Clock, SlowEvent, Turns, World

BOTS_CFG = """\
trusted_dimensions: "pool"
bot_group {
  bot_id_prefix: "a"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:one"
}
bot_group {
  bot_id_prefix: "b"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:two"
}
"""
POOLS_CFG = """\
pool { name: "one" realm: "p:one" default_task_realm: "p:one" }
pool {
  name: "two"
  realm: "p:two"
  default_task_realm: "p:two"
  scheduling_algorithm: SCHEDULING_ALGORITHM_LIFO
}
"""
POOL_OF = {"a": "one", "b": "two"}
"""What bots.cfg says of a bot, by the first letter of its id."""

HOLD_S = 10.0
CONTACT_S = 20
GRACE_S = 3
OFFER_S = 12.0
BOT_DEATH_S = 30.0
SEEN_FLUSH_S = 5.0
SILENCE_S = CONTACT_S + GRACE_S + 60 + SEEN_FLUSH_S
"""Silence after which the server may give a run up (decisions, contact rule)."""
TOLERANCE_S = 60
OUTPUT_LIMIT = 3_000
FLAKY = "flaky"
"""An exit code that is 0 or 1, as it comes."""
CANARY = b"canary-0f1e2d3c-in-a-secret"
"""Must be found nowhere but in the hands of the bot that runs the task."""

SAID = ("cmd", "reason", "must_stop", "ok", "stop_reason")
"""What of a reply goes into the history."""

BOT_ROUTES = {
    "/event": (event.EventRequest, event.event),
    "/claim": (claim.ClaimRequest, claim.claim),
    "/task_update": (task_update.TaskUpdateRequest, task_update.task_update),
    "/task_error": (task_error.TaskErrorRequest, task_error.task_error),
    "/rbe/session/create": (rbe_session.CreateRequest, rbe_session.create),
    "/rbe/session/update": (rbe_session.UpdateRequest, rbe_session.update),
}
STRANGER_ROUTES = {
    "/handshake": (handshake.HandshakeRequest, handshake.handshake),
    "/poll": (poll.PollRequest, poll.poll),
}


@dataclass(frozen=True)
class Answer:
    """What comes back over the network. `status` 0: nothing came back."""

    status: int
    body: dict
    headers: tuple = ()


class Shared:
    """What is the same for every seed: configuration, archive and keys, read once."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="skep-sim-")
        home = Path(self._folder.name)
        (home / "bot").mkdir()
        (home / "bot" / "zip_main.py").write_text("print('a bot')\n")
        self.settings = Settings(
            data_dir=home / "data",
            bot_archive=home / "bot",
            hold_min_s=HOLD_S * 0.8,
            hold_max_s=HOLD_S,
            contact_s=CONTACT_S,
            poll_s=30.0,
            bot_death_s=BOT_DEATH_S,
            seen_flush_s=SEEN_FLUSH_S,
            offer_timeout_s=OFFER_S,
            sweep_s=3.0,
            output_limit_bytes=OUTPUT_LIMIT,
            **NO_LIMITS,
        )
        clock, rng = Clock(World(0)), Chance(Random(0))
        self.settings.data_dir.mkdir()
        make_key_file(composition.open_vault(self.settings, rng).path, rng)
        self._ground = Ground(clock, rng, {})
        parts = composition.build(self.settings, self._ground, Threads(), clock, rng)
        source = Source(BOTS_CFG, {}, POOLS_CFG, "")
        push_config(self._ground, source, parent="", author="sim", now_ms=clock.now_ms())
        parts.config.latest()
        parts.bots.keys.secret(SESSION)
        request = handshake.HandshakeRequest(dimensions={"id": ["b0"]}, session_id="s", skep={})
        call = Call(clock.now_ms(), "warm", "http://sim", Presented("127.0.0.1"))
        self.bot_version = handshake.handshake(parts.bots, call, request).body["bot_version"]
        for kind in ("bot", "event", "live"):
            self._ground.contents().pop(kind, None)
        self._parts = parts

    def ground(self, clock, rng, engine=None):
        """A fresh database with nothing but the configuration in it; on an empty engine, if any."""
        if engine is None:
            return Ground(clock, rng, self._ground.contents())
        return EngineGround(clock, rng, self._ground.contents(), engine)

    def build(self, store, concurrency, clock, rng):
        """The real composition, given the parts that are the same for every seed."""
        own = {
            "Provider": lambda *_: self._parts.config,
            "KeyRing": lambda *_: self._parts.bots.keys,
            "_releases": lambda *_: self._parts.archives,
        }
        before = {name: getattr(composition, name) for name in own}
        assert before["Provider"] is Provider
        assert before["KeyRing"] is KeyRing
        try:
            for name, make in own.items():
                setattr(composition, name, make)
            return composition.build(self.settings, store, concurrency, clock, rng)
        finally:
            for name, value in before.items():
                setattr(composition, name, value)


class Process:
    """One server process, from its start to its kill."""

    def __init__(self, name, sim):
        self.name = name
        self.is_alive = True
        self._sim = sim
        self._world = sim.world
        self._running = {}
        self.clock = Clock(sim.world)
        self.rng = Chance(sim.world.random)
        self.concurrency = Turns(sim.world, self.spawn)
        self.store = View(sim.ground, sim.world, self, sim.faults, sim.history)
        self.parts = sim.shared.build(self.store, self.concurrency, self.clock, self.rng)
        self.parts.offers.may_claim = sim.ground.may_claim()
        self.parts.offers.hold_s = self.rng.uniform  # not together: more orders are met so
        self.parts.sweeps.watch = lambda _now_ms: None
        self.parts.sweeps.wake = SlowEvent(sim.world, self._slow)
        self.paused_until = 0.0
        self.spawn(self.parts.offers.run)
        self.spawn(self.parts.sweeps.run)

    def spawn(self, fn, *args, by=None):
        """An activity of this process."""
        made = Activity(lambda *given: self._run(made, fn, *given), self._world._hub, by)
        self._running[id(made)] = made
        self._world.later(0.0, made.begin, args)

    def _run(self, made, fn, *args):
        try:
            fn(*args)
        except Exception:  # noqa: BLE001 - a real process would log it
            trace = traceback.format_exc()
            self._sim.history.add(self.name, "log", "an activity ended", (trace,))
        finally:
            self._running.pop(id(made), None)

    def _slow(self, seconds):
        """How long a sleep of the sweeper really takes: always longer, now and then very long."""
        world, faults = self._world, self._sim.faults
        if world.random.random() < faults.pause:
            self._sim.history.fault("process paused", (self.name,))
            self.paused_until = world.now + world.random.uniform(5.0, 90.0)
        return max(seconds, world.random.uniform(4.0, 14.0))

    def kill(self):
        """kill -9: nothing that is in memory is written any more."""
        self.is_alive = False
        self.store.close()
        for activity in list(self._running.values()):
            activity.kill()

    def take(self, call, reply):
        """A request came in; `reply(answer)` is called when there is one."""
        self.spawn(self._answer, call, reply, by=call)

    def _answer(self, call, reply):
        history = self._sim.history
        copy = len(history.records)  # of one call two may come, and each sees another moment
        who = (call.client, call.number, call.session_id)
        history.add(self.name, "begin", call.path, (*who, copy))
        try:
            answer = self._handled(call)
        except Exception as error:  # noqa: BLE001 - the server would answer 500
            history.add(self.name, "log", f"{call.path} raised", (traceback.format_exc(),))
            answer = Answer(500, {"error": repr(error)})
        said = {key: answer.body[key] for key in SAID if key in answer.body}
        about = (*who, answer.status, call.note, said)
        history.add(self.name, "served", call.path, (*about, copy))
        reply(answer)

    def _handled(self, call):
        try:
            if call.act is not None:
                return call.act(self)
            return self._bot_call(call)
        except Refusal as refusal:
            return Answer(HTTP_STATUS[refusal.code], {"error": refusal.message})
        except StoreError as error:
            return Answer(503, {"error": str(error)})

    def _bot_call(self, call):
        server = self.parts.bots
        rid = f"{self.name}-{self.rng.randbits(48):012x}"
        facts = Call(self.clock.now_ms(), rid, "http://sim", Presented("127.0.0.1"))
        facts = server.verified(facts)
        if call.path in STRANGER_ROUTES:
            make, handle = STRANGER_ROUTES[call.path]
            reply = handle(server, facts, make(**call.fields))
        else:
            make, handle = BOT_ROUTES[call.path]
            request = make(**call.fields)
            caller = self._of_session(facts, request.session)
            caller = caller if handle is rbe_session.update else server.known(caller)
            reply = handle(server, caller, request)
        if isinstance(reply, Held):
            reply = reply.get()
        match reply:
            case Reply(body):
                return Answer(200, body)
            case Text(line, status, headers):
                return Answer(status, {"error": line}, headers)
        raise AssertionError(reply)

    def _of_session(self, facts, token):
        """The steps of bot-api 0.4, as `botsrv` takes them."""
        server = self.parts.bots
        try:
            session = server.session_of(token)
        except BadToken as error:
            raise Refusal(Code.UNAUTHENTICATED, str(error)) from None
        if is_expired(session, facts.now_ms) or is_too_old(session, facts.now_ms):
            raise Refusal(Code.UNAUTHENTICATED, "session: expired")
        return SessionCall(facts, token, session, server.authorize_session(session, facts))


def no_faults():
    """A world in which nothing goes wrong."""
    return SimpleNamespace(
        yields=0.1,
        longest_turn_s=0.02,
        outage=0.0,
        slow_commit=0.0,
        conflict=0.0,
        ambiguous=0.0,
        twice=0.0,
        lose_hint=0.0,
        late_hint=0.0,
        pause=0.0,
        lose_request=0.0,
        lose_reply=0.0,
        double=0.0,
        delay=0.0,
        longest_delay_s=1.0,
    )
