"""What idle bots cost in operations of the store: `python -m bench.idle_ops [--engine ...]`.

A whole server without its HTTP part, and a clock turned by hand: for one simulated hour each bot
has its held calls (42.5 s apart) and its polls (120 s apart), the process flushes and sweeps as it
does by itself. Counted at the interface of the store; Datastore counts besides what it bills.
Two fleets are measured: what they differ by is the cost of a bot, the rest that of a server.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from flask import Flask
from werkzeug.test import EnvironBuilder

from bench.engines import ENGINES, engine
from bench.fleet import BOTS_CFG
from bench.p3 import HOLD_S, POLL_S
from bench.simulated import FACTS, STATE
from botapi import app as composition
from botapi import engines, metrics
from botapi.clock import SystemRng
from botapi.concurrency import Threads
from botapi.door import HeldAnswer
from botapi.scheduler.last_seen import FLUSH_EVERY_S
from botapi.settings import Settings
from botapi.store.protocol import Doc, Store, Txn
from tests.fakes.clock import FakeClock
from tests.fakes.sim_bot import SimBot

HELD_PATH = "/rbe/session/update"
STEP_S = 0.5
HOUR_S = 3_600


class Counting:
    """A store that counts the documents which go through it, by what is under way."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.during = "start"
        self.seen: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add(self, did: str, count: int) -> None:
        """So many documents, or operations."""
        self.seen[self.during, did] += count

    def get(self, kind: str, *keys: str) -> list[Doc | None]:
        """Every key is a read, also of what is not there."""
        self.add("read", len(keys))
        return self._inner.get(kind, *keys)

    def scan(self, *args: Any, **more: Any) -> list[Doc]:
        """A query, and its documents."""
        return self._query(self._inner.scan(*args, **more))

    def scan_keys(self, *args: Any, **more: Any) -> list[str]:
        """A query of keys alone."""
        self.add("query of keys", 1)
        return self._inner.scan_keys(*args, **more)

    def find(self, *args: Any, **more: Any) -> Any:
        """A query, and its documents."""
        page = self._inner.find(*args, **more)
        self._query(page.docs)
        return page

    def transact(self, fn: Callable[[Txn], Any], **more: Any) -> Any:
        """What the last try read and wrote."""
        done: list[_CountingTxn] = []

        def counted(txn: Txn) -> Any:
            done.append(_CountingTxn(txn))
            return fn(cast(Txn, done[-1]))

        result = self._inner.transact(counted, **more)
        for did, count in done[-1].seen.items():
            self.add(did, count)
        self.add("transaction", 1)
        return result

    def write_many(self, docs: Iterable[tuple[str, Doc]]) -> None:
        """Each is a write."""
        listed = list(docs)
        self.add("write", len(listed))
        self._inner.write_many(listed)

    def _query(self, docs: list[Doc]) -> list[Doc]:
        self.add("query", 1)
        self.add("read", len(docs))
        return docs


class _CountingTxn:
    def __init__(self, inner: Txn) -> None:
        self._inner = inner
        self.seen: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        did = {"put": "write", "insert": "write", "delete": "delete"}.get(name, "")
        if did:
            self.seen[did] += 1
        return getattr(self._inner, name)

    def get(self, kind: str, *keys: str) -> list[Doc | None]:
        self.seen["read"] += len(keys)
        return self._inner.get(kind, *keys)


