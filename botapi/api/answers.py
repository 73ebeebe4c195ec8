"""What a call of the API answers, as HTTP: JSON or bytes, tagged, and packed when that pays."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flask import Request, Response

from botapi.api.parts import MANY, Json
from botapi.concurrency import Concurrency, giving_way
from botapi.wire_json import dumps

JSON = "application/json"
GZIP_OVER = 1024
"""JSON of so many bytes is sent as it is."""
GZIP_LEVEL = 5
LOOP_BYTES = 16 * 1024
"""Packing, reading or writing more than this takes over a millisecond: not on the loop."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object, or bytes with headers; or bytes that are made while they are sent."""

    content: Json | bytes | Iterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    """The digest of the configuration that it shows: its `ETag`, for `If-Match`."""
    is_tagged: bool = False
    """May the caller have it already? Then `If-None-Match` saves sending it again."""


def packed(body: bytes) -> bytes:
    """The body as gzip, the same bytes each time."""
    return gzip.compress(body, GZIP_LEVEL, mtime=0)


def respond(answer: Answer, http: Request, concurrency: Concurrency) -> Response:
    """The answer to this request."""
    if isinstance(answer.content, dict):
        body: bytes | Iterator[bytes] = _text(answer.content, concurrency) + b"\n"
        response = Response(body, answer.status, content_type=JSON)
    else:
        body = answer.content
        response = Response(body, answer.status, content_type="application/octet-stream")
    response.headers.update(answer.headers)
    response.headers["Cache-Control"] = "no-store"
    if answer.revision is not None:
        response.set_etag(answer.revision)
    elif isinstance(body, bytes) and response.mimetype == JSON:
        if answer.is_tagged:
            response.set_etag(hashlib.sha256(body).hexdigest()[:32], weak=True)
            response.make_conditional(http)
        if response.status_code != 304:
            _pack(response, body, http, concurrency)
    return response


def _text(content: Json, concurrency: Concurrency) -> bytes:
    """As JSON; a long list is written item by item, away from the loop, and gives way to it."""
    if not any(isinstance(value, list) and len(value) > MANY for value in content.values()):
        return dumps(content)
    return concurrency.native(lambda: b"{%b}" % b",".join(map(_member, content.items())))


def _member(item: tuple[str, object]) -> bytes:
    name, value = item
    if isinstance(value, list) and len(value) > MANY:
        text = b"[%b]" % b",".join(map(dumps, giving_way(value)))
    else:
        text = dumps(value)
    return b"%b:%b" % (dumps(name), text)


def _pack(response: Response, body: bytes, http: Request, concurrency: Concurrency) -> None:
    """Replace the body by a smaller one if the caller can read it."""
    if len(body) <= GZIP_OVER:
        return
    response.vary.add("Accept-Encoding")
    if http.accept_encodings["gzip"] <= 0:
        return

    is_long = len(body) > LOOP_BYTES
    response.set_data(concurrency.native(lambda: packed(body)) if is_long else packed(body))
    response.headers["Content-Encoding"] = "gzip"
