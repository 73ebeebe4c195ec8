"""Lists of the server, page by page, up to the number of items that was asked for."""

from collections.abc import Iterable
from typing import Any

from botapi.ctl.command import Invocation
from botapi.ctl.errors import CtlError
from botapi.ctl.exits import Exit
from botapi.ctl.output import Listing, show_list

Json = dict[str, Any]

PAGE_MAX = 1000


class NothingMatched(CtlError):
    """A filter was given and nothing passes it."""

    exit_code = Exit.NOTHING_MATCHED
    default_hint = "leave out one of the filters"


def read_pages(
    call: Invocation, what: str, path: str, filters: Iterable[tuple[str, str]], limit: int
) -> Json:
    """At most `limit` items and the cursor behind them, in the form of one page."""
    items: list[Json] = []
    cursor: str | None = None
    while True:
        query: list[tuple[str, str | int]] = [
            *filters,
            ("limit", min(PAGE_MAX, limit - len(items))),
        ]
        if cursor:
            query.append(("cursor", cursor))
        page = call.client.get(what, path, query)
        items += page["items"]
        cursor = page.get("next_cursor")
        if not cursor or len(items) >= limit:
            return {**page, "items": items, "next_cursor": cursor}


def show_pages(
    call: Invocation,
    listing: Listing,
    path: str,
    filters: list[tuple[str, str]],
    limit: int,
    form: str = "",
) -> int:
    """Print a list; NothingMatched when there are filters and no items."""
    whole = read_pages(call, listing.kind, path, filters, limit)
    show_list(form or call.form, listing, whole["items"], whole)
    if whole["next_cursor"]:
        call.note(f"there are more than {limit}: raise --limit")
    if filters and not whole["items"]:
        asked = ", ".join(f"{name}={value}" for name, value in filters)
        raise NothingMatched(listing.kind, f"nothing matches {asked}")
    return Exit.DONE
