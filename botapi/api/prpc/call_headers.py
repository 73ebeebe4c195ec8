"""What the headers of a call say: the two encodings, time and size limits, call data.

The rows of prpc-api 1.1. Text encoding is not offered: it is answered 415 or 406.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from werkzeug.datastructures import Headers

from botapi.api.prpc.errors import bad_call

JSON_TYPE = "application/json"
PRPC_TYPE = "application/prpc"
ANY_TYPES = frozenset({"", "*/*", "application/*", "application/grpc"})
"""These stand for binary."""

_TIMEOUT = re.compile(r"([0-9]{1,19})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SIZE = re.compile(r"[0-9]{1,19}")
_QUALITY = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


class Encoding(StrEnum):
    """How a message is written. In the order in which they win a tie."""

    BINARY = "application/prpc; encoding=binary"
    JSON = "application/json"


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """Both encodings; the caller's limits, None for none: seconds, and bytes of a reply."""

    request: Encoding
    reply: Encoding
    timeout_s: float | None
    max_reply_bytes: int | None


def read_headers(headers: Headers) -> CallHeaders:
    """Encodings first, then the rest, as prpc-api 1.3 orders it. Raises ProtocolError."""
    request = request_encoding(headers.get("Content-Type", ""))
    reply = reply_encoding(headers.get("Accept", ""))
    timeout_s = timeout(headers.get("X-Prpc-Grpc-Timeout"))
    max_reply_bytes = max_reply(headers.get("X-Prpc-Max-Response-Size"))
    check_call_data(headers.items())
    return CallHeaders(request, reply, timeout_s, max_reply_bytes)


def request_encoding(content_type: str) -> Encoding:
    """The encoding of the body. Raises ProtocolError with HTTP status 415."""
    kind, params = _media_type(content_type)
    found = _encoding(kind, params)
    is_plain = kind != PRPC_TYPE or not params.keys() - {"encoding"}
    if found is None or not is_plain:
        raise bad_call(
            f'Content-Type "{content_type[:80]}" is not known; '
            f"use {Encoding.BINARY} or {Encoding.JSON}",
            415,
        )
    return found


def reply_encoding(accept: str) -> Encoding:
    """The encoding of the reply: what the caller likes best.

    Raises ProtocolError: HTTP status 406 when nothing fits, 400 for a wrong `q`.
    """
    if not accept.strip():
        return Encoding.BINARY
    liked = {Encoding.BINARY: 0.0, Encoding.JSON: 0.0}
    for item in accept.split(","):
        kind, params = _media_type(item)
        quality = _quality(params.pop("q", "1"))
        found = _encoding(kind, params) if kind else None
        if found is not None:
            liked[found] = max(liked[found], quality)
    best = max(liked, key=lambda encoding: liked[encoding])  # of equals the first one
    if not liked[best]:
        raise bad_call(
            f'Accept "{accept[:80]}" has nothing that we can write; '
            f"use {Encoding.BINARY} or {Encoding.JSON}",
            406,
        )
    return best


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    kind, *rest = text.split(";")
    pairs = (part.partition("=") for part in rest if part.strip())
    params = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    return kind.strip().lower(), params


def _encoding(kind: str, params: Mapping[str, str]) -> Encoding | None:
    if kind in ANY_TYPES:
        return Encoding.BINARY
    if kind == JSON_TYPE:
        return Encoding.JSON
    if kind != PRPC_TYPE:
        return None
    named = {"binary": Encoding.BINARY, "json": Encoding.JSON}
    return named.get(params.get("encoding", "binary").lower())


def _quality(text: str) -> float:
    if _QUALITY.fullmatch(text) is None:
        raise bad_call(f'Accept: q="{text[:40]}" is not a number')
    return float(text)


def timeout(text: str | None) -> float | None:
    """The time limit in seconds. Raises ProtocolError."""
    if text is None:
        return None
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise bad_call(
            f'X-Prpc-Grpc-Timeout "{text[:40]}" is not digits and one of H, M, S, m, u, n'
        )
    return int(found[1]) * _UNITS[found[2]]


def max_reply(text: str | None) -> int | None:
    """The most bytes of a reply. Raises ProtocolError."""
    if text is None:
        return None
    size = int(text) if _SIZE.fullmatch(text) else 0
    if size <= 0:
        raise bad_call(f'X-Prpc-Max-Response-Size "{text[:40]}" is not a positive number')
    return size


def check_call_data(headers: Iterable[tuple[str, str]]) -> None:
    """Names that end in `-Bin` carry padded standard base64. Raises ProtocolError."""
    for name, value in headers:
        if name.lower().endswith("-bin"):
            try:
                for part in value.split(","):
                    base64.b64decode(part.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise bad_call(f"{name[:80]} is not base64") from None
