"""JSON in one place: typed both ways, through msgspec."""

from typing import TypeVar

import msgspec

T = TypeVar("T")

WireError = msgspec.DecodeError
"""Not JSON, or JSON of the wrong types; its text names the place, like `$.dimensions`."""

_encoder = msgspec.json.Encoder()


def decoder(kind: type[T]) -> "msgspec.json.Decoder[T]":
    """A decoder of that type: `.decode(body)` gives a value or raises WireError."""
    return msgspec.json.Decoder(kind)


def dumps(value: object) -> bytes:
    """JSON bytes without a trailing newline; bytes become base64."""
    return _encoder.encode(value)
