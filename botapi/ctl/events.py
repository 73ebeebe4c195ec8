"""A bot's events as they happen, and those among them that it said itself."""

from collections.abc import Callable
from dataclasses import dataclass

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation
from botapi.ctl.errors import Invalid, plain
from botapi.ctl.exits import Exit
from botapi.ctl.output import LOOK, Json, Listing, as_cell, key
from botapi.ctl.paging import PAGE_MAX, read_pages
from botapi.ctl.waiting import OutOfTime, Patience

EVENTS = Listing(
    "event",
    (key("event_id"), key("at"), key("event"), key("task_id"), key("message")),
)
USUAL = frozenset({"bot_idle", "bot_polling", "request_sleep", "task_update"})
"""What happens all the time."""
SAID = frozenset({"bot_error", "bot_log"})
"""What a bot says by itself."""
MAX_LOOKED = 10_000
"""Newest events of a bot among which `skep bot log` looks for what it said."""
LOOK_S = 2.0
"""Between two looks for new events."""


def is_important(event: Json) -> bool:
    """Is it more than a sign of life?"""
    return event["event"] not in USUAL


def follow_events(
    call: Invocation,
    path: str,
    limit: int,
    timeout_s: float | None,
    *,
    is_wanted: Callable[[Json], bool],
) -> int:
    """Print the newest `limit` events, oldest first, and then each new one as it comes.

    Of those only what is wanted. `timeout_s` are seconds, None is for ever.
    """
    return _follow(call, path, limit, timeout_s, is_wanted, _printer(call.form, _as_row), "")


def show_log(call: Invocation, path: str, limit: int) -> int:
    """Print the newest `limit` things that the bot said, oldest first."""
    said = _said(call, path, limit).events
    if call.form != "table" or LOOK.get().cols or LOOK.get().json_file:
        output.show_list(call.form, EVENTS, said, {"items": said, "next_cursor": None})
    else:
        for event in said:
            click.echo(_as_text(event))
    return Exit.DONE


def follow_log(call: Invocation, path: str, limit: int, timeout_s: float | None) -> int:
    """As `show_log`, and then each new thing that it says as it comes.

    `timeout_s` are seconds, None is for ever. Raises Invalid for a format with an end.
    """
    show = _printer(call.form, _as_text)
    said = _said(call, path, limit)
    for event in said.events:
        show(event)
    return _follow(call, path, PAGE_MAX, timeout_s, _is_said, show, said.newest)


def _is_said(event: Json) -> bool:
    return event["event"] in SAID


@dataclass(frozen=True, slots=True)
class _Said:
    """What a bot said, oldest first, and the id of its newest event of any kind."""

    events: list[Json]
    newest: str


def _said(call: Invocation, path: str, limit: int) -> _Said:
    """The newest `limit` things that it said, as far as `MAX_LOOKED` events go back."""
    said: list[Json] = []
    newest, looked, after = "", 0, list[tuple[str, str]]()
    while True:
        page = read_pages(call, "events", path, after, PAGE_MAX)
        newest = newest or (page["items"][0]["event_id"] if page["items"] else "")
        looked += len(page["items"])
        said += filter(_is_said, page["items"])
        if len(said) >= limit or not page["next_cursor"]:
            break
        if looked >= MAX_LOOKED:
            call.note(f"only the newest {looked} events were looked at")
            break
        after = [("cursor", page["next_cursor"])]
    return _Said(said[:limit][::-1], newest)


def _follow(
    call: Invocation,
    path: str,
    limit: int,
    timeout_s: float | None,
    is_wanted: Callable[[Json], bool],
    show: Callable[[Json], None],
    newest: str,
) -> int:
    """Show what came after the event `newest`, at most the last `limit`, and what comes."""
    patience = Patience(timeout_s)
    while True:
        patience.next_hold_s()
        for event in reversed(_since(call, path, newest, limit)):
            newest = event["event_id"]
            if is_wanted(event):
                show(event)
        try:
            patience.was_vain()
        except OutOfTime:
            return Exit.DONE
        patience.pause(LOOK_S)


def _since(call: Invocation, path: str, newest: str, limit: int) -> list[Json]:
    """What came after the event `newest`, newest first; at most `limit`."""
    few = min(limit, 10) if newest else limit
    while True:
        items: list[Json] = read_pages(call, "events", path, [], few)["items"]
        ids = [event["event_id"] for event in items]
        if newest in ids:
            return items[: ids.index(newest)]
        if len(items) < few or few == limit:
            return items
        few = limit


def _printer(form: str, as_text: Callable[[Json], str]) -> Callable[[Json], None]:
    if form == "jsonl":
        return lambda event: output.write_record("event", event)
    if form == "id":
        return lambda event: click.echo(event["event_id"])
    if form == "table":
        return lambda event: click.echo(as_text(event))
    raise Invalid("--follow", f"{form} has an end, this has none", "use table, jsonl or id")


def _as_row(event: Json) -> str:
    return "\t".join(as_cell(column.cell(event)) for column in EVENTS.columns)


def _as_text(event: Json) -> str:
    """A line with time and kind, and under it every line of the message."""
    lines = (event["message"] or "").splitlines()
    return "\n".join([f"{event['at']} {event['event']}", *(f"  {plain(line)}" for line in lines)])
