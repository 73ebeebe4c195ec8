"""Blobs for people: upload by digest, download, and what tasks leave behind (docs/blobs.md)."""

import urllib.parse
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from botapi.api.access import check_somewhere
from botapi.api.bodies import Body
from botapi.api.parts import ApiParts, Json
from botapi.api.tasks import canonical, stored
from botapi.blobs.packing import tar, zipped
from botapi.blobs.transfer import MAX_ASKED, Source, parse
from botapi.domain.artifacts import CasReference
from botapi.domain.cas import INSTANCE, Digest, Entry
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Permission

MAX_LISTED = 10_000
"""Files of one page of a tree."""


class MissingBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /blobs/missing`."""

    digests: list[str]


MISSING_BODY = Body(MissingBody)


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes on their way out."""

    pieces: Iterator[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def missing(parts: ApiParts, caller: Caller, body: MissingBody) -> Json:
    """Which of these digests have to be uploaded; at most `MAX_ASKED`."""
    check_somewhere(caller, Permission.CREATE_TASK)
    return {"missing": parts.blobs.missing(body.digests), "limit": MAX_ASKED}


def keep(
    parts: ApiParts, caller: Caller, digest: str, source: Source, length: int | None
) -> tuple[Json, bool]:
    """Take a blob in; was it new?"""
    check_somewhere(caller, Permission.CREATE_TASK)
    found = parse(digest, "digest")
    is_new = parts.blobs.receive(found, source, length)
    return {"digest": str(found)}, is_new


def fetch(parts: ApiParts, caller: Caller, digest: str, asked: str) -> Download:
    """A blob, or a part of it. Whoever knows a digest may read it, who may read tasks at all."""
    check_somewhere(caller, Permission.TASKS_GET)
    piece = parts.blobs.send(parse(digest, "digest"), asked)
    return _file(piece.pieces, piece.headers(), piece.digest.hash, is_part=piece.is_part)


def tree(parts: ApiParts, caller: Caller, digest: str, cursor: str, limit: int) -> Json:
    """The files and links of a tree, by path."""
    check_somewhere(caller, Permission.TASKS_GET)
    return _listed(parts, parse(digest, "digest"), cursor, limit)


def outputs(parts: ApiParts, task_id: str, cursor: str, limit: int) -> Json:
    """What a task left behind, by path."""
    return _listed(parts, _root(parts, task_id), cursor, limit)


def output(parts: ApiParts, task_id: str, path: str, asked: str) -> Download:
    """One file that a task left behind."""
    entry = parts.blobs.found(_root(parts, task_id), path)
    if entry is None:
        raise Refusal(Code.NOT_FOUND, f"task {task_id} left no file {path[:200]!r}")
    if entry.digest is None:
        raise Refusal(Code.NOT_FOUND, f"{path[:200]!r} is a link to {entry.target[:200]!r}")
    piece = parts.blobs.send(entry.digest, asked)
    name = path.rpartition("/")[2]
    return _file(piece.pieces, piece.headers(), name, is_part=piece.is_part)


def packed(parts: ApiParts, task_id: str, kind: str) -> Download:
    """Everything that a task left behind, as a tar or zip file."""
    pack = {"tar": tar, "zip": zipped}.get(kind)
    if pack is None:
        raise Refusal(Code.NOT_FOUND, f"outputs.{kind[:20]}: there are outputs.tar and outputs.zip")
    entries = parts.blobs.tree(_root(parts, task_id))
    _check_whole(parts, entries)

    def pieces(digest: Digest) -> Iterator[bytes]:
        return parts.blobs.pieces(digest, 0, digest.size)

    return _file(pack(entries, pieces), {}, f"outputs-{canonical(task_id)}.{kind}")


def _check_whole(parts: ApiParts, entries: list[Entry]) -> None:
    """Before the first byte is sent: after it nothing can be refused any more."""
    digests = sorted({str(entry.digest) for entry in entries if entry.digest is not None})
    for start in range(0, len(digests), MAX_ASKED):
        lacking = parts.blobs.missing(digests[start : start + MAX_ASKED])
        if lacking:
            raise Refusal(Code.NOT_FOUND, f"no blob {lacking[0]}: never uploaded, or deleted")


def _root(parts: ApiParts, task_id: str) -> Digest:
    found = stored(parts, canonical(task_id)).cas_output_root
    if found is None or found.digest is None:
        raise Refusal(Code.NOT_FOUND, f"task {task_id} left no outputs")
    return digest_of(found, f"task {task_id}")


def digest_of(reference: CasReference, what: str) -> Digest:
    """The root that a reference to our own store names. Raises Refusal FAILED_PRECONDITION."""
    if reference.cas_instance != INSTANCE or reference.digest is None:
        where = (reference.cas_instance or "")[:200]
        raise Refusal(Code.FAILED_PRECONDITION, f"{what}: its files are in {where!r}, not here")
    return parse(f"{reference.digest.hash}/{reference.digest.size_bytes or 0}", what)


def _listed(parts: ApiParts, root: Digest, cursor: str, limit: int) -> Json:
    entries = parts.blobs.tree(root)
    start = bisect_right(entries, cursor, key=lambda entry: entry.path)
    page = entries[start : start + limit]
    return {
        "root": str(root),
        "items": parts.concurrency.native(lambda: [_view(entry) for entry in page]),
        "next_cursor": page[-1].path if len(entries) > start + limit else None,
    }


def _view(entry: Entry) -> Json:
    if entry.digest is None:
        return {"path": entry.path, "target": entry.target}
    return {
        "path": entry.path,
        "digest": str(entry.digest),
        "size": entry.digest.size,
        "is_executable": entry.is_executable,
    }


def _file(
    pieces: Iterator[bytes], headers: dict[str, str], name: str, *, is_part: bool = False
) -> Download:
    """Saved by a browser, never shown: what tasks write is nobody's page."""
    quoted = urllib.parse.quote(name, safe="")
    headers = {
        **headers,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quoted}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return Download(pieces, 206 if is_part else 200, headers)
