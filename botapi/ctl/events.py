"""A bot's events as they happen."""

from collections.abc import Callable

import click

from botapi.ctl import output
from botapi.ctl.command import Invocation
from botapi.ctl.errors import Invalid
from botapi.ctl.exits import Exit
from botapi.ctl.output import Json, Listing, as_cell, key
from botapi.ctl.paging import read_pages
from botapi.ctl.waiting import OutOfTime, Patience

EVENTS = Listing(
    "event",
    (key("event_id"), key("at"), key("event"), key("task_id"), key("message")),
)
USUAL = frozenset({"bot_idle", "bot_polling", "request_sleep", "task_update"})
"""What happens all the time."""
LOOK_S = 2.0
"""Between two looks for new events."""


def is_important(event: Json) -> bool:
    """Is it more than a sign of life?"""
    return event["event"] not in USUAL


def follow_events(
    call: Invocation, path: str, limit: int, timeout_s: float | None, *, important: bool
) -> int:
    """Print the newest `limit` events, oldest first, and then each new one as it comes."""
    show = _printer(call.form)
    patience = Patience(timeout_s)
    newest = ""
    while True:
        patience.next_hold_s()
        for event in reversed(_since(call, path, newest, limit)):
            newest = event["event_id"]
            if is_important(event) or not important:
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


def _printer(form: str) -> Callable[[Json], None]:
    if form == "jsonl":
        return lambda event: output.write_record("event", event)
    if form == "id":
        return lambda event: click.echo(event["event_id"])
    if form == "table":
        return lambda event: click.echo("\t".join(as_cell(c.cell(event)) for c in EVENTS.columns))
    raise Invalid("--follow", f"{form} has an end, this has none", "use table, jsonl or id")
