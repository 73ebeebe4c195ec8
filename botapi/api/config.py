"""The configuration in force, the revisions before it, and the files on disk."""

from collections.abc import Mapping
from typing import Any

from botapi.api import cursors, queries
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.views import rfc3339
from botapi.cfg import provider
from botapi.cfg.provider import Head
from botapi.domain.errors import Code, Refusal

REVISIONS_AT_ONCE = 10
"""Revisions read together: each may be close to a megabyte."""


def bots_cfg(parts: ApiParts) -> Json:
    """The text in force. `error` tells that the file on disk is newer and refused."""
    snapshot = parts.config.latest()
    rejected = parts.config.rejected()
    mistake = rejected.mistakes[0] if rejected and rejected.mistakes else None
    return {
        "digest": snapshot.digest,
        "text": snapshot.source.bots,
        "applied_at": rfc3339(snapshot.applied_at_ms),
        "error": mistake.removeprefix("bots.cfg:") if mistake else None,
    }


def in_force(parts: ApiParts) -> Json:
    """The revision in force with its files, and how the files on disk stand to it."""
    head = provider.read_head(parts.store.get(provider.KIND, provider.HEAD_KEY)[0])
    files = _revision(parts, head.rev)["files"] if head.rev else {}
    return {**head_view(head, head), "files": files, "on_disk": _on_disk(parts, head)}


def revisions(parts: ApiParts, query: Query) -> Json:
    """One page of the revisions that are kept, newest first."""
    queries.check_names(query, ("limit", "cursor"))
    after = cursors.read_cursor(parts, "revisions", query)
    limit = queries.page_limit(query)
    lo, hi = provider.revision_range()
    found: list[Head] = []

    def collect() -> None:
        end = after or hi
        while len(found) <= limit:
            docs = parts.store.scan(provider.KIND, lo, end, limit=REVISIONS_AT_ONCE, reverse=True)
            found.extend(provider.head_of(doc.body) for doc in docs)
            if len(docs) < REVISIONS_AT_ONCE:
                return
            end = docs[-1].key

    head = provider.read_head(parts.store.get(provider.KIND, provider.HEAD_KEY)[0])
    parts.concurrency.native(collect)
    page = found[:limit]
    last = provider.revision_key(page[-1].rev) if len(found) > limit else None
    return {
        "items": [head_view(one, head) for one in page],
        "next_cursor": cursors.next_cursor(parts, "revisions", query, last),
    }


def revision(parts: ApiParts, rev: str) -> Json:
    """One revision with its files. Raises Refusal NOT_FOUND."""
    if not (rev.isascii() and rev.isdigit() and len(rev) < 10):
        raise _no_revision(rev)
    return _revision(parts, int(rev))


def _revision(parts: ApiParts, rev: int) -> Json:
    body = revision_body(parts, rev)
    head = provider.read_head(parts.store.get(provider.KIND, provider.HEAD_KEY)[0])
    files = provider.read_source(body).files()
    texts = {name: content.decode("utf-8", "replace") for name, content in files.items()}
    return {**head_view(provider.head_of(body), head), "files": texts}


def revision_body(parts: ApiParts, rev: int) -> Mapping[str, Any]:
    """The stored revision. Raises Refusal NOT_FOUND."""
    (doc,) = parts.store.get(provider.KIND, provider.revision_key(rev)) if rev > 0 else (None,)
    if doc is None:
        raise _no_revision(str(rev))
    return doc.body


def _no_revision(rev: str) -> Refusal:
    kept = f"the last {provider.MAX_REVISIONS} are kept"
    return Refusal(Code.NOT_FOUND, f"there is no revision {rev[:40]}; {kept}")


def head_view(head: Head, current: Head) -> Json:
    """A revision without its files."""
    return {
        "rev": head.rev,
        "digest": head.digest or None,
        "author": head.author or None,
        "reason": head.reason or None,
        "applied_at": rfc3339(head.applied_at_ms),
        "in_force": head.rev == current.rev,
    }


def _on_disk(parts: ApiParts, head: Head) -> Json:
    """`state` is `in_force`, `differs` (somebody applied another), `kept_out` or `none`."""
    rejected, digest = parts.config.rejected(), parts.config.file_digest()
    if rejected is not None:
        state = "kept_out"
    elif not digest:
        state = "none"
    else:
        state = "in_force" if digest == head.digest else "differs"
    return {
        "state": state,
        "digest": digest or None,
        "mistakes": list(rejected.mistakes) if rejected else [],
        "kept_out_at": rfc3339(rejected.at_ms) if rejected else None,
    }
