"""This process among the others of its store: it says that it is there, and what it knows."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from botapi.clock import Clock
from botapi.store import schema
from botapi.store.protocol import SchemaMismatch, Store
from botapi.transactions.server_presence import (
    Server,
    announce,
    keeps_elsewhere,
    leave,
    living,
)

EVERY_S = 15.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Presence:
    """`end` is called once when this process must not go on beside the others.

    Then the store needs a newer Skep, or another process, which was there first, keeps blobs
    elsewhere: of two that started at the same moment the one with the lower id stays.
    """

    store: Store
    clock: Clock
    me: Server
    end: Callable[[], None]
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
            self.end()
            return
        schema.put_in_force(number)
        if not self.is_announced:
            self.is_announced = True
            self._end_beside_other_blobs()

    def _end_beside_other_blobs(self) -> None:
        other = keeps_elsewhere(living(self.store, self.clock.now_ms()), self.me.blobs)
        if other is not None and other.server_id < self.me.server_id:
            log.critical("%s of the same store keeps blobs in another place: it ends", other.named)
            self.end()

    def close(self) -> None:
        """The process ends; nobody need wait until it has been silent for long."""
        if self.is_announced:
            leave(self.store, self.me.server_id)
