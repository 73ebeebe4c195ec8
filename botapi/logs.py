"""Log lines: JSON or logfmt for machines, plain for a terminal; control characters never pass.

A line has the ids of the request it belongs to: whoever learns one notes it (`note`), and a
request begins with none (`begin`). They are kept for each thread and each greenlet apart.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MAX_EVENT_CHARS = 60

_context: ContextVar[dict[str, object] | None] = ContextVar("log_context", default=None)
_PLACEHOLDER = re.compile(r"%[-#0-9.]*[a-z]|%%")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_PLAIN = re.compile(r"[!#-<>-~]+")
"""What logfmt needs no quotes for."""


def configure(form: str, level: str) -> None:
    """Send all logs of this process to standard error as json, logfmt or console lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMS[form]())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)


def begin(**ids: object) -> None:
    """A request begins: what was noted of the one before is forgotten."""
    _context.set(ids)


def note(**ids: object) -> None:
    """What is known now of the request: `bot_id`, `task_id`, `actor`, `pool`.

    Never a token or a secret.
    """
    known = _context.get()
    if known is not None:
        known.update(ids)


def noted() -> Mapping[str, object]:
    """What was noted of the request that runs here."""
    return _context.get() or {}


def event(name: str, **fields: object) -> dict[str, object]:
    """The `extra` of a log call: a stable name of what happened, and its facts."""
    return {"event": name, "fields": fields}


def entry_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line for machines says, in its order.

    `event` is the name that was given, else the words of the message without what changes.
    """
    name = getattr(record, "event", None) or _name_of(str(record.msg))
    entry: dict[str, object] = {
        "ts": _time(record),
        "level": record.levelname.lower(),
        "event": name,
        "logger": record.name,
        "message": record.getMessage(),
        "process": record.process,
    }
    entry.update(noted())
    entry.update(getattr(record, "fields", None) or {})
    if record.exc_info and record.exc_info[0]:
        entry["error.type"] = record.exc_info[0].__name__
        entry["error.message"] = str(record.exc_info[1])
        entry["error.stack"] = logging.Formatter().formatException(record.exc_info)
    return entry


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, event, logger, message, ids, and error with its stack."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(entry_of(record), ensure_ascii=True, default=str)


class LogfmtLines(logging.Formatter):
    """The same as `key=value` pairs; a value with blanks stands in quotes, as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return " ".join(f"{key}={_logfmt(value)}" for key, value in entry_of(record).items())


class ConsoleLines(logging.Formatter):
    """`12:34:56.789 W botapi.app: text` for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows on lines of its own."""
        text = "".join(c if c.isprintable() else " " for c in record.getMessage())
        line = f"{_time(record)[11:23]} {record.levelname[0]} {record.name}: {text}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


FORMS: Mapping[str, type[logging.Formatter]] = {
    "json": JsonLines,
    "logfmt": LogfmtLines,
    "console": ConsoleLines,
}


@lru_cache(maxsize=1_000)
def _name_of(message: str) -> str:
    """`task %s: tried again as %s` as `task_tried_again_as`: the same for every line of it."""
    words = _NO_WORD.sub("_", _PLACEHOLDER.sub(" ", message).lower()).strip("_")
    return words[:MAX_EVENT_CHARS].rstrip("_") or "log"


def _logfmt(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
