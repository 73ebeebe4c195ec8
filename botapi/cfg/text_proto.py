"""A file in protobuf text format: bytes to text to a message, mistakes with their place."""

import re
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from botapi.cfg.mistakes import BadConfig, Mistake
from botapi.cfg.places import Place

_SHOWN_CHARS = 240
_POSITION = re.compile(r"^\d+:\d+ : ")

M = TypeVar("M", bound=Message)


def decoded(file_name: str, raw: bytes) -> str:
    """The text of a file. Raises BadConfig when it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise BadConfig([Mistake(file_name, place, "", "not UTF-8 text")]) from None


def parsed(file_name: str, text: str, empty: M) -> M:
    """The message in a text, put into `empty`. Raises BadConfig at the first syntax error."""
    try:
        return text_format.Parse(text, empty)
    except text_format.ParseError as error:
        place = Place(error.GetLine() or 1, error.GetColumn() or 1)
        said = _POSITION.sub("", str(error))
        if len(said) > _SHOWN_CHARS:
            said = "..." + said[-_SHOWN_CHARS:]
        raise BadConfig([Mistake(file_name, place, "", said)]) from None
