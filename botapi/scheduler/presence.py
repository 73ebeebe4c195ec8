"""This process among the others of its store: it says that it is there, and what it knows."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from botapi.clock import Clock
from botapi.store import schema
from botapi.store.protocol import SchemaMismatch, Store
from botapi.transactions.server_presence import Server, announce, leave

EVERY_S = 15.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Presence:
    """`outdated` is called once when the store needs a newer Skep than this one."""

    store: Store
    clock: Clock
    me: Server
    outdated: Callable[[], None]
    next_beat: float = 0.0
    is_announced: bool = False

    def beat(self) -> None:
        """Say it now and then; write from now on what the number in force asks for."""
        now = self.clock.monotonic()
        if now < self.next_beat:
            return
        self.next_beat = now + EVERY_S
        try:
            number = announce(self.store, replace(self.me, seen_ms=self.clock.now_ms()))
        except SchemaMismatch as error:
            log.critical("%s: it ends", error)
            self.outdated()
            return
        self.is_announced = True
        schema.put_in_force(number)

    def close(self) -> None:
        """The process ends; nobody need wait until it has been silent for long."""
        if self.is_announced:
            leave(self.store, self.me.server_id)
