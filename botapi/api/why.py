"""Why a task is pending, in one line and at the price of a few counts."""

from collections.abc import Sequence

from botapi.api.parts import ApiParts
from botapi.api.views import rfc3339
from botapi.domain.bot import BotStatus
from botapi.domain.matching import constraints, queue_of
from botapi.domain.task import Slice, Task, TaskRequest
from botapi.scheduler.known_bots import fits_one_query, tags_of
from botapi.store import codec
from botapi.store.protocol import Doc

COUNTED = 10_000
"""Bots counted no further: more are said to be "10000 or more"."""
MAX_REASONS = 20
"""Most queues that are looked into for one answer."""

ORDER = (
    BotStatus.BUSY,
    BotStatus.IDLE,
    BotStatus.DRAINING,
    BotStatus.PAUSED,
    BotStatus.MAINTENANCE,
    BotStatus.QUARANTINED,
    BotStatus.DEAD,
)


class Reasons:
    """The reasons of the tasks in one answer; equal questions are asked once."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._by_queue: dict[str, str] = {}

    def why(self, task: Task, request: TaskRequest, offer: Doc | None) -> str:
        """One line, for a PENDING task."""
        slice_ = request.slices[task.slice_index]
        line = _offered(offer) if offer is not None else self._of_slice(slice_)
        if len(request.slices) > 1:
            line = f"slice {task.slice_index + 1} of {len(request.slices)}: {line}"
        return line

    def _of_slice(self, slice_: Slice) -> str:
        key = f"{slice_.wait_for_capacity} {codec.queue_key(queue_of(slice_.dimensions))}"
        if key not in self._by_queue:
            if len(self._by_queue) >= MAX_REASONS:
                return "waits for a bot; its own page says more"
            self._by_queue[key] = self._parts.capacity.line(key, lambda: self._look(slice_))
        return self._by_queue[key]

    def _look(self, slice_: Slice) -> str:
        wanted = constraints(slice_.dimensions)
        if not fits_one_query(wanted):
            return "waits for a bot with its many dimensions"
        counts = count_statuses(self._parts, wanted)
        total = sum(counts.values())
        if total:
            return _matching(counts, total)
        lacking = f"no known bot has {self._parts.capacity.missing(wanted)}"
        if slice_.wait_for_capacity:
            return f"waits for capacity: {lacking}"
        return lacking


def count_statuses(parts: ApiParts, wanted: Sequence[frozenset[str]]) -> dict[str, int]:
    """How many bots with these dimensions are in each status."""
    asked = tags_of(wanted)
    return {
        str(status): parts.store.count(
            codec.BOT, [*asked, frozenset({f"st:{status}"})], up_to=COUNTED
        )
        for status in ORDER
    }


def _matching(counts: dict[str, int], total: int) -> str:
    parts = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    bots = "1 bot matches" if total == 1 else f"{total} bots match"
    return f"{bots}: {parts}"


def _offered(doc: Doc) -> str:
    offer = codec.read_offer(doc)
    return f"offered to {offer.bot_id} since {rfc3339(offer.offered_ms)}"
