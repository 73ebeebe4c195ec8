"""Canceling by a filter: what it finds is counted and asked for before anything ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from botapi.ctl import output
from botapi.ctl.asking import confirm
from botapi.ctl.command import Invocation
from botapi.ctl.errors import Invalid
from botapi.ctl.exits import Exit
from botapi.ctl.http import CONNECTIONS, segment
from botapi.ctl.paging import PAGE_MAX, NothingMatched, counted, read_count, read_pages
from botapi.ctl.parallel import in_order
from botapi.ctl.progress import bar
from botapi.ctl.task_filters import Filters, as_query

Json = dict[str, Any]

NO_LIMIT = 1_000_000
BY_TAGS = frozenset({"tags", "since", "until"})
"""Filters that the server cancels by itself."""


def cancel_many(
    call: Invocation,
    asked: Mapping[str, Any],
    *,
    kill_running: bool,
    reason: str,
    limit: int | None,
    yes: bool,
) -> int:
    """Count, ask, cancel; NothingMatched when there is nothing to cancel."""
    given = {name for name, value in asked.items() if value}
    if not given:
        raise Invalid("cancel-tasks", "no filter", "give -q, --tag, --user, --bot or --from")
    states = asked["states"] or (("pending", "running") if kill_running else ("pending",))
    filters = as_query(**{**asked, "states": states})
    found = read_count(call, "tasks", "/tasks", filters)
    if not found["count"] and found["count_kind"] == "exact":
        raise NothingMatched("task", "no task that could be canceled matches")
    most = f", at most {limit} of them" if limit else ""
    touched = f"{counted(found)} task(s), {' or '.join(states)}, will be canceled{most}"
    confirm(call, touched, "cancel them?", yes=yes)
    body = {"kill_running": kill_running, "reason": reason}
    limit = limit or NO_LIMIT
    if given <= BY_TAGS and asked["tags"]:
        matched = _by_tags(call, asked, body, limit)
    else:
        matched = _one_by_one(call, filters, body, limit)
    output.show_item(call.form, "canceled", str(matched), {"matched": matched})
    return Exit.DONE


def _by_tags(call: Invocation, asked: Mapping[str, Any], body: Json, limit: int) -> int:
    """The server does it: a call for each thousand."""
    body = {
        **body,
        "tags": [f"{name}:{value}" for name, value in asked["tags"]],
        "start": asked["since"] or "",
        "end": asked["until"] or "",
    }
    matched, cursor = 0, ""
    while matched < limit:
        page = {**body, "limit": min(PAGE_MAX, limit - matched), "cursor": cursor}
        done = call.client.ask("cancel tasks", "/tasks/cancel", page)
        matched += done["matched"]
        cursor = done["next_cursor"]
        if not cursor:
            break
    return matched


def _one_by_one(call: Invocation, filters: Filters, body: Json, limit: int) -> int:
    """A call for each task that the filter finds, some at once."""
    found = read_pages(call, "tasks", "/tasks", filters, limit)
    ids = [task["task_id"] for task in found["items"]]
    canceled = 0
    done = in_order(lambda task_id: _cancel(call, task_id, body), ids, CONNECTIONS)
    with bar(call, "canceling", len(ids)) as advance:
        for count, is_done in enumerate(done, 1):
            canceled += is_done
            advance(count)
    return canceled


def _cancel(call: Invocation, task_id: str, body: Json) -> bool:
    answer = call.client.ask(f"cancel {task_id}", f"/tasks/{segment(task_id)}/cancel", body)
    return bool(answer["canceled"])


def delete_each(call: Invocation, bot_ids: Sequence[str]) -> list[str]:
    """Delete these bots, some at once; the ids of those that are gone now."""
    deleted: list[str] = []
    answers = in_order(
        lambda i: call.client.delete(f"bot {i}", f"/bots/{segment(i)}")["deleted"],
        bot_ids,
        CONNECTIONS,
    )
    with bar(call, "deleting", len(bot_ids)) as advance:
        for count, (bot_id, is_gone) in enumerate(zip(bot_ids, answers, strict=True), 1):
            deleted += [bot_id] * bool(is_gone)
            advance(count)
    return deleted
