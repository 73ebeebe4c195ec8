"""Documents and domain values, both ways: every kind, key and tag stands here and nowhere else.

Bodies are the fields of the dataclass plus `v`, the schema number in force. A field that this code
does not know is kept when a document is rewritten (`was`), so that an older server does not
drop what a newer one wrote.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from botapi.domain.bot import Bot, LiveBot
from botapi.domain.bot_event import BotEvent
from botapi.domain.matching import Queue
from botapi.domain.names import parse_task_id
from botapi.domain.task import (
    Offer,
    OutputPosition,
    PendingSlice,
    Task,
    TaskRequest,
    TaskState,
)
from botapi.store import schema
from botapi.store.protocol import Doc, Key, join_key, prefix_range
from botapi.wire_json import reader

T = TypeVar("T")

BOT = "bot"
LIVE = "live"
EVENT = "event"
REQ = "req"
TASK = "task"
RUN_TIME = "runtime"
PEND = "pend"
DUE = "due"
QUEUE = "queue"
OUT = "out"
OUTPOS = "outpos"
DEDUP = "dedup"
LSESSION = "lsession"
OFFER = "offer"
AUDIT = "audit"
DUTY = "duty"

LIVE_SHARDS = 16
AUDIT_KEEP_MS = 400 * 24 * 3600 * 1000
"""How long the record of a change by a person is kept."""
DUE_BUCKETS = 4
_LAST_MS = 9_999_999_999_999
_LAST_SEQ = 999_999_999
_KEY_MASK = 0x7FFF_FFFF_FFFF_FFFF
RUN = "1"
"""The only run of a task, as a key component."""
LATE = "late"
"""In its place for what the run wrote after its end."""
LAST_OFFSET = 10**15 - 1
"""The largest offset of output that a key can name."""


@dataclass(frozen=True, slots=True)
class LeaseSession:
    """The lease channel of one bot; a new one replaces the old.

    `offer_task` points at an offer. `effective_bot_id` is the bot's name in this channel
    (bot-api 3.7), empty when it was not known yet.
    """

    bot_id: str
    lease_session_id: str
    session_id: str
    opened_ms: int
    closed: bool = False
    offer_task: str = ""
    effective_bot_id: str = ""


def _body(value: object, was: Doc | None = None) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(bytes,))
    body["v"] = schema.in_force()
    if was is not None:
        body.update(schema.unknown(body, was))
    return body


_READERS: dict[type, Callable[[object], Any]] = {
    kind: reader(kind)
    for kind in (
        *(Bot, BotEvent, LeaseSession, LiveBot, Offer),
        *(OutputPosition, PendingSlice, Queue, Task, TaskRequest),
    )
}


def _read(doc: Doc, kind: type[T]) -> T:
    value: T = _READERS[kind](doc.body)
    return value


def newest_first(ms: int) -> str:
    """A key component that sorts later times first."""
    return f"{_LAST_MS - ms:013d}"


def oldest_first(ms: int) -> str:
    """A key component that sorts earlier times first."""
    return f"{ms:013d}"


# bots


def bot_doc(bot: Bot, was: Doc | None = None, expire_at: int | None = None) -> Doc:
    """Kind `bot`, tagged with every dimension, the status words and the version."""
    tags = {f"d:{flat}" for flat in bot.dimensions}
    tags.update(
        (
            f"st:{bot.status}",
            "s:dead" if bot.dead else "s:alive",
            "s:busy" if bot.is_busy else "s:idle",
            "s:quarantined" if bot.quarantined else "s:healthy",
            "s:maint" if bot.maintenance else "s:ok",
            f"v:{bot.version}",
        )
    )
    return Doc(join_key(bot.bot_id), _body(bot, was), frozenset(tags), expire_at=expire_at)


def read_bot(doc: Doc) -> Bot:
    """The bot in a document of kind `bot`."""
    return _read(doc, Bot)


def live_shard(bot_id: str) -> str:
    """One hex digit, the same in every process."""
    return f"{sum(bot_id.encode()) % LIVE_SHARDS:x}"


def live_key(bot_id: str) -> Key:
    """Where last seen and state of a bot are."""
    return join_key(live_shard(bot_id), bot_id)


def live_doc(live: LiveBot, was: Doc | None = None) -> Doc:
    """Kind `live`: no tags, rewritten often."""
    return Doc(live_key(live.bot_id), _body(live, was))


def read_live(doc: Doc) -> LiveBot:
    """The value in a document of kind `live`."""
    return _read(doc, LiveBot)


def event_doc(event: BotEvent, keep_ms: int) -> Doc:
    """Kind `event`, newest first within a bot; kept for `keep_ms`."""
    order = f"{_LAST_SEQ - event.seq:09d}"
    key = join_key(event.bot_id, newest_first(event.at_ms), order, event.event_id)
    return Doc(key, _body(event), expire_at=event.at_ms + keep_ms)


def event_range(bot_id: str, start_ms: int = 0, end_ms: int = 0) -> tuple[Key, Key]:
    """The events of a bot within `[start_ms, end_ms)`, 0 for no bound."""
    newest = newest_first(end_ms - 1) if end_ms else ""
    return join_key(bot_id, newest), join_key(bot_id, newest_first(start_ms)) + '"'


def read_event(doc: Doc) -> BotEvent:
    """The value in a document of kind `event`."""
    return _read(doc, BotEvent)


# tasks


def task_key(task_id: str) -> Key:
    """Key of `task` and `req`: newest first, as upstream's datastore key (bot-api 9.4)."""
    return f"{int(parse_task_id(task_id)[:-1], 16) ^ _KEY_MASK:016x}"


