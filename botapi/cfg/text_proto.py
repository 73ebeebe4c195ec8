"""A file in protobuf text format: bytes to text to a message, mistakes with their place."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from botapi.cfg.mistakes import BadConfig, Complaint, Mistake, Spot
from botapi.cfg.places import Path, Place, places

_SHOWN_CHARS = 240
_FILE = Spot()
_POSITION = re.compile(r"^\d+:\d+ : ")

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class ParsedFile(Generic[M]):
    """A file whose syntax is good: its text, its message, and the places of its fields."""

    name: str
    text: str
    message: M
    where: Mapping[Path, Place]

    def place(self, path: Path) -> Place:
        """The place of a field, or of the nearest one around it when it is absent."""
        while path not in self.where:
            path = path[:-1]
        return self.where[path]

    def mistakes(self, complaints: Iterable[Complaint]) -> list[Mistake]:
        """The complaints with their places."""
        return [
            Mistake(self.name, self.place(spot.path), spot.words, said) for spot, said in complaints
        ]


def opened(file_name: str, raw: bytes, empty: M) -> ParsedFile[M]:
    """Read a file into `empty`. Raises BadConfig when its encoding or syntax is bad."""
    text = decoded(file_name, raw)
    return ParsedFile(file_name, text, parsed(file_name, text, empty), places(text))


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


def is_set(message: Message, name: str) -> bool:
    """Is the field set? Messages count when they are present, even empty."""
    return any(descriptor.name == name for descriptor, _ in message.ListFields())


def ignored(
    message: Message, reasons: Mapping[str, str], spot: Spot = _FILE
) -> Iterator[Complaint]:
    """Every field that is set, and read for nothing.

    `reasons` maps such fields, as `Message.field`, to what is to be said about them.
    """
    for descriptor, value in message.ListFields():
        values = value if descriptor.is_repeated else [value]
        reason = reasons.get(f"{message.DESCRIPTOR.name}.{descriptor.name}")
        if reason is not None:
            yield spot.at(descriptor.name), reason
        elif descriptor.message_type is not None:
            for number, inner in enumerate(values):
                below = spot.at(descriptor.name, number if descriptor.is_repeated else None)
                yield from ignored(inner, reasons, below)
