"""P6, cost of a call: requests per CPU second of the bot handlers, against a bare Flask route.

Calls are made ready in batches; only the CPU of the calls in question is counted. The bare
route gets the very bytes that the real call was made of.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.bare import PATH, Bare
from bench.fleet import Fleet
from bench.simulated import make_bot, offer_work
from bench.wire import JSON, Connection
from tests.fakes.sim_bot import SimBot

KINDS = ("handshake", "poll", "claim", "task_update")
BOTS = 25
OUTPUT = b"x" * 200


@dataclass(slots=True)
class Recorder:
    """A connection that keeps the body of the last POST."""

    connection: Connection
    last: bytes = b""

    def post(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Send and remember."""
        self.last = body
        return self.connection.post(path, body, headers)


@dataclass(slots=True)
class Spent:
    """CPU seconds and calls of one round, ours and the bare route's, by kind."""

    ours_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    bare_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def ratio(self, kind: str) -> float:
        """Requests per CPU second, ours over the bare route's."""
        return self.bare_s[kind] / self.ours_s[kind]

    def ours_ms(self, kind: str) -> float:
        """CPU milliseconds of one of our calls."""
        return 1000 * self.ours_s[kind] / self.calls[kind]

    def bare_ms(self, kind: str) -> float:
        """CPU milliseconds of one bare call."""
        return 1000 * self.bare_s[kind] / self.calls[kind]


class CallCosts:
    """Simulated bots that share one connection, and the bare route beside them."""

    def __init__(self, fleet: Fleet, bare: Bare) -> None:
        self._fleet, self._bare = fleet, bare
        self._people = fleet.connect()
        self._recorder = Recorder(Connection(fleet.url))
        self._echo = Connection(bare.url)
        self._bots = [make_bot(self._recorder.connection, f"sim-{n}") for n in range(BOTS)]
        for bot in self._bots:
            bot.post = self._recorder.post
            bot.start()
        self._sessions = 0

    def close(self) -> None:
        """Let go of the connections."""
        for connection in (self._people, self._recorder.connection, self._echo):
            connection.close()

    def round(self, batches: int) -> Spent:
        """`batches` times each kind, once for each bot, ours and bare in turn."""
        spent = Spent()
        for _ in range(batches):
            self._measure(spent, "handshake", self._handshake)
            for bot in self._bots:
                bot.poll()
                bot.open_lease_session()
            self._measure(spent, "poll", lambda bot: bot.poll())
            self._work(spent)
        return spent

    def _handshake(self, bot: SimBot) -> None:
        self._sessions += 1
        bot.session = None
        bot.session_id = f"{bot.bot_id}-session/{self._sessions}"
        bot.handshake()

    def _work(self, spent: Spent) -> None:
        """A task for each bot: lease, claim, completing update."""
        offer_work(self._people, BOTS)
        leases = {}
        for bot in self._bots:
            reply = bot.update(nonblocking=False)
            leases[bot.bot_id] = reply["lease"]
        runs = {}

        def claim(bot: SimBot) -> None:
            runs[bot.bot_id] = bot.claim(leases[bot.bot_id])["task_id"]

        def finish(bot: SimBot) -> None:
            bot.finish(runs[bot.bot_id], OUTPUT)

        self._measure(spent, "claim", claim)
        self._measure(spent, "task_update", finish)
        for bot in self._bots:
            done = {"id": leases[bot.bot_id]["id"], "state": "COMPLETED", "result": {}}
            bot.update("MAINTENANCE", lease=done)

    def _measure(self, spent: Spent, kind: str, call: Callable[[SimBot], object]) -> None:
        """One call of each bot, then as many of the bare route with the same bytes."""
        before = self._fleet.server_cpu_s()
        bodies = []
        for bot in self._bots:
            call(bot)
            if bot.status != 200:
                raise RuntimeError(f"{kind}: {bot.status} {bot.text[:300]}")
            bodies.append(self._recorder.last)
        spent.ours_s[kind] += self._fleet.server_cpu_s() - before
        spent.calls[kind] += len(bodies)
        before = self._bare.server_cpu_s()
        for body in bodies:
            status, _headers, _answer = self._echo.send("POST", PATH, body, {"Content-Type": JSON})
            if status != 200:
                raise RuntimeError(f"the bare route answers {status}")
        spent.bare_s[kind] += self._bare.server_cpu_s() - before


def bare_poll_ms(bare: Bare, count: int = 500) -> float:
    """CPU milliseconds of a bare call with the body of a poll."""
    connection = Connection(bare.url)
    bot = make_bot(connection, "sim-bare")
    body = {"dimensions": bot.dims, "state": bot.state, "version": "0" * 64}
    raw = json.dumps(body).encode()
    before = bare.server_cpu_s()
    for _ in range(count):
        connection.send("POST", PATH, raw, {"Content-Type": JSON})
    spent = bare.server_cpu_s() - before
    connection.close()
    return 1000 * spent / count