def request_doc(request: TaskRequest) -> Doc:
    """Kind `req`: immutable."""
    return Doc(task_key(request.task_id), _body(request))


def read_request(doc: Doc) -> TaskRequest:
    """The value in a document of kind `req`."""
    return _read(doc, TaskRequest)


def task_doc(task: Task, was: Doc | None = None) -> Doc:
    """Kind `task`, tagged with tags, state, what became of it, user, pool and the bot it ran on."""
    tags = {f"t:{tag}" for tag in task.tags}
    tags.add(f"st:{task.state}")
    if task.state is TaskState.COMPLETED:
        tags.add("o:failure" if task.failure else "o:success")
    if task.deduped_from:
        tags.add("o:deduped")
    if task.properties_hash and task.is_final:
        tags.add(properties_tag(task.properties_hash))
    if task.user:
        tags.add(f"u:{task.user}")
    if task.pool:
        tags.add(f"p:{task.pool}")
    if task.bot_id and not task.deduped_from:
        tags.add(f"b:{task.bot_id}")
    return Doc(task_key(task.task_id), _body(task, was), frozenset(tags))


def properties_tag(properties_hash: str) -> str:
    """The tag of a task whose result may stand for another one's (bot-api 10.5)."""
    return f"ph:{properties_hash}"


def read_task(doc: Doc) -> Task:
    """The value in a document of kind `task`."""
    return _read(doc, Task)


class RunTime(StrEnum):
    """The times of a run that a bot's runs can be sorted by."""

    STARTED = "s"
    COMPLETED = "c"


def run_time_key(task: Task, column: RunTime) -> Key:
    """Where this time of a run stands among those of its bot, newest first.

    Tags find a bot's runs by creation only; documents of this kind, without a body, hold
    the other two orders.
    """
    at_ms = task.started_ms if column is RunTime.STARTED else task.completed_ms
    return join_key(task.bot_id, column, newest_first(at_ms), task_key(task.task_id))


def run_time_doc(task: Task, column: RunTime) -> Doc:
    """Kind `runtime`: written when that time comes, deleted with the task."""
    return Doc(run_time_key(task, column), schema.body({}))


def run_time_range(
    bot_id: str, column: RunTime, start_ms: int = 0, end_ms: int = 0
) -> tuple[Key, Key]:
    """The runs of a bot with that time within `[start_ms, end_ms)`, 0 for no bound."""
    newest = newest_first(end_ms - 1) if end_ms else ""
    oldest = newest_first(max(start_ms, 0))
    return join_key(bot_id, column, newest), join_key(bot_id, column, oldest) + '"'


def task_key_of_run_time(key: Key) -> Key:
    """The key of the task in a key of kind `runtime`."""
    return key.rsplit("!", 1)[1]


def pend_key(queue_key: Key, request: TaskRequest) -> Key:
    """Within a queue: priority, then age, as the pool wants it."""
    by_age = newest_first if request.is_newest_first else oldest_first
    return f"{queue_key}!{request.priority:03d}!{by_age(request.created_ms)}!{request.task_id}"


def queue_of_pend(key: Key) -> Key:
    """The queue in the key of a pending slice."""
    return key.rsplit("!", 3)[0]


