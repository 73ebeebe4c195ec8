"""JSON bodies of requests, typed and strict; every complaint names its place and stays short."""

import re
from typing import Any, TypeVar

import msgspec

from botapi.domain.errors import Code, Refusal, refuse
from botapi.wire_json import decoder

T = TypeVar("T")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)


class Body:
    """The reader of one kind of body."""

    def __init__(self, kind: type[Any]) -> None:
        self._decoder = decoder(kind)

    def read(self, body: bytes) -> Any:  # noqa: ANN401 - of the kind it was made for
        """The typed body. Raises Refusal INVALID_ARGUMENT."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _complaint(body, error) from None


def _complaint(body: bytes, error: Exception) -> Refusal:
    if isinstance(error, msgspec.ValidationError):
        found = _AT.match(str(error))
        what, place = (found["what"], found["place"] or "$") if found else (str(error), "$")
        return refuse(_pointer(place), what.replace("`", '"'))
    if not body.strip():
        return Refusal(Code.INVALID_ARGUMENT, "the body is empty; send a JSON object")
    return Refusal(Code.INVALID_ARGUMENT, f"the body is not JSON: {error}")


def _pointer(place: str) -> str:
    """A path of msgspec, `$.slices[0].env[...]`, as a JSON pointer."""
    parts = re.findall(r"\.([^.\[]+)|\[([^\]]*)\]", place)
    return "".join(f"/{name or index}" for name, index in parts) or "the body"
