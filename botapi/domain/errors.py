"""One error model: a gRPC code name and a line that is safe to show."""

from enum import StrEnum, auto
from typing import Any

MAX_MESSAGE_CHARS = 2_000


class Code(StrEnum):
    """The gRPC codes (bot-api 0.5); a caller of ours causes the first fourteen."""

    @staticmethod
    def _generate_next_value_(name: str, *_args: Any) -> str:
        return name

    CANCELED = auto()
    INVALID_ARGUMENT = auto()
    DEADLINE_EXCEEDED = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    PERMISSION_DENIED = auto()
    RESOURCE_EXHAUSTED = auto()
    FAILED_PRECONDITION = auto()
    ABORTED = auto()
    OUT_OF_RANGE = auto()
    UNIMPLEMENTED = auto()
    INTERNAL = auto()
    UNAVAILABLE = auto()
    UNAUTHENTICATED = auto()
    UNKNOWN = auto()
    DATA_LOSS = auto()

    @property
    def wire_name(self) -> str:
        """The name in an error line: `InvalidArgument` (bot-api 0.5)."""
        return "".join(word.capitalize() for word in self.split("_"))


class Refusal(Exception):
    """The caller asked for something it cannot have.

    `message` is one line that may be shown to anybody: control characters are replaced
    and the length is bounded here. Details belong in the log.
    `place` is where in the request, as `message` begins; empty when it says none.
    `retry_after_s` is when to come back, 0 where nobody says.
    """

    def __init__(
        self, code: Code, message: str, place: str = "", *, retry_after_s: int = 0
    ) -> None:
        self.code = code
        self.message = one_line(message)
        self.place = place
        self.retry_after_s = retry_after_s
        super().__init__(f"{code}: {self.message}")


def one_line(text: str) -> str:
    """The text with line breaks and control characters replaced by blanks, and cut if long."""
    flat = "".join(c if c.isprintable() else " " for c in text[: MAX_MESSAGE_CHARS + 1])
    return flat if len(flat) <= MAX_MESSAGE_CHARS else flat[:MAX_MESSAGE_CHARS] + "..."


def refuse(place: str, problem: str) -> Refusal:
    """A refusal of something written: where (a JSON pointer), what, and what to do."""
    return Refusal(Code.INVALID_ARGUMENT, f"{place}: {problem}", place)
