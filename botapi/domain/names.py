"""One grammar for identifiers: bots, hosts, sessions, requests, tasks, runs, leases.

A task is named by a *request id*, an integer whose high bits are the time of creation
(bot-api 9.4). Its hex form with a `0` appended is the task id, with a `1` the run id.
"""

import re

from botapi.domain.errors import Code, Refusal

MAX_BOT_ID_BYTES = 256
TASK_EPOCH_MS = 1_262_304_000_000
"""2010-01-01T00:00:00Z in milliseconds since 1970: where request ids begin to count."""

MAX_REQUEST_ID = 0x7FFF_FFFF_FFFF_FFFF
MAX_DRAWS = 50
"""Request ids drawn before giving up: 65,536 are there for each millisecond."""

_SESSION_ID = re.compile(r"[a-z0-9\-_/]{1,50}")
_REQUEST_UUID = re.compile(r"[a-zA-Z0-9\-_/]{0,50}")
_LEASE_ID = re.compile(r"[a-zA-Z0-9\-_./:]{1,128}")
_TASK_ID = re.compile(r"[0-9a-f]{2,17}")


def utf8_length(text: str) -> int | None:
    """How many bytes the text takes in UTF-8; None when it holds half a surrogate pair."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def check_bot_id(bot_id: str) -> None:
    """Raise Refusal INVALID_ARGUMENT unless this can be a bot's id (bot-api 1.3, 6.1).

    A bot id is a dimension value without `:`. This is the one dimension problem that is
    refused rather than quarantined: there is no bot to record it on.
    """
    problem = bot_id_problem(bot_id)
    if problem:
        raise Refusal(Code.INVALID_ARGUMENT, f"bad bot id: {problem}")


def bot_id_problem(bot_id: str) -> str:
    """What is wrong with a bot id, in the words of bot-api 6.1; empty when nothing is."""
    length = utf8_length(bot_id)
    if not bot_id:
        return "empty value"
    if length is None:
        return "value is not Unicode text"
    if length > MAX_BOT_ID_BYTES:
        return f"value too long: {length} > {MAX_BOT_ID_BYTES}"
    if bot_id.strip() != bot_id:
        return "value has outer spaces"
    if ":" in bot_id:
        return '":" in a bot id'
    return ""


def host_id(bot_id: str) -> str:
    """The part before the first `--`, whose credentials count (bot-api 7.3)."""
    return bot_id.split("--", 1)[0]


def is_session_id(text: str) -> bool:
    """Can this be a bot's own name for a run of its process (bot-api 1.3)?"""
    return _SESSION_ID.fullmatch(text) is not None


def is_request_uuid(text: str) -> bool:
    """Can this be a dedup key? The empty text, meaning none, is one (bot-api 1.6)."""
    return _REQUEST_UUID.fullmatch(text) is not None


def is_lease_id(text: str) -> bool:
    """Is this a lease id? Opaque to bots (bot-api 1.11); ours are 1 to 128 plain characters."""
    return _LEASE_ID.fullmatch(text) is not None


def new_request_id(now_ms: int, random16: int) -> int:
    """A request id: time since 2010, 16 random bits, and the schema nibble 1 (bot-api 9.4).

    `now_ms` counts from 1970. Raises ValueError when either part is out of its range.
    """
    since_epoch = now_ms - TASK_EPOCH_MS
    if not 0 <= since_epoch < 1 << 43:
        raise ValueError(f"no request id can hold the time {now_ms} ms")
    if not 0 <= random16 < 1 << 16:
        raise ValueError(f"{random16} is not a 16-bit number")
    return since_epoch << 20 | random16 << 4 | 1


def request_key(request_id: int) -> int:
    """The key under which newer requests sort first; its own inverse (bot-api 9.4)."""
    return request_id ^ MAX_REQUEST_ID


def task_id(request_id: int) -> str:
    """The id of the task: hex and a final `0`."""
    return f"{request_id:x}0"


def run_id(task_id: str) -> str:
    """The id of the only run of a task: the final digit is `1`."""
    return task_id[:-1] + "1"


def request_id(text: str) -> int:
    """The request id inside a task id or run id, whose last digit is ignored (bot-api 9.4).

    Raises ValueError for anything else than 2 to 17 lower-case hex digits that fit in
    63 bits and the last digit.
    """
    if _TASK_ID.fullmatch(text) is None:
        raise ValueError(f"not a task id: {text[:40]!r}")
    number = int(text[:-1], 16)
    if number > MAX_REQUEST_ID:
        raise ValueError(f"not a task id: {text!r}")
    return number


def parse_task_id(text: str) -> str:
    """The canonical task id, ending in `0`, of a task id or run id. Raises ValueError."""
    return task_id(request_id(text))


def task_created_ms(task_id: str) -> int:
    """When the task of this (task or run) id was created, in ms since 1970. Raises ValueError."""
    return (request_id(task_id) >> 20) + TASK_EPOCH_MS
