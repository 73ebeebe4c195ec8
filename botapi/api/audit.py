"""What people changed, newest first."""

from botapi.api import cursors, queries
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.views import audit_view
from botapi.store import codec


def listed(parts: ApiParts, query: Query) -> Json:
    """One page of the audit record."""
    queries.check_names(query, ("limit", "cursor"))
    page = parts.store.find(
        codec.AUDIT,
        [],
        after=cursors.read_cursor(parts, "audit", query),
        limit=queries.page_limit(query),
    )
    return {
        "items": [audit_view(doc.body) for doc in page.docs],
        "next_cursor": cursors.next_cursor(parts, "audit", query, page.after),
    }
