"""Bodies of calls: read within a bound, and unpacked within the same (prpc-api 1.1)."""

import zlib

from flask import Request
from werkzeug.exceptions import ClientDisconnected

from botapi.api.prpc.errors import ProtocolError, bad_call
from botapi.domain.errors import Code

GZIP = zlib.MAX_WBITS | 16


def read(http: Request, limit: int) -> bytes:
    """The body as it came. Raises ProtocolError: UNAVAILABLE over the limit, CANCELED cut short."""
    declared = http.content_length or 0
    if declared > limit:
        raise _too_large(limit)
    try:
        body = http.stream.read(limit + 1)
    except (OSError, ClientDisconnected):
        raise _cut_short() from None
    if len(body) > limit:
        raise _too_large(limit)
    if len(body) < declared:
        raise _cut_short()
    return bytes(body)


def unpacked(body: bytes, content_encoding: str, limit: int) -> bytes:
    """The body without its compression; never more than `limit` bytes are made of it.

    Raises ProtocolError as `read` does, and INVALID_ARGUMENT for what is not gzip.
    """
    if content_encoding.strip().lower() in {"", "identity"}:
        return body
    if content_encoding.strip().lower() != "gzip":
        raise bad_call(f'Content-Encoding "{content_encoding[:40]}" is not known; use gzip', 415)
    unpacker = zlib.decompressobj(GZIP)
    try:
        data = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise bad_call("the body is not gzip") from None
    if len(data) > limit:
        raise _too_large(limit)
    if not unpacker.eof:
        raise _cut_short()
    if unpacker.unused_data:
        raise bad_call("the body has something behind its gzip stream")
    return data


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(Code.UNAVAILABLE, f"the body is larger than {limit} bytes", closes=True)


def _cut_short() -> ProtocolError:
    return ProtocolError(Code.CANCELED, "the body ended early", closes=True)
