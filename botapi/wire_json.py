"""JSON in one place: typed both ways, through msgspec.

msgspec studies a type when it is first asked for it and shows its notes to other threads
before they are complete: a thread that uses the type meanwhile crashes the process. So make
whatever reads a type while a module is imported, which one thread does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

WireError = msgspec.DecodeError
"""Not JSON, or JSON of the wrong types; its text names the place, like `$.dimensions`."""

_encoder = msgspec.json.Encoder()
_OBJECTS = (inspect.DataclassType, inspect.StructType)
_ARRAYS = (inspect.ListType, inspect.VarTupleType)


def decoder(kind: type[T]) -> "msgspec.json.Decoder[T]":
    """A decoder of that type: `.decode(body)` gives a value or raises WireError."""
    return msgspec.json.Decoder(kind)


def reader(kind: type[T]) -> Callable[[object], T]:
    """What makes a value of that type from dicts and lists, or raises WireError."""
    decoder(kind)  # msgspec knows the type from now on
    return partial(msgspec.convert, type=kind)


def any_case(kind: type[T]) -> Callable[[bytes], T]:
    """As `decoder(kind).decode`, with the keys of `kind` known in any case (bot-api 0.3).

    A key in its own case wins over others. Free-form values keep their keys.
    """
    info = inspect.type_info(kind)
    read = reader(kind)

    def decode(body: bytes) -> T:
        return read(_folded(msgspec.json.decode(body), info))

    return decode


def _folded(value: Any, info: inspect.Type) -> Any:  # noqa: ANN401 - JSON
    if isinstance(info, inspect.UnionType):
        structured = (*_OBJECTS, *_ARRAYS)
        info = next((one for one in info.types if isinstance(one, structured)), info)
    if isinstance(info, _ARRAYS) and isinstance(value, list):
        return [_folded(item, info.item_type) for item in value]
    if not isinstance(info, _OBJECTS) or not isinstance(value, dict):
        return value
    known = {field.encode_name: field.type for field in info.fields}
    folded = {key.lower(): item for key, item in value.items() if key.lower() in known}
    folded |= {key: item for key, item in value.items() if key in known}
    return {key: _folded(item, known[key]) for key, item in folded.items()}


def dumps(value: object) -> bytes:
    """JSON bytes without a trailing newline; bytes become base64."""
    return _encoder.encode(value)
