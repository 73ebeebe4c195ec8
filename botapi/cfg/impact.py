"""What a new configuration would do to the bots and tasks in the store.

Scans every bot and every queue: call it on a native thread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from botapi.cfg.bundle import Meaning
from botapi.domain.config_change import ConfigChange, Rules, changes
from botapi.domain.matching import Queue
from botapi.domain.task import PendingSlice
from botapi.store import codec
from botapi.store.protocol import Store
from botapi.store.walk import walk


@dataclass(frozen=True, slots=True)
class LostSlice:
    """A pending slice whose last fitting bot goes away."""

    pending: PendingSlice
    queue: Queue


def impact(
    store: Store, before: Meaning, after: Meaning, is_enrolled: Callable[[str], bool]
) -> ConfigChange:
    """Compare two configurations over all that is known. The errors of the store rise."""
    return changes(
        Rules(before.bots, before.fleet),
        Rules(after.bots, after.fleet),
        (codec.read_bot(doc) for doc in walk(store, codec.BOT)),
        (codec.read_queue(doc) for doc in walk(store, codec.QUEUE)),
        is_enrolled,
    )


def lost_slices(store: Store, change: ConfigChange) -> Iterator[LostSlice]:
    """The pending slices of the queues that lose their last bot, queue by queue."""
    for queue in change.queues:
        for doc in walk(store, codec.PEND, *codec.queue_range(codec.queue_key(queue))):
            yield LostSlice(codec.read_pending(doc), queue)
