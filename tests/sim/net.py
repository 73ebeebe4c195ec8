"""The network between clients and server processes: it loses, delays, doubles and reorders."""

from dataclasses import dataclass, field
from typing import Any

from tests.sim.server import Answer

LOST = Answer(0, {})
OFTEN_DOUBLED = {"/handshake": 10, "/poll": 4}
"""There are few of them, and their late copies are the dangerous ones."""


@dataclass
class Request:
    """One request of a client. `act(process)` answers it, or the bot call at `path` does."""

    client: str
    number: int
    path: str
    fields: dict = field(default_factory=dict)
    act: Any = None
    timeout_s: float = 15.0
    session_id: str = ""
    note: tuple = ()


@dataclass(frozen=True)
class Sleep:
    seconds: float


class Network:
    def __init__(self, sim):
        self._sim = sim
        self._world = sim.world
        self._cut = {}

    def cut(self, name, until):
        """Nothing gets through to or from this client until then."""
        self._cut[name] = until

    def heal(self):
        self._cut.clear()

    def _is_cut(self, request):
        return self._cut.get(request.client, 0.0) > self._world.now

    def send(self, request, resume):
        """`resume(answer)` is called once or more; the caller knows which one counts."""
        sim, random = self._sim, self._world.random
        self._world.later(request.timeout_s, resume, LOST)
        if self._is_cut(request) or random.random() < sim.faults.lose_request:
            sim.history.fault("request lost", (request.client, request.number, request.path))
            self._world.later(random.uniform(0.05, request.timeout_s), resume, LOST)
            return
        self._world.later(self._latency(), self._arrive, request, resume)
        often = OFTEN_DOUBLED.get(request.path, 1)
        if random.random() < sim.faults.double * often:
            sim.history.fault("doubled", (request.client, request.number, request.path))
            again = random.choice((0.05, 0.5, 2.0, 30.0)) * random.random()
            self._world.later(again, self._arrive, request, _nobody)

    def _latency(self):
        sim, random = self._sim, self._world.random
        if random.random() < sim.faults.delay:
            sim.history.fault("delayed")
            return random.uniform(0.1, sim.faults.longest_delay_s)
        return random.uniform(0.001, 0.02)

    def _arrive(self, request, resume):
        alive = [process for process in self._sim.processes if process.is_alive]
        if not alive:
            return
        process = self._world.random.choice(alive)
        process.take(request, lambda answer: self._back(answer, resume, request))

    def _back(self, answer, resume, request):
        if resume is _nobody:
            return
        if self._is_cut(request) or self._world.random.random() < self._sim.faults.lose_reply:
            self._sim.history.fault("reply lost", (request.client, request.number, request.path))
            self._world.later(self._world.random.uniform(0.05, request.timeout_s), resume, LOST)
            return
        self._world.later(self._latency(), resume, answer)


def _nobody(_answer):
    """Takes the answer to a copy that nobody waits for."""


class Client:
    """Drives a generator that yields `Request`s and `Sleep`s."""

    def __init__(self, sim, name, life):
        self.name = name
        self.is_over = False
        self._sim = sim
        self._life = life
        self._ticket = 0
        sim.world.later(0.0, self._go_on, 0, None)

    def end(self):
        """A crash: the generator is dropped where it stands."""
        if not self.is_over:
            self.is_over = True
            self._life.close()

    def _go_on(self, ticket, value):
        if self.is_over or ticket != self._ticket:
            return
        self._ticket += 1
        ticket = self._ticket
        try:
            wish = self._life.send(value)
        except StopIteration:
            self.is_over = True
            return
        if isinstance(wish, Sleep):
            self._sim.world.later(wish.seconds, self._go_on, ticket, None)
        else:
            self._sim.network.send(wish, lambda answer: self._go_on(ticket, answer))
