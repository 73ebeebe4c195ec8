"""Messages as bytes, both ways: binary protobuf, and JSON by the rules of prpc-api 1.4.

`google.protobuf.json_format` converts single values. Which fields there are is looked at here
first, since it takes lists for objects, knows a field's two names as two fields, and has its
own mind about unknown keys and names of enums.
"""

import base64
import json
import re
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from botapi.api.prpc.call_headers import Encoding
from botapi.api.prpc.errors import ProtocolError, bad_call
from botapi.wire_json import dumps

JSON_PREFIX = b")]}'\n"
FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799
"""The years 1 to 9999 in seconds since 1970."""

M = TypeVar("M", bound=Message)

_TIMESTAMP: Descriptor = Timestamp.DESCRIPTOR
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?|NaN|-?Infinity")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBERS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_FLOAT,
}
"""The types of number in this API."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written: a name may come twice."""


def decode(body: bytes, encoding: Encoding, kind: type[M]) -> M:
    """The message in a body. Raises ProtocolError, code 3."""
    try:
        message = _from_json(body, kind) if encoding is Encoding.JSON else kind.FromString(body)
    except DecodeError:
        raise bad_call(f"the body is not a message of type {kind.DESCRIPTOR.name}") from None
    _check_values(message, "")
    return message


def encode(message: Message, encoding: Encoding) -> bytes:
    """The body of a good reply."""
    if encoding is Encoding.BINARY:
        return message.SerializeToString()
    return JSON_PREFIX + dumps(json_format.MessageToDict(message)) + b"\n"


def encode_detail(detail: Message, encoding: Encoding) -> str:
    """One value of `X-Prpc-Status-Details-Bin`: base64 of an `Any` in the reply's encoding."""
    packed = AnyMessage()
    packed.Pack(detail)
    if encoding is Encoding.BINARY:
        return base64.b64encode(packed.SerializeToString()).decode()
    return base64.b64encode(dumps(json_format.MessageToDict(packed))).decode()


def _from_json(body: bytes, kind: type[M]) -> M:
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_Pairs, parse_constant=_no_such_constant
        )
    except UnicodeDecodeError:
        raise bad_call("the body is not UTF-8") from None
    except ValueError as error:
        raise bad_call(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise bad_call("the body is nested too deep") from None
    try:
        message = kind()
        descriptor = cast("Descriptor", message.DESCRIPTOR)
        return json_format.ParseDict(_object(value, descriptor, "the body"), message)
    except json_format.ParseError as error:
        raise bad_call(f"the body: {error}") from None


def _no_such_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} stands for nothing")


def _object(value: Any, descriptor: Descriptor, place: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The fields that are said, each once and by its own name; what is unknown is left out."""
    if not isinstance(value, _Pairs):
        raise bad_call(f"{place}: must be an object")
    fields = _fields(descriptor)
    seen: set[str] = set()
    found: dict[str, Any] = {}
    for name, item in value:
        field = fields.get(name)
        if field is None:
            continue
        if field.name in seen:
            raise bad_call(f'{place}: "{name}" is given twice')
        seen.add(field.name)
        if item is not None:
            _put(found, field, item, f"{place}: {name}")
    return found


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    by_json_name = {field.json_name: field for field in descriptor.fields}
    return {field.name: field for field in descriptor.fields} | by_json_name


def _put(found: dict[str, Any], field: FieldDescriptor, item: Any, place: str) -> None:  # noqa: ANN401 - JSON
    if not field.is_repeated:
        values = [_single(field, item, place)]
    elif isinstance(item, list) and not isinstance(item, _Pairs):
        values = [_single(field, one, f"{place}[{i}]") for i, one in enumerate(item)]
    else:
        raise bad_call(f"{place}: must be a list")
    known = [value for value in values if value is not None]
    if field.is_repeated:
        found[field.name] = known
    elif known:
        found[field.name] = known[0]


def _single(field: FieldDescriptor, item: Any, place: str) -> Any:  # noqa: ANN401 - JSON
    """One value for `json_format`; None for the unknown name of an enum."""
    if isinstance(item, list) and (isinstance(item, _Pairs) != _is_object(field)):
        raise bad_call(f"{place}: is of the wrong type")
    if item is None:
        raise bad_call(f"{place}: must not be null")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _base64(item, place)
    if field.enum_type is not None:
        return _enum(field.enum_type, item, place)
    if field.message_type is not None and _is_object(field):
        return _object(item, field.message_type, place)
    if field.type in _NUMBERS and not _is_number(item):
        raise bad_call(f"{place}: is not a number")
    if field.message_type is not None and not (isinstance(item, str) and _TIME.fullmatch(item)):
        raise bad_call(f"{place}: is not a time such as 2026-03-04T05:06:07.089Z")
    return item


def _is_number(item: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(item, str):
        return _NUMBER.fullmatch(item) is not None
    return isinstance(item, int | float) and not isinstance(item, bool)


def _is_object(field: FieldDescriptor) -> bool:
    return field.message_type not in {None, _TIMESTAMP}


def _base64(item: Any, place: str) -> str:  # noqa: ANN401 - JSON
    if not isinstance(item, str) or not _BASE64.fullmatch(item) or len(item.rstrip("=")) % 4 == 1:
        raise bad_call(f"{place}: is not base64")
    return item


def _enum(descriptor: EnumDescriptor, item: Any, place: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(item, str):
        return next((value.name for value in descriptor.values if value.name == item), None)
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if not is_number or (isinstance(item, float) and not item.is_integer()):
        raise bad_call(f"{place}: is no name and no number")
    _check_enum(descriptor, int(item), place)
    return int(item)


def _check_enum(descriptor: EnumDescriptor, number: int, place: str) -> None:
    if number not in descriptor.values_by_number:
        raise bad_call(f"{place}: {descriptor.name} has no number {number}")


def _check_values(message: Message, place: str) -> None:
    """Numbers of enums that exist and times of the years 1 to 9999, in either encoding."""
    for field in _checked(message.DESCRIPTOR):
        said = getattr(message, field.name)
        if field.message_type is not None and not field.is_repeated:
            values = [said] if message.HasField(field.name) else []
        else:
            values = list(said) if field.is_repeated else [said]
        for value in values:
            if field.enum_type is not None:
                _check_enum(field.enum_type, value, place + field.name)
            elif isinstance(value, Timestamp):
                _check_time(value, place + field.name)
            else:
                _check_values(value, f"{place}{field.name}.")


@cache
def _checked(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that may hold such a value, at some depth."""
    return tuple(
        field
        for field in descriptor.fields
        if field.enum_type is not None
        or field.message_type is _TIMESTAMP
        or (field.message_type is not None and _checked(field.message_type))
    )


def _check_time(moment: Timestamp, place: str) -> None:
    is_time = FIRST_SECOND <= moment.seconds <= LAST_SECOND and 0 <= moment.nanos < 10**9
    if not is_time:
        raise bad_call(f"{place}: is not a time of the years 1 to 9999")


__all__ = ["JSON_PREFIX", "ProtocolError", "decode", "encode", "encode_detail"]
