"""What a process hears each second beside its sweeps, and says of itself."""

from dataclasses import dataclass

from botapi.auth.bootstrap import EnrolledDigests
from botapi.auth.directory import Directory
from botapi.cfg.provider import Provider
from botapi.cfg.releases import Releases
from botapi.scheduler.offers import Offers
from botapi.scheduler.presence import Presence
from botapi.store.protocol import Store
from botapi.transactions.create_api_key import note_used

FORGET_LOOKS = 4
"""Seconds, about, that a process goes by the enrolments it knows where no store tells it."""


@dataclass(slots=True)
class News:
    """What a process does each second beside its sweeps.

    Held bots are told to come back when the archive or bots.cfg has changed, the use of
    API keys is written down once a minute, and the process says that it is there.
    """

    config: Provider
    archives: Releases
    offers: Offers
    directory: Directory
    enrolled: EnrolledDigests
    store: Store
    presence: Presence
    seen: tuple[int, int] | None = None
    looks: int = 0

    def look(self) -> None:
        """Compare with the last look; cheap."""
        self.looks += 1
        if self.looks % FORGET_LOOKS == 0 and not self.store.capabilities().push_wakeup:
            self.enrolled.hear("*")
        self.archives.look()
        now = (self.config.cached().rev, self.archives.generation())
        if self.seen not in {None, now}:
            self.offers.release_held()
        self.seen = now
        used = self.directory.take_used()
        if used:
            note_used(self.store, used)
        self.presence.beat()
