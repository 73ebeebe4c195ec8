"""How facts are said on a page: icons with words, ages, sentences. Nothing here asks anybody."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup

Json = Mapping[str, Any]

ICONS = {
    "busy": "▶",
    "idle": "○",
    "maintenance": "⚒",
    "paused": "⏸",
    "draining": "⏳",
    "quarantined": "⚠",
    "dead": "✕",
    "PENDING": "…",
    "RUNNING": "▶",
    "COMPLETED": "✓",
    "TIMED_OUT": "⏱",
    "BOT_DIED": "✕",
    "CANCELED": "⊘",
    "KILLED": "⊘",
    "EXPIRED": "⌛",
    "NO_RESOURCE": "∅",
    "CLIENT_ERROR": "✗",
    "FAILED": "✗",
}
"""Beside each word; a colour alone says nothing."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {
    0x7F: 0x2421
}


def segment(text: str) -> str:
    """An identifier as one segment of a path."""
    return quote(text, safe="")


def query_string(pairs: list[tuple[str, str]]) -> str:
    """Parameters behind the `?`, empty ones left out."""
    return urlencode([(name, value) for name, value in pairs if value])


def seconds(value: float | None) -> str:
    """A duration in its two largest units: `2 h 5 min`, `12.3 s`."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s" if value < 10 and value != int(value) else f"{int(value)} s"
    for size, unit in _UNITS:
        if value >= size:
            first, rest = divmod(int(value), size)
            smaller = {"d": (3_600, "h"), "h": (60, "min"), "min": (1, "s")}[unit]
            second = rest // smaller[0]
            return f"{first} {unit} {second} {smaller[1]}" if second else f"{first} {unit}"
    return ""


def epoch_ms(moment: str) -> int:
    """Milliseconds since 1970 of a time as the API writes it."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def ago(moment: str | None, now_ms: int) -> Markup | str:
    """A `<time>` that says how long ago it was."""
    if not moment:
        return "never"
    age = seconds(max(0, now_ms - epoch_ms(moment)) // 1000)
    return Markup('<time datetime="{0}" title="{0}">{1} ago</time>').format(moment, age)


def between(start: str | None, end: str | None) -> str:
    """How long it took; empty while one of the two is missing."""
    if not start or not end:
        return ""
    return seconds((epoch_ms(end) - epoch_ms(start)) / 1000)


def badge(word: str, text: str = "") -> Markup:
    """Icon and word of a status."""
    return Markup('<span class="badge {0}"><span aria-hidden="true">{1}</span> {2}</span>').format(
        word.lower(), ICONS.get(word, ""), text or word.lower().replace("_", " ")
    )


def icon(word: str) -> Markup:
    """The icon alone, where the words follow."""
    return Markup('<span class="badge {0}" aria-hidden="true">{1}</span>').format(
        word.lower(), ICONS.get(word, "")
    )


def task_word(task: Json) -> str:
    """The state; COMPLETED with another exit code than 0 has failed."""
    return "FAILED" if task["state"] == "COMPLETED" and task["failure"] else str(task["state"])


def task_badge(task: Json) -> Markup:
    """Icon and word of a task."""
    return badge(task_word(task), "being killed" if task["killing"] else "")


def task_sentence(task: Json, now_ms: int) -> str:
    """How the task stands, in one sentence."""
    state, bot = task["state"], task["bot_id"]
    if state == "PENDING":
        return f"Pending for {_since(task['created_at'], now_ms)}."
    if state == "RUNNING":
        doing = "Being stopped" if task["killing"] else "Running"
        return f"{doing} on {bot} for {_since(task['started_at'], now_ms)}."
    said = state.replace("_", " ").capitalize()
    where = f" on {bot}" if bot else ""
    code = f" with exit code {task['exit_code']}" if task["exit_code"] is not None else ""
    took = f" after {seconds(task['duration_s'])}" if task["duration_s"] is not None else ""
    why = f": {task['error']}" if task["error"] else ""
    return f"{said}{code}{where}{took}{why}."


def bot_sentence(bot: Json) -> str:
    """How the bot stands, in one sentence."""
    reasons = {
        "quarantined": bot["quarantine_reason"],
        "maintenance": bot["maintenance"],
        "paused": bot["maintenance"],
        "draining": bot["maintenance"],
        "busy": f"runs task {bot['task_id']}",
        "dead": "has not been heard of for too long",
    }
    reason = reasons.get(bot["status"])
    return (
        f"{bot['status'].capitalize()}: {reason}." if reason else f"{bot['status'].capitalize()}."
    )


def _since(moment: str, now_ms: int) -> str:
    return seconds(max(0, now_ms - epoch_ms(moment)) // 1000)


def pretty(value: object) -> str:
    """JSON as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def readable(data: bytes, *, is_end: bool) -> tuple[str, int]:
    """Output as text, and how many bytes of it were used.

    A character that is cut off at the end is left for the next reading unless nothing
    follows. Colours are taken out, other control characters are made visible.
    """
    used = len(data) if is_end else _whole_characters(data)
    text = data[:used].decode("utf-8", "replace")
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_PICTURES), used


def whole_start(data: bytes) -> int:
    """How many bytes at the beginning belong to a character that began before."""
    count = 0
    while count < min(3, len(data)) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def _whole_characters(data: bytes) -> int:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(data) - back if length > back else len(data)
    return len(data)