def pend_doc(pending: PendingSlice) -> Doc:
    """Kind `pend`: existence means claimable."""
    return Doc(pending.key, _body(pending))


def read_pending(doc: Doc) -> PendingSlice:
    """The value in a document of kind `pend`."""
    return _read(doc, PendingSlice)


def queue_key(queue: Queue) -> Key:
    """Content-addressed: `pool!digest`."""
    return join_key(queue.pool, queue.digest)


def queue_range(key: Key) -> tuple[Key, Key]:
    """All pending slices of a queue."""
    return key + "!", key + '"'


def queue_doc(queue: Queue, used_ms: int, was: Doc | None = None) -> Doc:
    """Kind `queue`: written by whoever needs it first, and again now and then with the time."""
    return Doc(queue_key(queue), {**_body(queue, was), "used_ms": used_ms})


def queue_used_ms(doc: Doc) -> int:
    """When a slice was last put into a queue, within a day; 0 where nobody wrote it."""
    return int(doc.body.get("used_ms", 0))


def read_queue(doc: Doc) -> Queue:
    """The value in a document of kind `queue`."""
    return _read(doc, Queue)


def due_key(when_ms: int, what: str, task_id: str) -> Key:
    """A timer; buckets spread neighbouring times over key ranges."""
    bucket = int(task_id[-4:-1] or "0", 16) % DUE_BUCKETS
    return join_key(f"{bucket:02x}", oldest_first(when_ms), what, task_id)


def offer_doc(offer: Offer) -> Doc:
    """Kind `offer`: at most one for a task."""
    return Doc(task_key(offer.pending.task_id), _body(offer))


def read_offer(doc: Doc) -> Offer:
    """The value in a document of kind `offer`."""
    return _read(doc, Offer)


def lease_session_doc(session: LeaseSession, was: Doc | None = None) -> Doc:
    """Kind `lsession`: one for a bot."""
    return Doc(join_key(session.bot_id), _body(session, was))


def read_lease_session(doc: Doc) -> LeaseSession:
    """The value in a document of kind `lsession`."""
    return _read(doc, LeaseSession)


# output


def output_range(task_id: str) -> tuple[Key, Key]:
    """All pieces of a run's output."""
    return prefix_range(task_id, RUN)


def late_range(task_id: str) -> tuple[Key, Key]:
    """All pieces of what came after the run's end."""
    return prefix_range(task_id, LATE)


def any_output_range(task_id: str) -> tuple[Key, Key]:
    """All pieces of a task, late ones too."""
    return prefix_range(task_id)


def output_key(task_id: str, offset: int, run: str = RUN) -> Key:
    """Where the bytes from that offset on are, at most `LAST_OFFSET`."""
    return join_key(task_id, run, f"{offset:015d}")


def output_doc(task_id: str, offset: int, data: bytes, run: str = RUN) -> Doc:
    """Kind `out`: the bytes written at that offset."""
    return Doc(output_key(task_id, offset, run), schema.body({"data": data}))


def read_output(doc: Doc) -> tuple[int, bytes]:
    """Offset and bytes of a document of kind `out`."""
    return int(doc.key.rsplit("!", 1)[1]), doc.body["data"]


def output_position_key(task_id: str) -> Key:
    """Key of kind `outpos`."""
    return join_key(task_id, RUN)


def output_position_doc(task_id: str, position: OutputPosition, was: Doc | None = None) -> Doc:
    """Kind `outpos`: how far the output is stored."""
    return Doc(output_position_key(task_id), _body(position, was))


def read_output_position(doc: Doc | None) -> OutputPosition:
    """The value in a document of kind `outpos`; the beginning when there is none."""
    return OutputPosition() if doc is None else _read(doc, OutputPosition)


# people


def audit_key(at_ms: int, entry_id: str) -> Key:
    """Key of kind `audit`: newest first."""
    return join_key(newest_first(at_ms), entry_id)


def audit_doc(
    *,
    at_ms: int,
    entry_id: str,
    actor: str,
    verb: str,
    target: str,
    reason: str,
    before: str,
    after: str,
) -> Doc:
    """Kind `audit`, newest first, kept for 400 days.

    `before` and `after` are digests or states, empty for none.
    """
    body: Mapping[str, Any] = {
        "at_ms": at_ms,
        "actor": actor,
        "verb": verb,
        "target": target,
        "reason": reason,
        "before": before,
        "after": after,
    }
    return Doc(audit_key(at_ms, entry_id), schema.body(body), expire_at=at_ms + AUDIT_KEEP_MS)
