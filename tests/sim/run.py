"""One seed, one run: who takes part, what goes wrong, and when it has come to rest."""

import logging
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace

from botapi.handlers.rbe_session import LeaseReport, LeaseResult
from tests.sim.bots import Bot
from tests.sim.history import History
from tests.sim.net import Client, Network
from tests.sim.people import Person
from tests.sim.server import SILENCE_S, Process, Shared, no_faults
from tests.sim.world import Chance, Clock, World

DIMS = {
    "a1": {"os": ["Linux"], "size": ["big"]},
    "a2": {"os": ["Linux"]},
    "a3": {"os": ["Mac"]},
    "b1": {"os": ["Linux"], "pool": ["one"]},  # it lies: its group says pool two
}
QUIET_EVERY_S = 4.0
SETTLE_S = 2 * (3 * 60 + SILENCE_S + 2 * 60) + 120
"""Longest time from the last fault to rest: expirations, silence, tolerance, slow sweeps; and
the same again for a retry."""

_shared = []


def shared():
    """The parts that all seeds of this interpreter share."""
    if not _shared:
        _shared.append(Shared())
    return _shared[0]


@dataclass
class Result:
    """What a run leaves behind."""

    seed: int
    history: History
    ground: object
    ends_at_s: float
    turns: int
    calls: int
    is_quiet: bool
    processes: list
    plan: SimpleNamespace
    bots: set = field(default_factory=set)
    """The bots of which a process lived at the end."""


class Sim:
    """One run; on an engine that is empty, or else in memory."""

    def __init__(self, seed, engine=None):
        self.seed = seed
        self.world = World(seed)
        self.random = self.world.random
        self.history = History(self.world)
        self.shared = shared()
        self.plan = _plan(self.random)
        self.faults = _faults(self.random)
        clock = Clock(self.world)
        self.ground = self.shared.ground(clock, Chance(Random(seed)), engine)
        self.ground.recorder = self._applied
        self.network = Network(self)
        self.processes = []
        self.clients = []
        self.bots = {}
        self.runs = {}
        self.numbers = dict.fromkeys(DIMS, 0)
        self.is_quiet = False
        self.is_calm = False
        for _ in range(self.plan.processes):
            self.start_process()
        for bot_id in self.plan.bots:
            self.start_bot(bot_id)
        self.people = [
            self._client(Person(self, f"p{n}", count)) for n, count in enumerate(self.plan.tasks)
        ]

    def run(self):
        self._schedule_chaos()
        self.world.later(self.plan.calm_at_s, self._calm)
        with ErrorsInto(self.history):
            self.world.run(self.plan.calm_at_s + SETTLE_S, lambda: self.is_quiet)
            was_there = {bot_id: self.is_there(bot_id) for bot_id in DIMS}
            for process in self.processes:
                process.kill()
            for client in self.clients:
                client.end()
        calls = sum(1 for record in self.history.records if record[2] == "begin")
        return Result(
            self.seed,
            self.history,
            self.ground,
            self.world.now,
            self.world.turns,
            calls,
            self.is_quiet,
            self.processes,
            self.plan,
            {bot_id for bot_id in DIMS if was_there[bot_id]},
        )

    def lease_report(self, **fields):
        reasons = {k: fields.pop(k) for k in ("skip_reason", "bot_internal_error") if k in fields}
        return LeaseReport(**fields, result=LeaseResult(**reasons))

    # who takes part

    def start_process(self):
        self.processes.append(Process(f"s{len(self.processes)}", self))

    def start_bot(self, bot_id):
        self.numbers[bot_id] += 1
        client = self._client(Bot(self, bot_id, self.numbers[bot_id], DIMS[bot_id]))
        self.bots.setdefault(bot_id, []).append(client)

    def _client(self, who):
        client = Client(self, who.name, who.life())
        self.clients.append(client)
        return client

    # what goes wrong

    def _schedule_chaos(self):
        random = self.random
        acts = {
            "kill server": self._kill_server,
            "crash bot": self._crash_bot,
            "second process": self._second_process,
            "clock step": self._clock_step,
            "cut off": self._cut_off,
        }
        for name, act in acts.items():
            for _ in range(self.plan.chaos[name]):
                self.world.later(random.uniform(1.0, self.plan.calm_at_s), act)

    def _kill_server(self):
        process = self.random.choice(self.processes)
        if process.is_alive:
            self.history.fault("server killed", (process.name,))
            process.kill()
            self.world.later(self.random.uniform(0.1, 8.0), self.start_process)

    def _crash_bot(self):
        bot_id = self.random.choice(self.plan.bots)
        self.history.fault("bot crashed", (bot_id,))
        for client in self.bots[bot_id]:
            client.end()
        if self.random.random() < 0.7:
            self.world.later(self.random.choice((0.5, 5.0, 150.0)), self.start_bot, bot_id)

    def _second_process(self):
        bot_id = self.random.choice(self.plan.bots)
        self.history.fault("second process", (bot_id,))
        self.start_bot(bot_id)

    def _clock_step(self):
        process = self.random.choice(self.processes)
        step_ms = int(self.random.uniform(-5_000, 5_000))
        self.history.fault("clock step", (process.name, step_ms))
        process.clock.offset_ms = step_ms

    def _cut_off(self):
        bot_id = self.random.choice(self.plan.bots)
        seconds = self.random.choice((5.0, 30.0, 130.0))
        self.history.fault("cut off", (bot_id, seconds))
        for client in self.bots[bot_id]:
            self.network.cut(client.name, self.world.now + seconds)

    def _calm(self):
        """No more faults from now on."""
        self.is_calm = True
        self.history.fault("calm")
        self.faults.__dict__.update(no_faults().__dict__)
        self.network.heal()
        for process in self.processes:
            if process.is_alive and process.paused_until > self.world.now:
                process.kill()
        if not any(process.is_alive for process in self.processes):
            self.start_process()
        self.world.later(QUIET_EVERY_S, self._look)

    def _look(self):
        """Is everything at rest?"""
        if self._rests():
            self.is_quiet = True
        else:
            self.world.later(QUIET_EVERY_S, self._look)

    def _rests(self):
        if not all(client.is_over for client in self.people):
            return False
        kind = self.ground.contents().get("task")
        tagged = kind.tagged if kind is not None else {}
        due = self.ground.contents().get("due")
        timers = () if due is None else due.keys
        if tagged.get("st:RUNNING") or any("!expire!" not in key for key in timers):
            return False
        return all(self.waits_for_nobody(kind, key) for key in tagged.get("st:PENDING", ()))

    def waits_for_nobody(self, kind, key):
        """Does this pending task ask for one bot by its id, which is not there?"""
        tags = kind.packed[key].tags
        return any(tag.startswith("t:id:") and not self.is_there(tag[5:]) for tag in tags)

    def is_there(self, bot_id):
        """Does a process of this bot live?"""
        return any(not client.is_over for client in self.bots.get(bot_id, ()))

    def _applied(self, label, changes):
        by = None
        activity = _current()
        if activity is not None and activity.by is not None:
            call = activity.by
            by = (call.client, call.number, call.session_id, call.path)
        self.history.add(label, "applied", "", (by, changes))