class _Post:
    """A bot's calls of the application, for `SimBot`.

    A held call ends when the next call is made, just before it: so it is held for as long as the
    clock of the simulation says. Its answer is given to the next held call.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._held: HeldAnswer | None = None
        self._ended = b"{}"

    def __call__(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        if self._held is not None:
            self._ended, self._held = b"".join(self._held.make()), None
        said = [200]
        answer = self._ended if path.endswith(HELD_PATH) else b"{}"
        environ = EnvironBuilder(path, method="POST", data=body, headers=headers).get_environ()
        environ["REMOTE_ADDR"] = "127.0.0.1"
        made = self._app.wsgi_app(environ, lambda status, *_: said.append(int(status[:3])))
        if isinstance(made, HeldAnswer):
            self._held = made
        else:
            answer = b"".join(made)
        return said[-1], {}, answer


def measure(address: str, bots: int, seen_flush_s: float) -> tuple[Counting, dict[str, float]]:
    """One simulated hour; the counts by what was under way, and what the engine itself counts."""
    with tempfile.TemporaryDirectory(prefix="skep-idle-") as folder:
        data = Path(folder)
        (data / "config" / "scripts").mkdir(parents=True)
        (data / "config" / "bots.cfg").write_text(BOTS_CFG, encoding="utf-8")
        settings = Settings(data_dir=data, store=address, seen_flush_s=seen_flush_s)
        clock, rng = FakeClock(), SystemRng()
        store = Counting(engines.open_store(settings, Threads(), clock, rng))
        parts = composition.build(settings, cast(Store, store), Threads(), clock, rng)
        parts.watcher.check(clock.now_ms())
        app = composition.create_app(parts)
        fleet = [SimBot(_Post(app), f"sim-{n}", dims=FACTS) for n in range(bots)]
        for bot in fleet:
            bot.state |= STATE
            bot.start()
        parts.sweeps.round()
        parts.last_seen.flush()
        store.seen.clear()
        before = _billed()
        _hour(parts, store, clock, fleet)
        billed = {did: count - before.get(did, 0) for did, count in _billed().items()}
        parts.close()
        return store, billed


def _hour(parts: composition.Parts, store: Counting, clock: FakeClock, fleet: list[SimBot]) -> None:
    holds = [HOLD_S * n / len(fleet) for n in range(len(fleet))]
    polls = [POLL_S * n / len(fleet) for n in range(len(fleet))]
    flush_at = sweep_at = 0.0
    for step in range(int(HOUR_S / STEP_S)):
        now = step * STEP_S
        clock.advance(STEP_S)
        for n, bot in enumerate(fleet):
            if now >= holds[n]:
                if now >= polls[n]:
                    polls[n] += POLL_S
                    store.during = "poll"
                    bot.poll()
                holds[n] += HOLD_S
                store.during = "held call"
                bot.update(nonblocking=False)
            if bot.status != 200:
                raise RuntimeError(f"{bot.bot_id}: {bot.status} {bot.text[:200]}")
        if now >= flush_at:
            flush_at = now + FLUSH_EVERY_S
            store.during = "last seen"
            parts.last_seen.flush()
        if now >= sweep_at:
            sweep_at = now + parts.settings.sweep_s
            store.during = "sweeps"
            parts.sweeps.round()


def _billed() -> dict[str, float]:
    return {
        sample.labels["did"]: sample.value
        for family in metrics.STORE_DOCUMENTS.metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _told(small: Mapping[Any, float], large: Mapping[Any, float], sizes: Sequence[int]) -> None:
    """A line for each kind of operation: of a bot, and of a server without bots."""
    for what in sorted(small.keys() | large.keys(), key=str):
        few, many = small.get(what, 0), large.get(what, 0)
        a_bot = (many - few) / (sizes[1] - sizes[0])
        name = "  ".join(what) if isinstance(what, tuple) else f"billed  {what}"
        print(f"{name:32} {a_bot:8.2f} a bot {few - a_bot * sizes[0]:8.0f} a server")


def main() -> None:
    """Measure two fleets on an engine of the run's own, and print what they differ by."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle_ops", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default="sqlite")
    parser.add_argument("--bots", type=int, nargs=2, default=(100, 200), help="both fleets")
    parser.add_argument("--seen-flush", type=float, default=60.0, help="SKEP_SEEN_FLUSH_S")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="skep-idle-") as folder:
        for bots in options.bots:
            with engine(options.engine, Path(folder) / str(bots)) as address:
                found.append(measure(address, bots, options.seen_flush))
    (small, small_bill), (large, large_bill) = found
    print(f"{options.bots} idle bots, one simulated hour, {options.engine}")
    _told(small.seen, large.seen, options.bots)
    _told(small_bill, large_bill, options.bots)


if __name__ == "__main__":
    main()
