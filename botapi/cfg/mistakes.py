"""A mistake in a configuration file: what, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from botapi.cfg.places import Place
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


class BadConfig(Exception):
    """A configuration that cannot be used; all its mistakes in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        found = sorted(mistakes, key=lambda m: (m.place.line, m.place.column))
        self.mistakes = tuple(found[:MAX_MISTAKES])
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Each mistake in one line."""
        return [str(mistake) for mistake in self.mistakes]
