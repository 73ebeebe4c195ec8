"""The pages themselves: a question to the server, and the template that shows the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botapi.domain.bot import BotStatus
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Needs, On, Permission
from botapi.domain.task import TaskState, is_final
from botapi.web import words
from botapi.web.asked import Json, Person, Query, Server

WINDOW_BYTES = 64 * 1024
MAX_REASON = 1_000
CANCEL = Needs(Permission.TASKS_CANCEL, On.TASK)
TASK_STATES = ("pending", "running", "final")
NOTICES = {
    "canceled": "The task is canceled.",
    "killing": "The bot has been told to stop the task.",
    "unchanged": "Nothing was changed: the task was final, or had begun to run meanwhile.",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody looks at a page, or sends its form."""

    server: Server
    person: Person
    query: Query
    form: Mapping[str, str]
    base_url: str
    now_ms: int

    def first(self, name: str) -> str:
        """The last value of a parameter, empty when it is not given."""
        values = self.query.get(name, ())
        return values[-1] if values else ""


@dataclass(frozen=True, slots=True)
class Page:
    """A template with its values."""

    template: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Redirect:
    """303 to a path of ours."""

    location: str


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text with headers, for the script."""

    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


Shown = Page | Redirect | PlainText


def home(_visit: Visit) -> Shown:
    """The fleet is what people look at first."""
    return Redirect("/bots")


def bots(visit: Visit) -> Shown:
    """The fleet as a table, with counts that narrow it down."""
    found = visit.server.bots(visit.person, visit.query, visit.base_url)
    wanted = [value for value in visit.query.get("dimension", ()) if value]
    counts = found["counts"]
    return Page(
        "bots.html",
        {
            "bots": found["items"],
            "counts": counts,
            "total": None if counts is None else sum(counts.values()),
            "statuses": [str(status) for status in BotStatus],
            "status": visit.first("status"),
            "wanted": wanted,
            "narrowed": [("dimension", value) for value in wanted],
            "pager": _pager("/bots", visit, found),
        },
    )


def bot(visit: Visit, bot_id: str) -> Shown:
    """Everything about one bot."""
    events = visit.server.events(bot_id, visit.query)
    path = f"/bots/{words.segment(bot_id)}"
    return Page(
        "bot.html",
        {
            "bot": visit.server.bot(bot_id, visit.base_url),
            "origins": visit.server.origins(bot_id),
            "events": events["items"],
            "pager": _pager(path, visit, events),
        },
    )


def tasks(visit: Visit) -> Shown:
    """Tasks, newest first."""
    found = visit.server.tasks(visit.person, visit.query)
    return Page(
        "tasks.html",
        {
            "tasks": found["items"],
            "states": TASK_STATES,
            "state": visit.first("state"),
            "tags": [value for value in visit.query.get("tag", ()) if value],
            "bot": visit.first("bot"),
            "user": visit.first("user"),
            "pager": _pager("/tasks", visit, found),
        },
    )


def task(visit: Visit, task_id: str) -> Shown:
    """Everything about one task, and a window on its output."""
    found = visit.server.task(task_id)
    return Page(
        "task.html",
        {
            "task": found,
            "window": _window(visit, found),
            "notice": NOTICES.get(visit.first("done"), ""),
            "is_final": is_final(TaskState(found["state"])),
            "may_cancel": visit.server.may(visit.person, CANCEL, {"task_id": task_id}),
        },
    )


def cancel(visit: Visit, task_id: str) -> Shown:
    """Cancel or kill, with a reason; then the task's page again."""
    reason = visit.form.get("reason", "").strip()
    if not reason or len(reason) > MAX_REASON:
        raise Refusal(
            Code.INVALID_ARGUMENT, f"reason: give one, of at most {MAX_REASON} characters"
        )
    kill_running = visit.form.get("kill_running") == "1"
    done = visit.server.cancel(task_id, visit.person.name, reason, kill_running=kill_running)
    word = "unchanged"
    if done["canceled"]:
        word = "killing" if done["was_running"] else "canceled"
    return Redirect(f"/tasks/{words.segment(done['task']['task_id'])}?done={word}")


def output(visit: Visit, task_id: str) -> Shown:
    """The output behind an offset as text, for the script that follows it."""
    offset = _offset(visit.first("offset"))
    wait_s = min(20, _offset(visit.first("wait")))
    found = visit.server.output(task_id, offset, WINDOW_BYTES, wait_s)
    text, used = words.readable(found.data, is_end=found.final)
    is_over = found.final and used == len(found.data)
    return PlainText(
        text,
        {
            "X-Skep-Next-Offset": str(offset + used),
            "X-Skep-Task-State": found.state,
            "X-Skep-Final": "1" if is_over else "0",
        },
    )


def audit(visit: Visit) -> Shown:
    """What people changed."""
    found = visit.server.audit(visit.query)
    return Page("audit.html", {"entries": found["items"], "pager": _pager("/audit", visit, found)})


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the output that the page shows. `earlier` and `later` are offsets."""

    text: str
    offset: int
    next_offset: int
    earlier: int | None
    later: int | None


def _window(visit: Visit, found: Json) -> Window:
    """The last 64 KiB, or those behind `?from=`."""
    total: int = found["output_bytes"]
    asked = visit.first("from")
    offset = _offset(asked) if asked else max(0, total - WINDOW_BYTES)
    read = visit.server.output(found["task_id"], offset, WINDOW_BYTES)
    skipped = words.whole_start(read.data) if offset else 0
    text, used = words.readable(read.data[skipped:], is_end=read.final)
    end = offset + skipped + used
    return Window(
        text=text,
        offset=offset,
        next_offset=end,
        earlier=max(0, offset - WINDOW_BYTES) if offset else None,
        later=end if asked and end < total else None,
    )


def _offset(text: str) -> int:
    """A whole number; anything else is 0."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 15 else 0


def _pager(path: str, visit: Visit, found: Json) -> Mapping[str, str]:
    """Links to the first and the next page, empty where there is none."""
    kept = [
        (name, value)
        for name, values in visit.query.items()
        if name != "cursor"
        for value in values
    ]
    cursor = found["next_cursor"]
    first = f"{path}?{words.query_string(kept)}".rstrip("?")
    following = words.query_string([*kept, ("cursor", cursor or "")])
    return {
        "first": first if visit.first("cursor") else "",
        "next": f"{path}?{following}" if cursor else "",
    }
