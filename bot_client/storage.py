"""What the bot keeps on its disk from task to task, and how much of it."""

import glob
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Union

from bot_client.clock import Clock
from bot_client.content_cache import ContentCache
from bot_client.health import least_free
from bot_client.named_caches import NamedCaches

log = logging.getLogger("bot.storage")

Json = dict[str, Any]

MAX_AGE_S = 21 * 24 * 3600.0
MAX_NAMED = 50
MAX_NAMED_BYTES = 1024**4
STAGE = "wi"
"""The run folder while it is made ready, below the bot directory."""


class Room(NamedTuple):
    """The limits in force, in bytes and items."""

    free: float
    content_bytes: float
    content_items: float


class Storage:
    """Both caches.  One thread at a time may use it."""

    def __init__(self, bot_dir: str, clock: Clock) -> None:
        """Nothing is read before `load`."""
        self.bot_dir = bot_dir
        self._clock = clock
        self.content = ContentCache(os.path.join(bot_dir, "cas_cache"), clock)
        self.named = NamedCaches(os.path.join(bot_dir, "c"), clock)

    @property
    def stage(self) -> str:
        """Where a task's run folder is made ready."""
        return os.path.join(self.bot_dir, STAGE)

    def load(self) -> None:
        """At start, before anything unknown is deleted: find what an earlier process kept."""
        self.content.load()
        self.named.load(self.run_folders())

    def rescue(self) -> None:
        """Fetch caches back from wherever a task that ended badly left them."""
        self.named.rescue(self.run_folders())

    def run_folders(self) -> list[str]:
        """Wherever a run folder may be after a crash."""
        at_work = glob.glob(os.path.join(glob.escape(self.bot_dir), "w*", "ir"))
        return [self.stage, *at_work]

    def room(self, settings: Json) -> Room:
        """The limits of the bot's settings."""
        rule = settings["free_partition"]["bot"]
        space = os.statvfs(self.bot_dir)
        free = least_free(space.f_blocks * space.f_frsize, rule) + rule["wiggle"]
        isolated = settings["caches"]["isolated"]
        return Room(free, isolated["size"], isolated["items"])

    def free_bytes(self) -> int:
        """Free space of the bot's partition."""
        space = os.statvfs(self.bot_dir)
        return space.f_bavail * space.f_frsize

    def trim(self, room: Room, keep_on: Callable[[], object] = bool) -> None:
        """Oldest first over both caches, for age and free space; then each by its own limits.

        ``keep_on`` is called between two removals and may raise.
        """
        caches: tuple[Union[ContentCache, NamedCaches], ...] = (self.content, self.named)
        while True:
            keep_on()
            oldest = min(caches, key=_age_key)
            age_s = self._clock.wall() - oldest.oldest()
            if age_s <= MAX_AGE_S and (self.free_bytes() >= room.free or oldest.oldest() == _NEVER):
                break
            oldest.drop_oldest()
        while self.named.oldest() != _NEVER and (
            len(self.named) > MAX_NAMED or self.named.size > MAX_NAMED_BYTES
        ):
            keep_on()
            self.named.drop_oldest()
        while len(self.content) and (
            len(self.content) > room.content_items or self.content.size > room.content_bytes
        ):
            keep_on()
            self.content.drop_oldest()

    def room_for(self, room: Room, hints: Iterable[tuple[str, int]]) -> Room:
        """More free space, for the named caches that are not here and how large they were."""
        more = sum(max(0, hint) for name, hint in hints if not self.named.has(name))
        return room._replace(free=room.free + more)


_NEVER = float("inf")


def _age_key(cache: Union[ContentCache, NamedCaches]) -> float:
    return cache.oldest()
