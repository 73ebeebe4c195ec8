"""A mistake in a configuration file: what, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from botapi.cfg.places import Path, Place
from botapi.domain.dimensions import SHOWN_VALUE_BYTES, quote
from botapi.domain.errors import one_line

MAX_MISTAKES = 200
"""Most mistakes that one reading reports."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """`context` names the field in words, `bot_group #1 / bot_id #0 ("x")`; may be empty."""

    file: str
    place: Place
    context: str
    message: str

    def __str__(self) -> str:
        """One line: `bots.cfg:12:3: bot_group #1 / bot_id #0 ("x"): what is wrong`."""
        said = f"{self.context}: {self.message}" if self.context else self.message
        return one_line(f"{self.file}:{self.place.line}:{self.place.column}: {said}")


def in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """At most `MAX_MISTAKES` of them, file by file, in the order of the file."""
    found = sorted(mistakes, key=lambda m: (m.file, m.place.line, m.place.column))
    return tuple(found[:MAX_MISTAKES])


class BadConfig(Exception):
    """A configuration that cannot be used; all its mistakes, file by file, in their order."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = in_order(mistakes)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Each mistake in one line."""
        return [str(mistake) for mistake in self.mistakes]


@dataclass(frozen=True, slots=True)
class Spot:
    """A field that is being looked at: its path, and its name in words."""

    path: Path = ()
    words: str = ""

    def at(self, name: str, number: int | None = None, text: str | None = None) -> "Spot":
        """A field below this one; `text` is quoted behind its number."""
        words = name if number is None else f"{name} #{number}"
        if text is not None:
            words += f" ({shown(text)})"
        return Spot(
            (*self.path, (name, number or 0)), f"{self.words} / {words}" if self.words else words
        )


Complaint = tuple[Spot, str]
"""A field, and what is wrong with it."""


def shown(text: str) -> str:
    """The text in quotes, cut when it is long."""
    return quote(text, SHOWN_VALUE_BYTES)