def _current():
    import greenlet

    found = greenlet.getcurrent()
    return found if hasattr(found, "by") else None


def _plan(random):
    """Who takes part in this run, and what befalls them."""
    bots = random.sample(sorted(DIMS), random.choice((1, 2, 2, 3)))
    rough = random.random()
    return SimpleNamespace(
        processes=random.choice((1, 2, 2)),
        bots=bots,
        tasks=[random.randint(1, 4) for _ in range(random.choice((1, 2)))],
        between_tasks_s=random.choice((0.3, 2.0, 8.0)),
        calm_at_s=random.uniform(15.0, 60.0),
        cancel=random.choice((0.0, 0.2, 0.5)),
        cancel_many=random.choice((0.0, 0.0, 0.0, 0.5)),
        terminate=random.choice((0.0, 0.0, 0.0, 0.5)),
        delete=random.choice((0.0, 0.0, 0.0, 0.4)),
        steer=random.choice((0.0, 0.0, 0.2, 0.5)),
        child=random.choice((0.0, 0.3)),
        event=random.choice((0.0, 0.05, 0.2)),
        leave=random.choice((0.0, 0.0, 0.03)),
        ignore_lease=random.choice((0.0, 0.0, 0.15)),
        rogue=random.choice((0.0, 0.0, 0.2)),
        restart=random.choice((0.0, 0.0, 0.4)),
        slow_claim=random.choice((0.0, 0.3, 0.6)),
        task_error=random.choice((0.0, 0.1)),
        chaos={
            "kill server": random.choice((0, 0, 1)),
            "crash bot": random.choice((0, 0, 1)) if rough < 0.8 else 2,
            "second process": random.choice((0, 0, 0, 1)),
            "clock step": random.choice((0, 0, 1)),
            "cut off": random.choice((0, 0, 1)),
        },
    )


def _faults(random):
    """How often the network and the store fail; every part of it may be off."""

    def some(high):
        return random.choice((0.0, 0.3, 1.0)) * high

    return SimpleNamespace(
        yields=random.choice((0.05, 0.3, 0.5)),
        longest_turn_s=random.choice((0.01, 0.5, 3.0)),
        outage=some(0.01),
        slow_commit=some(0.3),
        conflict=some(0.1),
        ambiguous=some(0.08),
        twice=some(0.2),
        lose_hint=some(0.3),
        late_hint=some(0.3),
        pause=some(0.1),
        lose_request=some(0.08),
        lose_reply=some(0.12),
        double=some(0.15),
        delay=some(0.2),
        longest_delay_s=random.choice((1.0, 5.0, 40.0)),
    )


class ErrorsInto:
    """Errors that the server logs become records; nothing is printed."""

    def __init__(self, history):
        self.handler = _Handler(history)
        self.log = logging.getLogger("botapi")

    def __enter__(self):
        self.was = self.log.level, self.log.propagate
        self.log.setLevel(logging.ERROR)
        self.log.propagate = False
        self.log.addHandler(self.handler)

    def __exit__(self, *_):
        self.log.removeHandler(self.handler)
        self.log.level, self.log.propagate = self.was


class _Handler(logging.Handler):
    def __init__(self, history):
        super().__init__(logging.ERROR)
        self.history = history

    def emit(self, record):
        error = record.exc_info[1] if record.exc_info else None
        self.history.add(record.name, "log", record.getMessage(), (repr(error),))
