"""Lists of the server, page by page, up to the number of items that was asked for."""

from collections.abc import Iterable
from typing import Any

from botapi.ctl.command import Invocation
from botapi.ctl.errors import CtlError
from botapi.ctl.exits import Exit
from botapi.ctl.output import Listing, show_item, show_list

Json = dict[str, Any]

PAGE_MAX = 1000
MANY_PAGES = 20
"""Pages after which somebody is told why it takes long."""


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
    pages = 0
    while True:
        pages += 1
        if pages == MANY_PAGES:
            call.note(f"{len(items)} found so far; a filter by tag, dimension or age is quicker")
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


def read_count(
    call: Invocation,
    what: str,
    path: str,
    filters: Iterable[tuple[str, str]],
    *,
    is_exact: bool = True,
) -> Json:
    """How many there are: `count` and `count_kind`."""
    asked = [*filters, ("count", "exact" if is_exact else "estimate"), ("limit", "1")]
    found = call.client.get(what, path, asked)
    return {"count": found["count"], "count_kind": found["count_kind"]}


def counted(found: Json) -> str:
    """A count as a person says it."""
    words = {"exact": "", "estimate": "about ", "at_least": "at least "}
    return f"{words[found['count_kind']]}{found['count']}"


def show_count(
    call: Invocation, what: str, path: str, filters: list[tuple[str, str]], *, is_exact: bool
) -> int:
    """Print how many there are."""
    found = read_count(call, what, path, filters, is_exact=is_exact)
    show_item(call.form, "count", str(found["count"]), found)
    return Exit.DONE


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
